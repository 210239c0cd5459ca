"""What Ray adds to cells that only sleep: beside the inline executor, and to keep workers busy.

Times are those at which cells begin and end to sleep, told in their provenance. A worker's time is
from its first cell's beginning to the last end of all: that leaves out the start of Ray and of its
actors (seconds of importing torch, once in a run of days) and counts all that lies between two
cells of a worker (events, rows written and flushed, the scheduler, the start of the next task) and
its idling at the end.
"""

import os
import secrets
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.limits import Figure, alone
from dashboards.query import provenance
from jobs.cells import Cell
from jobs.events import Alive, Event, Finished, Started
from jobs.records import rows_table
from jobs.sources import Produced, TextFiles
from jobs.spec import Study
from jobs.text_spec import LocalText
from jobs.work import SequencesWork
from orchestrator.drive import Executor, How, drive
from orchestrator.inline import InlineExecutor
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from workers.artifacts import Files, SharedFiles
from workers.telling import Task

_CELLS, _SECONDS = 12, 1.0
_WORKERS = 8
_BUSY_CELLS, _BUSY_SECONDS = 160, (0.5, 1.0)
_STUDY = Study.model_validate({"name": "sleep", "suites": [{"kind": "pico"}]})


def figures() -> list[Figure]:
    """Ray's overhead and its workers' utilization."""
    equal = [_SECONDS] * _CELLS
    inline, ray = alone(_on_inline, equal), alone(_on_ray, equal, 1)
    low, high = _BUSY_SECONDS
    mixed = [low + (high - low) * (n * 7 % 20) / 19 for n in range(_BUSY_CELLS)]
    busy = sum(mixed) / alone(_on_ray, mixed, _WORKERS)
    what = f"{_CELLS} cells of {_SECONDS:g} s, one worker"
    return [
        Figure(f"{what}: inline", inline, "s"),
        Figure(f"{what}: Ray", ray, "s"),
        Figure(f"{what}: what Ray adds", 100 * (ray / inline - 1), "%", "≤ 5"),
        Figure(
            f"utilization, {_BUSY_CELLS} cells of {low:g}–{high:g} s, {_WORKERS} workers",
            *(busy, "", "≥ 0.95"),
        ),
    ]


def sleep(
    seconds: dict[str, float], task: Task, _files: Files
) -> Generator[Event | Alive, None, None]:
    """Runs a task by sleeping."""
    for cell in task.cells:
        yield Started(cell.id)
        begin = time.time()
        time.sleep(seconds[cell.id])
        rows = rows_table(cell.work.table, [{"dataset": "words", "n_sequences": 1}])
        times = {"worker": os.getpid(), "begin": begin, "end": time.time()}
        yield Finished(cell.id, ((cell.work.table, rows),), times)


def _on_inline(seconds: Sequence[float]) -> float:
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        plan, lengths = _plan(seconds)
        executor = InlineExecutor(SharedFiles(Path(folder)), partial(sleep, lengths))
        return _worker_seconds(plan, Path(folder) / "results", executor)


def _on_ray(seconds: Sequence[float], workers: int) -> float:
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # On Linux: listen on loopback alone.
    }
    import ray

    from orchestrator.actors import RayExecutor
    from orchestrator.cluster import Shape

    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        plan, lengths = _plan(seconds)
        # More workers than cores, which cells that sleep don't need, so no `connect`.
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=2**28,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=f"{folder}/ray",
        )
        shape = Shape(workers, threads=1, gpus=0, device="cpu")
        executor = RayExecutor(shape, partial(SharedFiles, Path(folder)), partial(sleep, lengths))
        return _worker_seconds(plan, Path(folder) / "results", executor)


def _plan(seconds: Sequence[float]) -> tuple[Plan, dict[str, float]]:
    """Returns a plan of cells that depend on nothing, and how long each sleeps."""
    text = TextFiles((("/text.txt", "0" * 64),), "text", "\n\n")
    draw = LocalText(paths=("/text.txt",))
    cells = tuple(
        Cell(SequencesWork("words", text, draw, Produced(str(number), "tokenizer")))
        for number in range(len(seconds))
    )
    lengths = {cell.id: length for cell, length in zip(cells, seconds, strict=True)}
    return Plan(_STUDY, cells), lengths


def _worker_seconds(plan: Plan, results: Path, executor: Executor) -> float:
    """Runs a plan; returns the seconds that its workers had, together."""
    view = ProgressView(plan.cells, frozenset(), Console(quiet=True), 1)
    try:
        drive(plan, Store(results), executor, view, How("cpu", 1))
    finally:
        executor.close()
    times = provenance(results)
    if len(times) != len(plan.cells):
        raise RuntimeError(f"{len(times)} of {len(plan.cells)} cells were run")
    begins: dict[int, float] = {}
    for cell in times:
        worker = cell["worker"]
        begins[worker] = min(cell["begin"], begins.get(worker, cell["begin"]))
    end = max(cell["end"] for cell in times)
    return sum(end - begin for begin in begins.values())
