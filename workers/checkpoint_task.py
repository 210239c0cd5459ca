"""The cells of one checkpoint: one load, and one forward pass for each text."""

from pathlib import Path

from jobs.cells import Cell
from jobs.events import Progress, Started
from jobs.sources import Source
from jobs.work import CheckpointWork, GeometryWork, HeadWork, LossWork
from workers import artifacts
from workers.artifacts import Files
from workers.features import check_logits, forward_pass
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.measure import Rows, checkpoint_rows, geometry_rows, head_rows, loss_rows
from workers.sequences import load_sequences
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.weight_files import are_pickled

_SEQUENCES = ("sequences.safetensors", "sequences.json")


def measure_checkpoint(
    source: Source, weights: Path, tokenizer: Path, task: Task, files: Files, report: Report
) -> None:
    """Runs all cells of one checkpoint from one load."""
    clock = Clock()
    precisions = {c.work.dtype for c in task.cells if isinstance(c.work, GeometryWork | LossWork)}
    if len(precisions) > 1:
        raise ValueError(f"a task runs in one precision, not in {', '.join(sorted(precisions))}")
    loaded = load_checkpoint(
        weights,
        tokenizer,
        next(iter(precisions), "float32"),
        task.device,
        are_pickled(source),
    )
    load_seconds = clock.lap()
    texts: dict[str, list[Cell]] = {}
    for cell in task.cells:
        match cell.work:
            case CheckpointWork() | HeadWork():
                with reporting_failure([cell], report):
                    report(Started(cell.id))
                    rows = _rows_without_pass(cell, source, loaded, files)
                    seconds = load_seconds + clock.lap()
                    report(finished(cell, {cell.work.table: rows}, task, seconds))
            case GeometryWork() | LossWork() as work:
                texts.setdefault(work.sequences, []).append(cell)
    for sequences, cells in texts.items():
        with reporting_failure(cells, report):
            folder = artifacts.whole(files, sequences, _SEQUENCES)
            _measure_text(loaded, folder, cells, task, report)


def _rows_without_pass(cell: Cell, source: Source, loaded: LoadedCheckpoint, files: Files) -> Rows:
    if isinstance(cell.work, HeadWork):
        counted = cell.work.sequences
        sequences = load_sequences(artifacts.whole(files, counted, _SEQUENCES)) if counted else None
        return head_rows(cell.work, loaded, sequences)
    return checkpoint_rows(loaded, source)


def _measure_text(
    loaded: LoadedCheckpoint, folder: Path, cells: list[Cell], task: Task, report: Report
) -> None:
    """Runs all cells that read one text from one forward pass."""
    clock = Clock()
    for cell in cells:
        report(Started(cell.id))
    works = [cell.work for cell in cells]
    sequences = load_sequences(folder)
    passed = forward_pass(
        loaded.model,
        sequences,
        batch_size=task.batch_size,
        layers=any(isinstance(w, GeometryWork) and w.layers == "all" for w in works),
        loss=any(isinstance(w, LossWork) for w in works),
        report=lambda done, total: report(Progress(cells[0].id, done, total)),
    )
    pass_seconds = clock.lap()
    for cell in cells:
        with reporting_failure([cell], report):
            tables: dict[str, Rows]
            if isinstance(cell.work, GeometryWork):
                rows, side = geometry_rows(cell.work, loaded, sequences, passed)
                tables = {"influences": side, "geometry": rows}
            elif isinstance(cell.work, LossWork):
                check_logits(loaded.model)
                tables = {"evals": loss_rows(cell.work, sequences, passed)}
            else:
                raise ValueError(f"a cell of kind {cell.work.kind} reads no text")
            report(finished(cell, tables, task, pass_seconds + clock.lap()))
