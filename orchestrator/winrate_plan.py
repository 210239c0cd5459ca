"""From a study to the cells that answer instructions and have the answers compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError, nearest
from jobs.identity import FileHashes
from jobs.posttrain_work import PicoRecords, PosttrainWork
from jobs.sources import Produced, TextFiles
from jobs.spec import LocalSuite, Study
from jobs.winrate_spec import EndpointJudge, LocalJudge, SuiteJudge, Winrates, shared_cost
from jobs.winrate_work import JudgeCheckpoint, RespondWork, Side, WinrateWork
from orchestrator.named_inputs import named_path
from orchestrator.named_records import NamedRecords
from orchestrator.suites import local_checkpoints


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints whose answers are compared.

    Attributes:
        kind: Whether they are of two chains, or of two starts of one.
        baseline: What the other one is compared with.
        compared: The other one.
    """

    kind: Literal["pair", "last"]
    baseline: Checkpoint
    compared: Checkpoint


def winrate_cells(
    study: Study,
    checkpoints: Sequence[Checkpoint],
    made: Iterable[Cell],
    records: Mapping[str, NamedRecords],
    hashes: FileHashes,
) -> list[Cell]:
    """Returns the cells of a study's win rates.

    Args:
        study: The study.
        checkpoints: All its checkpoints, those of chains included.
        made: All cells that make checkpoints.
        records: The study's training data.
        hashes: The hashes of files.

    Raises:
        StudyError: A suite or chain that isn't there, nothing to compare, a judge or difficulties
            that are missing.
    """
    asked = study.winrates
    if asked is None:
        return []
    starts = _starts(checkpoints, made)
    comparisons = _comparisons(asked, checkpoints, starts)
    judge: EndpointJudge | JudgeCheckpoint
    match asked.judge:
        case EndpointJudge() as endpoint:
            judge = shared_cost(endpoint, len(comparisons))
        case LocalJudge(checkpoint=folder):
            judge = _local_judge(folder, study, hashes)
        case SuiteJudge() as named:
            found = _last_checkpoint(named, checkpoints)
            judge = JudgeCheckpoint(found.source, found.tokenizer, study.forward.dtype)
    difficulties = _difficulties(asked, hashes)
    answering: dict[Checkpoint, Cell] = {}
    judging: list[Cell] = []
    for comparison in comparisons:
        both = (comparison.baseline, comparison.compared)
        for checkpoint in both:
            if checkpoint not in answering:
                answering[checkpoint] = _respond(study, asked, checkpoint, records)
        first, second = (answering[checkpoint].id for checkpoint in both)
        before, after = (_side(checkpoint, starts) for checkpoint in both)
        work = WinrateWork(
            comparison.kind,
            asked.instructions,
            (before, after),
            (first, second),
            judge,
            difficulties,
        )
        compared = comparison.compared
        # Equal checkpoints give one answering cell, which is needed but once.
        needs = tuple(dict.fromkeys((first, second, *_made_by(judge))))
        judging.append(Cell(work, needs, suite=compared.suite, model=compared.model))
    return [*answering.values(), *judging]


def _respond(
    study: Study,
    asked: Winrates,
    checkpoint: Checkpoint,
    records: Mapping[str, NamedRecords],
) -> Cell:
    found = records[asked.instructions].records
    work = RespondWork(found, asked.new_tokens, asked.temperature, asked.seed, study.forward.dtype)
    needs = _made_by(checkpoint)
    if isinstance(found, PicoRecords):
        needs.append(found.corpus)
    return Cell(work, tuple(dict.fromkeys(needs)), checkpoint)


def _starts(
    checkpoints: Iterable[Checkpoint], made: Iterable[Cell]
) -> dict[Checkpoint, Checkpoint]:
    """Returns the checkpoint that each checkpoint's chain began from; those of no chain lack."""
    before = {
        cell.id: cell.checkpoint
        for cell in made
        if isinstance(cell.work, PosttrainWork) and cell.checkpoint is not None
    }
    found: dict[Checkpoint, Checkpoint] = {}
    for checkpoint in checkpoints:
        start = checkpoint
        while isinstance(start.source, Produced) and start.source.cell_id in before:
            start = before[start.source.cell_id]
        if start is not checkpoint:
            found[checkpoint] = start
    return found


