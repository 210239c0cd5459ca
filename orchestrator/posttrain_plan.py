"""From a study to the cells that post-train its checkpoints and sample answers from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError, nearest
from jobs.identity import FileHashes
from jobs.posttrain_spec import Chain, HubExamples, LocalExamples, PassK, PicoExamples
from jobs.posttrain_work import (
    FileRecords,
    HubRecords,
    PassKWork,
    PicoRecords,
    PosttrainWork,
    Records,
    SampleWork,
    Sampling,
)
from jobs.sources import Produced, TextFiles
from jobs.spec import Study
from orchestrator.hub_index import HubIndex
from orchestrator.named_inputs import corpus_of


@dataclass(frozen=True)
class NamedRecords:
    """Training data or problems of a study.

    Attributes:
        records: What they are.
        count: How many there are at most.
    """

    records: Records
    count: int


def records_in_use(
    study: Study,
    corpora: Mapping[str, str],
    heldout: Mapping[str, int],
    hashes: FileHashes,
    index: HubIndex,
) -> dict[str, NamedRecords]:
    """Returns what chains train on and what is sampled for, by the study's names.

    Args:
        study: The study.
        corpora: The corpus cell of each pico suite.
        heldout: How many problems each pico suite's corpus has, at most.
        hashes: The hashes of files.
        index: What is known of the hub.

    Raises:
        StudyError: A name that the study doesn't define, a file that is missing or holds no
            records, problems on the hub without a limit; a repository that is not there.
    """
    asked = [(f"chain '{c.name}'", s.data) for c in study.posttrain for s in c.stages]
    asked += [("passk.problems", name) for name in (study.passk.problems if study.passk else ())]
    asked += [("winrates.instructions", study.winrates.instructions)] if study.winrates else []
    found: dict[str, NamedRecords] = {}
    for where, name in asked:
        if name not in study.training:
            raise StudyError(
                f"{where} names '{name}', which the study doesn't define"
                f"{nearest(name, tuple(study.training))}",
                f"add [training.{name}], or use one of {', '.join(study.training) or '(none)'}",
            )
        match study.training[name]:
            case PicoExamples() as given:
                corpus = corpus_of(f"training data '{name}'", given.suite, corpora)
                count = given.limit or heldout[given.suite]
                found[name] = NamedRecords(
                    PicoRecords(name, corpus, given.form, given.limit), count
                )
            case LocalExamples() as given:
                files, count = _files(name, given.paths, hashes)
                found[name] = NamedRecords(
                    FileRecords(name, files, given.limit), min(count, given.limit or count)
                )
            case HubExamples() as given:
                if study.passk and name in study.passk.problems and given.limit is None:
                    raise StudyError(
                        f"problems '{name}' are on the hub, and how many isn't known here",
                        f"set training.{name}.limit",
                    )
                commit = index.dataset_commit(given.repository, given.revision)
                hub = HubRecords(
                    name, given.repository, given.config, given.split, commit, given.limit
                )
                found[name] = NamedRecords(hub, given.limit or 0)
    return found


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
        StudyError: The suite, a model or a step that it begins from isn't there.
    """
    cells: list[Cell] = []
    made: list[Checkpoint] = []
    begun = beginnings(chain, checkpoints)
    for start in begun:
        for seed in chain.seeds:
            model = start.model + (f"@{start.step}" if chain.steps else "")
            model += f"-seed{seed}" if len(chain.seeds) > 1 else ""
            before, taken = start, 0
            for stage in chain.stages:
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
        for first in range(0, named.count, passk.batch):
            count = min(passk.batch, named.count - first)
            work = SampleWork(named.records, first, count, sampling)
            runs.append(Cell(work, tuple(dict.fromkeys(needs)), checkpoint))
        ids = tuple(cell.id for cell in runs)
        cells += [*runs, Cell(PassKWork(name, ids, passk.k), ids, checkpoint)]
    return cells


def _files(name: str, paths: Sequence[str], hashes: FileHashes) -> tuple[TextFiles, int]:
    """Returns the files of some records, and how many records they hold."""
    found: list[tuple[str, str]] = []
    count = 0
    for given in paths:
        path = Path(given).expanduser()
        if not path.is_file():
            raise StudyError(f"training data '{name}': there is no file {path}", "check the path")
        if path.suffix not in {".json", ".jsonl"}:
            raise StudyError(
                f"training data '{name}': {path.name} is neither .json nor .jsonl",
                "convert it to one",
            )
        try:
            text = path.read_text(encoding="utf-8")
            lines = [line for line in text.split("\n") if line.strip()]
            count += len(json.loads(text)) if path.suffix == ".json" else len(lines)
        except (ValueError, TypeError) as error:
            raise StudyError(
                f"training data '{name}': {path.name} is no list of records: {error}", "mend it"
            ) from error
        found.append((str(path.resolve()), hashes.sha256(path)))
    if not count:
        raise StudyError(f"training data '{name}' holds no records", "add some")
    return TextFiles(tuple(found), "", ""), count
