"""Runs tasks: the cells of one checkpoint, or one cell that makes something.

A checkpoint is loaded once, and one forward pass per text feeds every cell that reads it. What a
cell made or why it couldn't is told through `report`; no error leaves this module but a kill.
"""

import json
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

import jobs
from jobs.cells import Cell
from jobs.errors import CellError, StoreError
from jobs.events import Event, Failed, Finished, Progress, Started
from jobs.findings import AuditWork
from jobs.records import rows_table
from jobs.sources import Source
from jobs.work import (
    CheckpointWork,
    CorpusWork,
    GeometryWork,
    HeadWork,
    LossWork,
    PretrainWork,
    SequencesWork,
)
from workers import artifacts, corpus
from workers.artifacts import Files
from workers.audit import known_rows
from workers.features import check_logits, forward_pass
from workers.hub import LoadedCheckpoint, is_out_of_memory, load_checkpoint
from workers.measure import Rows, checkpoint_rows, geometry_rows, head_rows, loss_rows
from workers.pretrain import pretrain
from workers.sequences import draw_sequences, load_sequences
from workers.weight_files import are_pickled

Report = Callable[[Event], None]

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "pyarrow", "datasets")
_ROWS = "rows.json"
_SEQUENCES = ("sequences.safetensors", "sequences.json")


@dataclass(frozen=True)
class Task:
    """Cells that are run together, and how.

    Attributes:
        cells: Cells of one group.
        device: `cpu`, `cuda` or `mps`.
        threads: CPU threads to use.
        batch_size: Sequences per forward pass.
    """

    cells: tuple[Cell, ...]
    device: str
    threads: int
    batch_size: int


def run_task(task: Task, files: Files, report: Report) -> None:
    """Runs the cells of a task and reports each as finished or failed.

    Args:
        task: The cells.
        files: Where this node finds and puts artifacts.
        report: Takes the events.
    """
    torch.set_num_threads(task.threads)
    first = task.cells[0]
    if first.checkpoint is not None:
        with _reporting_failure(task.cells, report), ExitStack() as stack:

            def fetched(done: int, total: int) -> None:
                report(Progress(first.id, done, total))

            source, tokenizer = first.checkpoint.source, first.checkpoint.tokenizer
            weights = stack.enter_context(artifacts.held(files, source, fetched))
            vocabulary = stack.enter_context(artifacts.held(files, tokenizer, fetched))
            _measure_checkpoint(source, weights, vocabulary, task, files, report)
        return
    for cell in task.cells:
        with _reporting_failure([cell], report):
            report(Started(cell.id))
            started = time.perf_counter()
            rows = _known_rows(cell) or _make_artifact(cell, files, report)
            report(_finished(cell, {cell.work.table: rows}, task, time.perf_counter() - started))


def _known_rows(cell: Cell) -> Rows | None:
    """Returns the rows of a cell that only records what its plan knows."""
    match cell.work:
        case AuditWork() as work:
            return known_rows(work)
        case CheckpointWork(refusal) if refusal is not None:
            return known_rows(refusal)
        case _:
            return None


def _make_artifact(cell: Cell, files: Files, report: Report) -> Rows:
    """Makes a cell's artifact with its rows in it, or reads the rows of a published one.

    A kill between publication and the row's commit then costs no second making.
    """

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done, total))

    if files.artifact(cell.id, _ROWS) is None:
        match cell.work:
            case CorpusWork() as work:
                with artifacts.fresh_artifact(files, cell.id) as folder:
                    rows: Rows = [corpus.build(work.corpus, work.source, folder, progress)]
                    (folder / _ROWS).write_text(json.dumps(rows))
            case SequencesWork() as work:
                with artifacts.fresh_artifact(files, cell.id) as folder:
                    text = artifacts.text_of(files, work.text)
                    with artifacts.held(files, work.tokenizer, progress) as tokenizer:
                        drawn = draw_sequences(text, work.draw, tokenizer, folder, progress)
                    (folder / _ROWS).write_text(json.dumps([{"dataset": work.dataset, **drawn}]))
            case PretrainWork() as work:
                with artifacts.resumable_artifact(files, cell.id) as folder:
                    source = artifacts.whole(files, work.corpus)
                    rows = pretrain(work.model, source, folder, progress)
                    (folder / _ROWS).write_text(json.dumps(rows))
            case _:
                raise ValueError(f"a cell of kind {cell.work.kind} makes no artifact")
    found: Rows = json.loads((artifacts.whole(files, cell.id, (_ROWS,)) / _ROWS).read_text())
    return found


def _measure_checkpoint(
    source: Source, weights: Path, tokenizer: Path, task: Task, files: Files, report: Report
) -> None:
    """Runs all cells of one checkpoint from one load."""
    clock = _Clock()
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
                with _reporting_failure([cell], report):
                    report(Started(cell.id))
                    rows = _rows_without_pass(cell, source, loaded, files)
                    seconds = load_seconds + clock.lap()
                    report(_finished(cell, {cell.work.table: rows}, task, seconds))
            case GeometryWork() | LossWork() as work:
                texts.setdefault(work.sequences, []).append(cell)
    for sequences, cells in texts.items():
        with _reporting_failure(cells, report):
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
    clock = _Clock()
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
        with _reporting_failure([cell], report):
            tables: dict[str, Rows]
            if isinstance(cell.work, GeometryWork):
                rows, side = geometry_rows(cell.work, loaded, sequences, passed)
                tables = {"influences": side, "geometry": rows}
            elif isinstance(cell.work, LossWork):
                check_logits(loaded.model)
                tables = {"evals": loss_rows(cell.work, sequences, passed)}
            else:
                raise ValueError(f"a cell of kind {cell.work.kind} reads no text")
            report(_finished(cell, tables, task, pass_seconds + clock.lap()))


@contextmanager
def _reporting_failure(cells: Iterable[Cell], report: Report) -> Iterator[None]:
    """Reports an error within the block as the failure of the cells.

    This is the boundary at which an error becomes a row, so every exception is caught here; those
    that end the process (SystemExit, KeyboardInterrupt) pass.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001
        for cell in cells:
            report(_failed(cell, error))


def _failed(cell: Cell, error: Exception) -> Failed:
    trace = "".join(traceback.format_exception(error))
    match error:
        case CellError():
            return Failed(cell.id, error.cause, error.message, error.remedy, trace)
        case StoreError():
            return Failed(cell.id, "infrastructure", error.message, error.remedy, trace)
        case _ if is_out_of_memory(error):
            remedy = "lower forward.batch_size, or give the run a device with more memory"
            return Failed(cell.id, "memory", str(error) or "out of memory", remedy, trace)
        case OSError():
            remedy = "check the disk, the permissions and the network, then `retry`"
            return Failed(cell.id, "infrastructure", str(error), remedy, trace)
        case _:
            remedy = "this is a defect of Eigentrace or of the checkpoint; see the traceback"
            return Failed(cell.id, "user", f"{type(error).__name__}: {error}", remedy, trace)


def _finished(cell: Cell, tables: dict[str, Rows], task: Task, seconds: float) -> Finished:
    return Finished(
        cell.id,
        tuple((name, rows_table(name, rows)) for name, rows in tables.items()),
        {
            "eigentrace": jobs.__version__,
            "python": platform.python_version(),
            "libraries": {name: metadata.version(name) for name in _LIBRARIES},
            "device": _device_name(task.device),
            "dtype": getattr(cell.work, "dtype", "float32"),
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
        },
    )


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} {platform.machine()}"


class _Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
