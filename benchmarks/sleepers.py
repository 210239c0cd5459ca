"""Studies of checkpoints whose transfers and computing are sleeps, on nodes within this machine.

Nothing but the scheduling takes time: on each node, of one worker, one transfer runs at a time, and
one cell. All workers are there before anything begins, and the time is from the first transfer's
beginning to the last cell's end.
"""

import os
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

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

BYTES_PER_SECOND = 1000
"""How many bytes a file has for each second of its transfer."""

Times = list[tuple[float, float]]
"""Seconds of each checkpoint's transfer and of its computing."""

_STUDY = Study.model_validate({"name": "transfers", "suites": [{"kind": "pico"}]})


@dataclass(frozen=True)
class Spent:
    """What a study took.

    Attributes:
        makespan: Seconds of the whole.
        first: Seconds of the longest of the nodes' first transfers.
        transfers: How many there were.
    """

    makespan: float
    first: float
    transfers: int


def varied(count: int, transfer: float, compute: float) -> Times:
    """Returns times with these means, from 0.75 to 1.25 of them."""

    def factor(number: int, stride: int) -> float:
        return 0.75 + 0.5 * (number * stride % count) / (count - 1)

    return [(transfer * factor(n, 7), compute * factor(n, 11)) for n in range(count)]


def checkpoint_cells(times: Times) -> tuple[Cell, ...]:
    """Returns a cell for each checkpoint, in files as large as their transfers are long."""
    return tuple(_cell(number, transfer) for number, (transfer, _) in enumerate(times))


@contextmanager
def nodes(count: int) -> Iterator[str]:
    """Gives the address of a cluster of a head that runs nothing and nodes of one CPU each."""
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    from ray.cluster_utils import Cluster

    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": f"{folder}/ray"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count):
                cluster.add_node(num_cpus=1)
            yield cluster.address
        finally:
            cluster.shutdown()


def run(address: str, workers: int, times: Times, *, prefetches: bool = True) -> Spent:
    """Runs a study on a cluster that has so many nodes."""
    from orchestrator.actors import RayExecutor
    from orchestrator.cluster import Shape, connect

    cells = checkpoint_cells(times)
    transfers = {_commit(cell): transfer for cell, (transfer, _) in zip(cells, times, strict=True)}
    computes = {_commit(cell): compute for cell, (_, compute) in zip(cells, times, strict=True)}
    with TemporaryDirectory(prefix="eigentrace-bench-") as name:
        shared = Path(name) / "shared"
        shared.mkdir()
        connect(address)
        executor = RayExecutor(
            Shape(workers, threads=1, gpus=0, device="cpu"),
            partial(_open, transfers, shared, workers, prefetches),
            partial(_measure, computes),
        )
        try:
            return _drive(cells, workers, Path(name), executor)
        finally:
            executor.close()


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


def _open(
    seconds: Mapping[str, float], folder: Path, workers: int, prefetches: bool
) -> SharedFiles:
    """Returns a worker's files once all workers are there, so that none has a head start."""
    (folder / f"worker.{os.getpid()}").touch()
    while len(list(folder.glob("worker.*"))) < workers:
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


def _cell(number: int, transfer: float) -> Cell:
    commit = f"{number:040}"
    size = round(transfer * BYTES_PER_SECOND)
    files = (HubFile("model.safetensors", size, commit, commit),)
    source = HubFolder("somebody/model", commit, files)
    checkpoint = Checkpoint("suite", "model", commit, 0, None, "pretrain", source, source)
    work = HeadWork(None, None, extreme_tokens=1, drop_zero_rows=False)
    return Cell(work, checkpoint=checkpoint)


def _commit(cell: Cell) -> str:
    (source, _) = to_fetch(cell)
    return source.commit


def _drive(cells: Sequence[Cell], workers: int, folder: Path, executor: Executor) -> Spent:
    """Runs the cells and reads what their workers noted."""
    view = ProgressView(cells, frozenset(), Console(quiet=True), 1)
    drive(Plan(_STUDY, tuple(cells)), Store(folder / "results"), executor, view, How("cpu", 1))
    ends = [cell["end"] for cell in provenance(folder / "results")]
    if len(ends) != len(cells):
        raise RuntimeError(f"{len(ends)} of {len(cells)} cells were run")
    notes = [note.read_text().split() for note in (folder / "shared").glob("transfer.*")]
    lines = sorted((float(begin), float(end)) for begin, end in notes)
    begin = lines[0][0]
    first = max(end - begin for begin, end in lines[:workers])
    return Spent(max(ends) - begin, first, len(lines))
