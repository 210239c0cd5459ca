"""Fetching beside the task: in order, forgetful, and of no harm to what runs."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from jobs.events import Alive, Event, Finished, Started
from jobs.pico_spec import PicoSuite
from jobs.sources import HubFolder
from jobs.spec import Study
from orchestrator.actors import RayExecutor
from orchestrator.cluster import Shape, connect
from orchestrator.drive import How, drive
from orchestrator.inline import InlineExecutor
from orchestrator.messages import SlotOpened, TaskEnded, to_fetch
from orchestrator.plan import Plan
from orchestrator.prefetch import Prefetcher
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from tests.orchestrator.fake_cells import measuring, weights
from tests.orchestrator.nodes import cluster_of
from workers.artifacts import SharedFiles
from workers.supply import Progress
from workers.telling import Task

SECONDS = 30.0
CELLS = tuple(measuring(0, group, hub=True) for group in range(5))


class _Hub:
    """A hub of which nothing is held; each prefetch is noted, and lasts until it is let go."""

    def __init__(self) -> None:
        self.fetched: list[HubFolder] = []
        self.too_large: set[HubFolder] = set()
        self._noted = threading.Condition()
        self._let_go = threading.Semaphore(0)

    def hold(self, source: HubFolder, progress: Progress) -> AbstractContextManager[Path]:
        raise AssertionError(source)

    def prefetch(self, source: HubFolder) -> bool | None:
        with self._noted:
            self.fetched.append(source)
            self._noted.notify_all()
        assert self._let_go.acquire(timeout=SECONDS)
        if source == weights(1):
            raise OSError("no such host")
        return None if source == weights(2) else source not in self.too_large

    def usage(self) -> tuple[int, int]:
        return 0, 0

    def let_go(self, count: int) -> None:
        """Ends so many prefetches, those under way first."""
        self._let_go.release(count)

    def wait_for(self, count: int) -> list[HubFolder]:
        """Returns what was fetched once so many have begun."""
        with self._noted:
            assert self._noted.wait_for(lambda: len(self.fetched) >= count, SECONDS)
            return list(self.fetched)


@pytest.fixture
def hub() -> _Hub:
    return _Hub()


@pytest.fixture
def prefetcher(hub: _Hub, tmp_path: Path) -> Iterator[Prefetcher]:
    made = Prefetcher(SharedFiles(tmp_path, hub=hub))
    yield made
    hub.let_go(100)
    made.close()


def test_promises_are_fetched_in_order_whatever_becomes_of_each(
    prefetcher: Prefetcher, hub: _Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eigentrace")
    hub.let_go(3)
    for number in range(4):
        prefetcher.promise((weights(number),))
        hub.wait_for(number + 1)
    assert hub.fetched == [weights(number) for number in range(4)]
    names = [f"prefetch somebody/model@{number:040}" for number in range(3)]
    assert caplog.messages == [
        f"{names[0]} finished",
        f"{names[1]} failed: OSError: no such host",
        f"{names[2]} failed",
    ]


def test_what_finds_no_room_is_fetched_before_later_promises_once_another_task_begins(
    prefetcher: Prefetcher, hub: _Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eigentrace")
    hub.too_large.add(weights(3))
    hub.let_go(100)
    for number in (3, 4):
        prefetcher.promise((weights(number),))
    _until(lambda: "found no room on the disk" in caplog.text)
    prefetcher.begin((CELLS[0],))
    assert hub.wait_for(2) == [weights(3)] * 2
    _until(lambda: caplog.text.count("found no room on the disk") == 2)
    hub.too_large.clear()
    prefetcher.begin((CELLS[1],))
    assert hub.wait_for(4) == [weights(3)] * 3 + [weights(4)]


def test_who_waits_for_room_is_forgotten_for_newer_promises_and_for_its_own_task(
    prefetcher: Prefetcher, hub: _Hub
) -> None:
    hub.too_large |= {weights(0), weights(3)}
    hub.let_go(100)
    prefetcher.promise((weights(0),))
    hub.wait_for(1)
    prefetcher.begin((CELLS[0],))
    prefetcher.promise((weights(3),))
    _until(lambda: weights(3) in hub.fetched)
    assert hub.fetched.count(weights(0)) <= 2
    for number in (1, 2):
        prefetcher.promise((weights(number),))
    _until(lambda: hub.fetched[-2:] == [weights(1), weights(2)])


def test_what_has_not_begun_is_forgotten_for_newer_promises(
    prefetcher: Prefetcher, hub: _Hub
) -> None:
    prefetcher.promise((weights(0),))
    hub.wait_for(1)
    for number in (1, 2, 3):
        prefetcher.promise((weights(number),))
    hub.let_go(2)
    assert hub.wait_for(3) == [weights(0), weights(2), weights(3)]


def test_what_a_task_fetches_by_itself_is_forgotten(prefetcher: Prefetcher, hub: _Hub) -> None:
    for number in (0, 1):
        prefetcher.promise((weights(number),))
        hub.wait_for(1)
    prefetcher.begin((CELLS[0],))
    prefetcher.begin((CELLS[1],))
    prefetcher.promise((weights(2),))
    hub.let_go(1)
    assert hub.wait_for(2) == [weights(0), weights(2)]


def test_nothing_is_fetched_after_the_end(prefetcher: Prefetcher, hub: _Hub) -> None:
    for number in (0, 1):
        prefetcher.promise((weights(number),))
        hub.wait_for(1)
    hub.let_go(2)
    ending = threading.Thread(target=prefetcher.close)
    ending.start()
    ending.join(SECONDS)
    prefetcher.close()
    fetched = list(hub.fetched)
    prefetcher.promise((weights(2),))
    assert hub.fetched == fetched


def test_this_process_fetches_while_a_task_runs(hub: _Hub, tmp_path: Path) -> None:
    def body(task: Task, _files: object) -> Generator[Event | Alive, None, None]:
        for cell in task.cells:
            yield Started(cell.id)
            assert hub.wait_for(1) == [weights(3)]
            yield Finished(cell.id, ())

    executor = InlineExecutor(SharedFiles(tmp_path, hub=hub), body)
    try:
        assert isinstance(executor.next_event(0), SlotOpened)
        executor.start("inline", Task((CELLS[0],), "cpu", 1, 1))
        executor.prepare("inline", (CELLS[3],))
        told = [executor.next_event(0) for _ in range(3)]
        assert told == [Started(CELLS[0].id), Finished(CELLS[0].id, ()), TaskEnded("inline")]
        executor.abandon("inline", "it hung")
        hub.let_go(2)
        executor.prepare("inline", (CELLS[4],))
        assert hub.wait_for(2) == [weights(3), weights(4)]
    finally:
        executor.close()


class _NotingHub:
    """Notes each prefetch in a file; that of one checkpoint fails, and that of another hangs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, source: HubFolder, progress: Progress) -> AbstractContextManager[Path]:
        raise AssertionError(source)

    def prefetch(self, source: HubFolder) -> bool:
        _note(self._folder, source).touch()
        if source == weights(1):
            raise OSError("no such host")
        while source == weights(2):
            time.sleep(1)
        return True

    def usage(self) -> tuple[int, int]:
        return 0, 0


