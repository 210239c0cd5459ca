"""The cells of one checkpoint: one load, and one forward pass for each text."""

from pathlib import Path

from jobs.capability_work import AblationWork, EvalWork, GenerateWork, MemorizationWork
from jobs.cells import Cell
from jobs.events import Progress, Started
from jobs.finetune_work import SensitivityWork
from jobs.sources import Produced, Source
from jobs.winrate_work import RespondWork
from jobs.work import CheckpointWork, GeometryWork, HeadWork, LossWork, precision
from workers import artifacts
from workers.artifacts import Files
from workers.features import ForwardPass, check_logits, forward_pass
from workers.hub import LoadedCheckpoint, load_checkpoint, take_chat_template
from workers.measure import Rows, checkpoint_rows, geometry_rows, head_rows, loss_rows
from workers.sensitivity import sensitivity_rows
from workers.sequences import TokenSequences, load_sequences
from workers.sweeps import sweep_rows
from workers.tally import phase
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.weight_files import are_pickled

_SEQUENCES = ("sequences.safetensors", "sequences.json")


def measure_checkpoint(
    source: Source, weights: Path, tokenizer: Path, task: Task, files: Files, report: Report
) -> None:
    """Runs all cells of one checkpoint from one load."""
    clock = Clock()
    precisions = {found for cell in task.cells if (found := precision(cell.work))}
    if len(precisions) > 1:
        raise ValueError(f"a task runs in one precision, not in {', '.join(sorted(precisions))}")
    loaded = load_checkpoint(
        weights,
        tokenizer,
        next(iter(precisions), "float32"),
        task.device,
        are_pickled(source),
    )
    if isinstance(source, Produced):
        take_chat_template(loaded.tokenizer, weights)
    load_seconds = clock.lap()
    texts: dict[str, list[Cell]] = {}
    asking: list[Cell] = []
    changing: list[Cell] = []
    for cell in task.cells:
        match cell.work:
            case CheckpointWork() | HeadWork():
                with reporting_failure([cell], report):
                    report(Started(cell.id))
                    rows = _rows_without_pass(cell, source, loaded, files)
                    seconds = load_seconds + clock.lap()
                    report(finished(cell, {cell.work.table: rows}, task, seconds))
            case GeometryWork() | LossWork() | AblationWork() as work:
                texts.setdefault(work.sequences, []).append(cell)
            case SensitivityWork():
                changing.append(cell)
            case _:
                asking.append(cell)
    for sequences, cells in texts.items():
        with reporting_failure(cells, report):
            folder = artifacts.whole(files, sequences, _SEQUENCES)
            _measure_text(loaded, folder, cells, task, files, report)
    # Those that change the weights for a while come last.
    for cell in (*asking, *changing):
        with reporting_failure([cell], report):
            clock.lap()
            report(Started(cell.id))
            tables = _asked(cell, loaded, task, files, report)
            report(finished(cell, tables, task, clock.lap()))


def _rows_without_pass(cell: Cell, source: Source, loaded: LoadedCheckpoint, files: Files) -> Rows:
    if isinstance(cell.work, HeadWork):
        counted = cell.work.sequences
        sequences = load_sequences(artifacts.whole(files, counted, _SEQUENCES)) if counted else None
        return head_rows(cell.work, loaded, sequences)
    return checkpoint_rows(loaded, source)


def _measure_text(
    loaded: LoadedCheckpoint,
    folder: Path,
    cells: list[Cell],
    task: Task,
    files: Files,
    report: Report,
) -> None:
    """Runs all cells that read one text from one forward pass."""
    clock = Clock()
    for cell in cells:
        report(Started(cell.id))
    works = [cell.work for cell in cells]
    geometry = [work for work in works if isinstance(work, GeometryWork)]
    sequences = load_sequences(folder)
    passed = forward_pass(
        loaded.model,
        sequences,
        batch_size=task.batch_size,
        layers=any(work.layers == "all" for work in geometry),
        loss=any(isinstance(work, LossWork) for work in works),
        sequence_lengths=tuple(sorted({n for work in geometry for n in work.sequence_lengths})),
        report=lambda done, total: report(Progress(cells[0].id, done, total)),
    )
    pass_seconds = clock.lap()
    for cell in cells:
        with reporting_failure([cell], report):
            tables = _of_text(cell, loaded, sequences, passed, task, files, report)
            report(finished(cell, tables, task, pass_seconds + clock.lap()))


def _of_text(
    cell: Cell,
    loaded: LoadedCheckpoint,
    sequences: TokenSequences,
    passed: ForwardPass,
    task: Task,
    files: Files,
    report: Report,
) -> dict[str, Rows]:
    """Returns what a cell makes of a forward pass over its text, side tables first."""
    match cell.work:
        case GeometryWork() as work:
            rows, side = geometry_rows(work, loaded, sequences, passed)
            swept = sweep_rows(work, sequences, passed)
            return {"influences": side, **({"sweeps": swept} if swept else {}), "geometry": rows}
        case LossWork() as work:
            check_logits(loaded.model)
            return {"evals": loss_rows(work, sequences, passed)}
        case AblationWork() as work:
            # Imported here: lm-eval takes seconds, and only what asks questions needs it.
            from workers.ablate import ablation_rows

            return {
                "ablation": ablation_rows(
                    work,
                    loaded,
                    sequences,
                    passed.features,
                    files,
                    task.batch_size,
                    lambda done, total: report(Progress(cell.id, done, total)),
                )
            }
        case _:
            raise ValueError(f"a cell of kind {cell.work.kind} reads no text")


@phase("forward")
def _asked(
    cell: Cell, loaded: LoadedCheckpoint, task: Task, files: Files, report: Report
) -> dict[str, Rows]:
    """Returns what a cell with passes of its own makes of the model, side tables first."""

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done, total))

    match cell.work:
        case EvalWork() as work:
            from workers.evaluate import eval_rows

            rows, outcomes = eval_rows(work, loaded, files, task.batch_size, progress)
            return {"outcomes": outcomes, "evals": rows}
        case MemorizationWork() as work:
            from workers.memorize import memorization_rows

            answers = artifacts.whole(files, work.answers)
            rows, side = memorization_rows(work, loaded, answers, task.batch_size, progress)
            return {"likelihoods": side, "memorization": rows}
        case GenerateWork() as work:
            from workers.generate import generation_rows

            return {"generations": generation_rows(work, loaded, task.batch_size, progress)}
        case RespondWork() as work:
            from workers.respond import respond_rows

            batch = task.batch_size
            return {"responses": respond_rows(cell, work, loaded, files, batch, progress)}
        case SensitivityWork() as work:
            sequences = load_sequences(artifacts.whole(files, work.sequences, _SEQUENCES))
            rows = sensitivity_rows(work, loaded, sequences, task.batch_size, progress)
            return {"sensitivity": rows}
        case _:
            raise ValueError(f"a cell of kind {cell.work.kind} measures no checkpoint")
