"""How far downloads run beside the measuring: a study of checkpoints, with prefetch and without.

Both transfers and computing are sleeps, so that nothing but the scheduling is measured: on each of
two nodes of one worker, one transfer runs at a time, and one cell. The time is from the first
transfer's beginning to the last cell's end, all workers being there at the start.
"""

import os
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.limits import Figure, alone
from dashboards.query import provenance
from jobs.cells import Cell, Checkpoint
from jobs.events import Alive, Event, Finished, Started
from jobs.records import rows_table
from jobs.sources import HubFile, HubFolder
from jobs.spec import Study
from jobs.work import HeadWork
from orchestrator.drive import Executor, How, drive
from orchestrator.messages import to_fetch
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from workers.artifacts import SharedFiles, held
from workers.supply import Progress
from workers.telling import Task

_CHECKPOINTS, _NODES = 40, 2
_SECONDS: Mapping[str, tuple[float, float]] = {
    "compute-bound": (0.5, 1.0),
    "transfer-bound": (1.0, 0.5),
    "balanced": (1.0, 1.0),
}
"""Mean seconds of a checkpoint's transfer and of its computation."""

_NUMBERS = range(_CHECKPOINTS)
_Times = list[tuple[float, float]]
_STUDY = Study.model_validate({"name": "transfers", "suites": [{"kind": "pico"}]})


def figures() -> list[Figure]:
    """Makespans beside what they must not exceed."""
    found = []
    for name, (times, spent, without) in alone(_on_cluster).items():
        busiest = max(sum(t for t, _ in times), sum(c for _, c in times)) / _NODES
        limit = 1.1 * busiest + spent.first
        what = f"{name}, {_CHECKPOINTS} checkpoints, {_NODES} nodes"
        found += [
            Figure(f"{what}: busier of transfer and compute", busiest, "s"),
            Figure(f"{what}: makespan", spent.makespan, "s", f"≤ {limit:.3g}"),
            Figure(f"{what}: without prefetch", without.makespan, "s"),
            Figure(f"{what}: transfers", spent.transfers, ""),
        ]
    return found


def _vary(number: int, stride: int) -> float:
    """Returns factors between 0.75 and 1.25, with a mean of 1."""
    return 0.75 + 0.5 * (number * stride % _CHECKPOINTS) / (_CHECKPOINTS - 1)


@dataclass(frozen=True)
class _Spent:
    makespan: float
    first: float
    transfers: int


class _SlowHub:
    """A hub behind a line that carries one transfer at a time, of which each takes its seconds.

    A worker is a node here. It notes in a file when each transfer begins and ends.
    """

    def __init__(self, seconds: Mapping[str, float], folder: Path, prefetches: bool) -> None:
        self._seconds, self._folder, self._prefetches = seconds, folder, prefetches
        self._line, self._here = threading.Lock(), dict.fromkeys(seconds, False)
        self._of = {commit: threading.Lock() for commit in seconds}

    @contextmanager
    def hold(self, source: HubFolder, progress: Progress) -> Iterator[Path]:
        """Waits for the files to be here."""
        with self._of[source.commit]:
            if not self._here[source.commit]:
                with self._line:
                    begin = time.time()
                    time.sleep(self._seconds[source.commit])
                    note = f"{begin} {time.time()}\n"
                (self._folder / f"transfer.{source.commit}.{os.getpid()}").write_text(note)
                self._here[source.commit] = True
        yield self._folder

    def prefetch(self, source: HubFolder) -> bool:
        """Fetches as a task would, if this is the side that does."""
        if self._prefetches:
            with self.hold(source, lambda _done, _size: None):
                pass
        return self._prefetches

    def usage(self) -> tuple[int, int]:
        """Returns nothing: the files have no bytes here."""
        return 0, 0


def _open(seconds: Mapping[str, float], folder: Path, prefetches: bool) -> SharedFiles:
    """Returns a worker's files once all workers are there, so that none has a head start."""
    (folder / f"worker.{os.getpid()}").touch()
    while len(list(folder.glob("worker.*"))) < _NODES:
        time.sleep(0.01)
    return SharedFiles(folder, hub=_SlowHub(seconds, folder, prefetches))


def _measure(
    seconds: Mapping[str, float], task: Task, files: SharedFiles
) -> Generator[Event | Alive, None, None]:
    """Holds a checkpoint's files, and sleeps as long as measuring it takes."""
    for cell in task.cells:
        yield Started(cell.id)
        (source, _) = to_fetch(cell)
        with held(files, source, lambda _done, _size: None):
            time.sleep(seconds[source.commit])
        rows = rows_table(cell.work.table, [{"tied": False}])
        yield Finished(cell.id, ((cell.work.table, rows),), {"end": time.time()})


def _on_cluster() -> dict[str, tuple[_Times, _Spent, _Spent]]:
    """Runs every study, with prefetch and without, on one cluster."""
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    from ray.cluster_utils import Cluster

    found = {}
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": f"{folder}/ray"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(_NODES):
                cluster.add_node(num_cpus=1)
            for name, (transfer, compute) in _SECONDS.items():
                times = [(transfer * _vary(n, 7), compute * _vary(n, 11)) for n in _NUMBERS]
                found[name] = (
                    times,
                    _run(cluster.address, times, prefetches=True),
                    _run(cluster.address, times, prefetches=False),
                )
        finally:
            cluster.shutdown()
    return found


def _run(address: str, times: _Times, prefetches: bool) -> _Spent:
    from orchestrator.actors import RayExecutor
    from orchestrator.cluster import Shape, connect

    commits = [f"{number:040}" for number in _NUMBERS]
    transfers = {commit: transfer for commit, (transfer, _) in zip(commits, times, strict=True)}
    computes = {commit: compute for commit, (_, compute) in zip(commits, times, strict=True)}
    with TemporaryDirectory(prefix="eigentrace-bench-") as name:
        shared = Path(name) / "shared"
        shared.mkdir()
        connect(address)
        executor = RayExecutor(
            Shape(_NODES, threads=1, gpus=0, device="cpu"),
            partial(_open, transfers, shared, prefetches),
            partial(_measure, computes),
        )
        try:
            return _drive(Plan(_STUDY, tuple(map(_cell, commits))), Path(name), executor)
        finally:
            executor.close()


def _cell(commit: str) -> Cell:
    files = (HubFile("model.safetensors", 1, commit, commit),)
    source = HubFolder("somebody/model", commit, files)
    checkpoint = Checkpoint("suite", "model", commit, 0, None, "pretrain", source, source)
    work = HeadWork(None, None, extreme_tokens=1, drop_zero_rows=False)
    return Cell(work, checkpoint=checkpoint)


def _drive(plan: Plan, folder: Path, executor: Executor) -> _Spent:
    """Runs a plan and reads what its workers noted."""
    view = ProgressView(plan.cells, frozenset(), Console(quiet=True), 1)
    drive(plan, Store(folder / "results"), executor, view, How("cpu", 1))
    ends = [cell["end"] for cell in provenance(folder / "results")]
    if len(ends) != len(plan.cells):
        raise RuntimeError(f"{len(ends)} of {len(plan.cells)} cells were run")
    notes = [note.read_text().split() for note in (folder / "shared").glob("transfer.*")]
    lines = sorted((float(begin), float(end)) for begin, end in notes)
    begin = lines[0][0]
    first = max(end - begin for begin, end in lines[:_NODES])
    return _Spent(max(ends) - begin, first, len(lines))
