"""What is told of the cells at work: an error becomes the failure of the cells that it concerns."""

import functools
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

import torch

import jobs
from jobs.cells import Cell
from jobs.errors import CellError, StoreError
from jobs.events import Event, Failed, Finished
from jobs.records import rows_table
from workers.hub import is_out_of_memory, is_panic
from workers.measure import Rows

Report = Callable[[Event], None]

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "pyarrow",
    "datasets",
    "lm_eval",
    "peft",
    "trl",
    "math_verify",
)


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


@contextmanager
def reporting_failure(cells: Iterable[Cell], report: Report) -> Iterator[None]:
    """Reports an error within the block as the failure of the cells.

    This is the boundary at which an error becomes a row, so every exception is caught here, panics
    of Rust code too; those that end the process (SystemExit, KeyboardInterrupt) pass.
    """
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        for cell in cells:
            report(_failed(cell, error))


def _failed(cell: Cell, error: BaseException) -> Failed:
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
        case _ if is_panic(error):
            remedy = "check tokenizer.json, or give the suite's `tokenizer`"
            return Failed(cell.id, "data", f"the tokenizer's code gave up: {error}", remedy, trace)
        case _:
            remedy = "this is a defect of Eigentrace or of the checkpoint; see the traceback"
            return Failed(cell.id, "user", f"{type(error).__name__}: {error}", remedy, trace)


def finished(cell: Cell, tables: dict[str, Rows], task: Task, seconds: float) -> Finished:
    """Returns the event of a finished cell, with its rows and where they come from.

    Args:
        cell: The cell.
        tables: Rows by table, side tables first.
        task: The task that it was run in.
        seconds: What it took, those of shared parts included.
    """
    return Finished(
        cell.id,
        tuple((name, rows_table(name, rows)) for name, rows in tables.items()),
        {
            "eigentrace": jobs.__version__,
            "python": platform.python_version(),
            "libraries": _versions(),
            "device": _device_name(task.device),
            "dtype": getattr(cell.work, "dtype", "float32"),
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
        },
    )


@functools.cache
def _versions() -> dict[str, str]:
    # Looked up once: it takes longer than measuring a small model does.
    return {name: metadata.version(name) for name in _LIBRARIES}


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} {platform.machine()}"


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Returns the seconds since the last call, or since the beginning."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