def _note(folder: Path, source: HubFolder) -> Path:
    return folder / f"{int(source.commit)}.{os.getpid()}"


def _noting_files(folder: Path) -> SharedFiles:
    return SharedFiles(folder, hub=_NotingHub(folder))


def _body(folder: Path, task: Task, _files: object) -> Generator[Event | Alive, None, None]:
    """Runs cells that end at once, but two wait for what is fetched beside them; one is killed."""
    for cell in task.cells:
        yield Started(cell.id)
        (source,) = to_fetch(cell)
        if source in (weights(0), weights(1)):
            _until(_note(folder, weights(2)).exists)
        if source == weights(0) and not (folder / "killed").exists():
            (folder / "killed").touch()
            time.sleep(0.3)  # What it has said leaves it in a thread of Ray's.
            os.kill(os.getpid(), signal.SIGKILL)
        yield Finished(cell.id, ())


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One node of one CPU."""
    with cluster_of(1) as made:
        yield made


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_worker_fetches_beside_its_task_and_its_promises_outlive_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    connect(cluster.address)
    executor = RayExecutor(
        Shape(1, 1, 0, "cpu"), partial(_noting_files, tmp_path), partial(_body, tmp_path)
    )
    try:
        plan = Plan(Study(name="fake", suites=(PicoSuite(),)), CELLS)
        view = ProgressView(CELLS, frozenset(), Console(quiet=True), 1)
        scheduler = drive(plan, Store(tmp_path / "results"), executor, view, How("cpu", 1))
    finally:
        executor.close()
    assert set(scheduler.states.values()) == {"done"}
    fetched = [note.name.split(".") for note in tmp_path.glob("*.*")]
    workers = {worker for _, worker in fetched}
    assert len(workers) == 2
    # The first worker was killed with two promises. The second ran one of them and had the other.
    assert sorted(number for number, _ in fetched).count("2") == 2
    logs = Path(cluster.head_node.get_logs_dir_path()).glob("worker-*.err")
    written = "".join(log.read_text() for log in logs)
    assert f"prefetch somebody/model@{1:040} failed: OSError: no such host\n" in written