def _comparisons(
    asked: Winrates, checkpoints: Sequence[Checkpoint], starts: Mapping[Checkpoint, Checkpoint]
) -> list[Comparison]:
    suites: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        suites.setdefault(checkpoint.suite, []).append(checkpoint)
    for name in dict.fromkeys([*(n for pair in asked.pairs for n in pair), *asked.against_last]):
        if name not in suites:
            raise StudyError(
                f"winrates names '{name}', which is no suite or chain with checkpoints"
                f"{nearest(name, tuple(suites))}",
                f"use some of {', '.join(suites) or '(none)'}",
            )
    found: list[Comparison] = []
    for first, second in asked.pairs:
        compared, baseline = (_by_beginning(suites[name], starts) for name in (first, second))
        shared = [key for key in compared if key in baseline]
        if not shared:
            raise StudyError(
                f"winrates.pairs: no checkpoint of '{first}' has a counterpart in '{second}', of "
                "the same model, stage and beginning",
                "let both chains begin from the same suite, models, steps and seeds",
            )
        found += [Comparison("pair", baseline[key], compared[key]) for key in shared]
    for name in asked.against_last:
        others = [
            Comparison("last", alike[-1], earlier)
            for alike in _by_model(suites[name], starts)
            for earlier in alike[:-1]
        ]
        if not others:
            raise StudyError(
                f"winrates.against_last: the models of '{name}' begin from one checkpoint each, "
                "and there is no earlier one to compare with the last",
                "give the chain some `steps` to begin from",
            )
        found += others
    return found


def _by_beginning(
    checkpoints: Iterable[Checkpoint], starts: Mapping[Checkpoint, Checkpoint]
) -> dict[tuple[object, ...], Checkpoint]:
    """Returns the last checkpoint of each stage by its model and what it began from.

    Outside of chains the beginning isn't known, and the step stands for it.
    """
    return {
        (
            _seedless(c, starts),
            _seed(c, starts),
            c.stage,
            starts[c].digest if c in starts else c.step,
        ): c
        for c in checkpoints
    }


def _by_model(
    checkpoints: Iterable[Checkpoint], starts: Mapping[Checkpoint, Checkpoint]
) -> list[list[Checkpoint]]:
    """Returns the last checkpoints of each model, seed and stage, by the step of their start."""
    groups: dict[tuple[object, ...], list[Checkpoint]] = {}
    for c in _by_beginning(checkpoints, starts).values():
        groups.setdefault((_seedless(c, starts), _seed(c, starts), c.stage), []).append(c)

    def when(checkpoint: Checkpoint) -> int:
        step = starts.get(checkpoint, checkpoint).step
        return -1 if step is None else step

    return [sorted(group, key=when) for group in groups.values()]


def _seedless(checkpoint: Checkpoint, starts: Mapping[Checkpoint, Checkpoint]) -> str:
    """Returns the name of the model that a checkpoint comes from."""
    return starts.get(checkpoint, checkpoint).model


def _seed(checkpoint: Checkpoint, starts: Mapping[Checkpoint, Checkpoint]) -> str:
    """Returns what the chain has added to the model's name besides the step that it began from."""
    start = starts.get(checkpoint, checkpoint)
    return checkpoint.model.removeprefix(start.model).removeprefix(f"@{start.step}")


def _side(checkpoint: Checkpoint, starts: Mapping[Checkpoint, Checkpoint]) -> Side:
    start = starts.get(checkpoint)
    return Side(
        checkpoint.suite,
        checkpoint.model,
        checkpoint.revision,
        checkpoint.step,
        checkpoint.stage,
        None if start is None else start.step,
    )


def _local_judge(folder: str, study: Study, hashes: FileHashes) -> JudgeCheckpoint:
    suite = LocalSuite(name="winrates.judge", paths=(folder,))
    ((checkpoint,), _) = local_checkpoints(suite, hashes)
    return JudgeCheckpoint(checkpoint.source, checkpoint.tokenizer, study.forward.dtype)


def _last_checkpoint(judge: SuiteJudge, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    there = [c for c in checkpoints if c.suite == judge.suite]
    if not there:
        suites = sorted({c.suite for c in checkpoints})
        raise StudyError(
            f"winrates.judge names suite '{judge.suite}', which has no checkpoints"
            f"{nearest(judge.suite, suites)}",
            f"use one of {', '.join(suites) or '(none)'}",
        )
    models = list(dict.fromkeys(c.model for c in there))
    if judge.model is None and len(models) > 1:
        raise StudyError(
            f"winrates.judge names suite '{judge.suite}', which has {len(models)} models",
            f"give `model`, one of {', '.join(models)}",
        )
    model = judge.model or models[0]
    if model not in models:
        raise StudyError(
            f"winrates.judge names model '{model}', which suite '{judge.suite}' lacks"
            f"{nearest(model, models)}",
            f"use one of {', '.join(models)}",
        )
    return [c for c in there if c.model == model][-1]


def _made_by(read: Checkpoint | EndpointJudge | JudgeCheckpoint) -> list[str]:
    """Returns the cells that make what is read of a checkpoint."""
    if isinstance(read, EndpointJudge):
        return []
    return [s.cell_id for s in (read.source, read.tokenizer) if isinstance(s, Produced)]


def _difficulties(asked: Winrates, hashes: FileHashes) -> TextFiles | None:
    if asked.difficulties is None:
        return None
    path = named_path("winrates.difficulties", asked.difficulties)
    if not path.is_file():
        raise StudyError(f"winrates.difficulties: there is no file {path}", "check the path")
    return TextFiles(((str(path.resolve()), hashes.sha256(path)),), "", "")
