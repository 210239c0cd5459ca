"""From a study to the cells that post-train its checkpoints and sample answers from them."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError, nearest
from jobs.posttrain_spec import Chain, PassK, TrainingStage
from jobs.posttrain_work import PassKWork, PicoRecords, PosttrainWork, SampleWork, Sampling
from jobs.sources import Produced
from jobs.spec import Study
from orchestrator.named_records import NamedRecords

_MOST_BATCHES = 100_000


def chain_cells(
    study: Study,
    chain: Chain,
    checkpoints: Sequence[Checkpoint],
    records: Mapping[str, NamedRecords],
) -> tuple[list[Cell], list[Checkpoint]]:
    """Returns the cells of a chain's stages, and the checkpoints that they make.

    A chain's tokenizer is that of the checkpoint that it begins from, so that all of them are
    measured on the same sequences; steps are counted from there on, through all stages.

    Raises:
        StudyError: The suite, a model or a step that it begins from isn't there; a stage whose
            steps can't be counted.
    """
    cells: list[Cell] = []
    made: list[Checkpoint] = []
    begun = beginnings(chain, checkpoints)
    stages = [_counted(chain, stage, records[stage.data]) for stage in chain.stages]
    for start in begun:
        for seed in chain.seeds:
            model = start.model + (f"@{start.step}" if chain.steps else "")
            model += f"-seed{seed}" if len(chain.seeds) > 1 else ""
            before, taken = start, 0
            for stage in stages:
                work = PosttrainWork(
                    stage,
                    records[stage.data].records,
                    seed,
                    chain.threads,
                    study.forward.dtype,
                    chain.processes,
                )
                needs = [
                    source.cell_id
                    for source in (before.source, before.tokenizer)
                    if isinstance(source, Produced)
                ]
                if isinstance(work.records, PicoRecords):
                    needs.append(work.records.corpus)
                cell = Cell(work, tuple(dict.fromkeys(needs)), before)
                cells.append(cell)
                kept = [
                    Checkpoint(
                        suite=chain.name,
                        model=model,
                        revision=f"{stage.method}-step{step}",
                        step=taken + step,
                        tokens=None,
                        stage=stage.method,
                        source=Produced(cell.id, f"step{step}"),
                        tokenizer=start.tokenizer,
                    )
                    for step in stage.kept_steps
                ]
                made += kept
                before, taken = kept[-1], taken + stage.steps
    return cells, made


def _counted(chain: Chain, stage: TrainingStage, data: NamedRecords) -> TrainingStage:
    """Returns a stage with its steps, where it gives epochs of its data."""
    if stage.epochs is None:
        return stage
    if data.count is None:
        raise StudyError(
            f"chain '{chain.name}' runs {stage.epochs:g} epochs of '{stage.data}', and how many "
            "records that has isn't known before the run",
            f"{data.remedy}, or give the stage `steps`",
        )
    try:
        return stage.counted(data.count)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise StudyError(
            f"chain '{chain.name}', {stage.epochs:g} epochs of '{stage.data}': {reason}",
            "lower save_steps, or raise epochs",
        ) from error


def beginnings(chain: Chain, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Returns the checkpoints that a chain begins from.

    Raises:
        StudyError: The suite, a model or a step isn't there.
    """
    where = f"chain '{chain.name}'"
    suites = sorted({c.suite for c in checkpoints})
    there = [c for c in checkpoints if c.suite == chain.suite]
    if not there:
        raise StudyError(
            f"{where} begins from suite '{chain.suite}', which has no checkpoints"
            f"{nearest(chain.suite, suites)}",
            f"use one of {', '.join(suites) or '(none)'}",
        )
    models = list(dict.fromkeys(c.model for c in there))
    for model in chain.models:
        if model not in models:
            raise StudyError(
                f"{where} begins from model '{model}', which suite '{chain.suite}' lacks"
                f"{nearest(model, models)}",
                f"use one of {', '.join(models)}",
            )
    found: list[Checkpoint] = []
    for model in chain.models or models:
        of_model = [c for c in there if c.model == model]
        if not chain.steps:
            found.append(of_model[-1])
            continue
        by_step = {c.step: c for c in of_model}
        for step in chain.steps:
            if step not in by_step:
                known = ", ".join(str(s) for s in by_step if s is not None)
                raise StudyError(
                    f"{where}: {model} has no checkpoint of step {step}", f"use some of {known}"
                )
            found.append(by_step[step])
    return found


def sampled(passk: PassK, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Returns the checkpoints that answers are sampled from.

    Raises:
        StudyError: A suite or model that isn't there.
    """
    for what, wanted, there in (
        ("suites", passk.suites, {c.suite for c in checkpoints}),
        ("models", passk.models, {c.model for c in checkpoints}),
    ):
        for name in wanted:
            if name not in there:
                raise StudyError(
                    f"passk.{what} names '{name}', which isn't there{nearest(name, sorted(there))}",
                    f"use some of {', '.join(sorted(there)) or '(none)'}",
                )
    chosen = [
        c
        for c in checkpoints
        if (not passk.suites or c.suite in passk.suites)
        and (not passk.models or c.model in passk.models)
    ]
    if not passk.last_only:
        return chosen
    return list({(c.suite, c.model, c.stage): c for c in chosen}.values())


def sample_cells(
    study: Study, checkpoint: Checkpoint, records: Mapping[str, NamedRecords]
) -> list[Cell]:
    """Returns the cells that sample from a checkpoint, and those that estimate pass@k."""
    passk = study.passk
    if passk is None:
        return []
    sampling = Sampling(
        passk.samples,
        passk.temperature,
        passk.top_p,
        passk.new_tokens,
        passk.seed,
        passk.engine,
        1,
        passk.time_limit,
        study.forward.dtype,
        passk.tensor_parallel,
    )
    cells: list[Cell] = []
    for name in passk.problems:
        named = records[name]
        needs = [
            s.cell_id for s in (checkpoint.source, checkpoint.tokenizer) if isinstance(s, Produced)
        ]
        if isinstance(named.records, PicoRecords):
            needs.append(named.records.corpus)
        runs = []
        problems = named.counted
        if problems > _MOST_BATCHES * passk.batch:
            raise StudyError(
                f"passk: {problems} problems of '{name}' in batches of {passk.batch} are more than "
                f"{_MOST_BATCHES} cells for each checkpoint",
                f"raise passk.batch, or set training.{name}.limit",
            )
        for first in range(0, problems, passk.batch):
            count = min(passk.batch, problems - first)
            work = SampleWork(named.records, first, count, sampling)
            runs.append(Cell(work, tuple(dict.fromkeys(needs)), checkpoint))
        ids = tuple(cell.id for cell in runs)
        cells += [*runs, Cell(PassKWork(name, ids, passk.k), ids, checkpoint)]
    return cells
