"""The executor on Ray on real clusters: what it makes of workers and nodes that go."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from jobs.errors import UsageError
from jobs.events import Event, Failed, Finished, Started
from orchestrator import crew
from orchestrator import versions as versions_module
from orchestrator.actors import RayExecutor
from orchestrator.cluster import Shape, connect
from orchestrator.messages import (
    SlotAlive,
    SlotEvent,
    SlotLost,
    SlotOpened,
    SlotRetired,
    TaskEnded,
)
from tests.orchestrator.nodes import cluster_of, give_notice, kill
from tests.orchestrator.sleeping import body, cell
from workers.artifacts import Files, SharedFiles
from workers.telling import Task

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head alone; tests add the nodes that run workers."""
    with cluster_of(0) as made:
        yield made


@contextmanager
def _executor(
    cluster: Cluster, open_files: Callable[[], Files], workers: int = 1
) -> Iterator[RayExecutor]:
    connect(cluster.address)
    executor = RayExecutor(Shape(workers, 1, 0, "cpu"), open_files, body)
    try:
        yield executor
    finally:
        executor.close()


@contextmanager
def _node(cluster: Cluster, **settings: Any) -> Iterator[Any]:
    """A node with one CPU, ended with notice if it isn't gone by then."""
    node = cluster.add_node(num_cpus=1, **settings)
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=True)


def _until(executor: RayExecutor, kind: type[Any], seconds: float = 90) -> list[Event | SlotEvent]:
    """Returns all events up to the first of a kind."""
    events: list[Event | SlotEvent] = []
    deadline = time.monotonic() + seconds
    while not (events and isinstance(events[-1], kind)):
        assert time.monotonic() < deadline, f"no {kind.__name__} after {events}"
        event = executor.next_event(1)
        if event is not None and not isinstance(event, SlotAlive):
            events.append(event)
    return events


def _opened(executor: RayExecutor) -> SlotOpened:
    found = _until(executor, SlotOpened)[-1]
    assert isinstance(found, SlotOpened)
    return found


def _pid(opened: SlotOpened) -> int:
    return int(opened.node.rpartition(" ")[2])


def _start(executor: RayExecutor, slot: str, deed: str, number: int = 0) -> str:
    """Starts a task of one cell and waits until that is at work; returns its id."""
    chosen = cell(deed, number)
    executor.start(slot, Task((chosen,), "cpu", 1, 1))
    assert _until(executor, Started)[-1] == Started(chosen.id)
    return chosen.id


def _lost(executor: RayExecutor) -> SlotLost:
    found = _until(executor, SlotLost)[-1]
    assert isinstance(found, SlotLost)
    return found


def test_a_worker_that_breaks_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    """What Ray says of each end; kills, hangs and stops are in the run of test_chaos."""
    with _node(cluster), _executor(cluster, partial(SharedFiles, tmp_path)) as executor:
        assert executor.workers == (0, 1)
        for deed, said in {
            "segfault": "worker process has died",
            "exit": "worker process has died",
            "leave": "exit code 3",
        }.items():
            opened = _opened(executor)
            assert executor.workers == (1, 1)
            _start(executor, opened.slot, deed)
            lost = _lost(executor)
            assert (lost.slot, lost.cause) == (opened.slot, "infrastructure")
            assert said in lost.message
            assert lost.message.endswith(f"({opened.node})")
        _opened(executor)
        executor.abandon("worker-0", "it is long gone")
        executor.release("worker-0")
        assert executor.next_event(0) is None


def test_a_worker_tells_and_logs_what_becomes_of_its_cells(
    cluster: Cluster, tmp_path: Path
) -> None:
    logs = Path(cluster.head_node.get_logs_dir_path())
    with _node(cluster), _executor(cluster, partial(SharedFiles, tmp_path)) as executor:
        opened = _opened(executor)
        ahead = cell("chatter")
        executor.start(opened.slot, Task((ahead,), "cpu", 1, 1))
        assert _until(executor, Started)[-1] == Started(ahead.id)
        (log,) = logs.glob(f"worker-*-{_pid(opened)}.err")
        time.sleep(2)  # Enough for a thousand events, were they not held back.
        assert f"cell {ahead.id} {ahead.label} finished" not in log.read_text()
        *progress, finished, _ = _until(executor, TaskEnded)
        assert len(progress) == 1000
        assert isinstance(finished, Finished)
        where = finished.provenance
        assert where["seconds"] == 0.1
        assert (f"{where['node']} pid {where['pid']}", where["log"]) == (opened.node, log.name)
        assert f"cell {ahead.id} {ahead.label} finished\n" in log.read_text()

        for number, (deed, cause) in enumerate({"raise": "user", "memory": "memory"}.items()):
            cell_id = _start(executor, opened.slot, deed, number)
            failed, ended = _until(executor, TaskEnded)
            assert ended == TaskEnded(opened.slot)
            assert isinstance(failed, Failed)
            assert (failed.cell_id, failed.cause) == (cell_id, cause)
            assert f'raise {failed.message.partition(":")[0]}("' in failed.traceback
            written = log.read_text()
            assert f"failed ({cause}): {failed.message}\n" in written
            assert f"cell {cell_id}\nTraceback" in written


def test_a_worker_that_takes_too_much_memory_is_charged_for_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    # Far enough away that neighbours don't reach it, near enough that `hog` does.
    headroom = min(3 * 2**30, memory.available // 2)
    threshold = (memory.total - memory.available + headroom) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with _node(cluster):
        monkeypatch.undo()
        with _executor(cluster, partial(SharedFiles, tmp_path)) as executor:
            opened = _opened(executor)
            _start(executor, opened.slot, "hog")
            lost = _lost(executor)
            assert (lost.slot, lost.cause) == (opened.slot, "memory")
            assert "low on memory" in lost.message


def test_a_node_with_notice_is_left_in_time_and_its_end_costs_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    with _node(cluster) as node, _executor(cluster, partial(SharedFiles, tmp_path)) as executor:
        first = _opened(executor)
        _start(executor, first.slot, "hang")
        give_notice(cluster, node)
        assert _until(executor, SlotRetired)[-1] == SlotRetired(first.slot)
        assert executor.workers == (0, 1)
        with _node(cluster) as substitute:
            second = _opened(executor)
            assert executor.workers == (1, 1)
            kill(cluster, node)
            lost = _lost(executor)
            assert (lost.slot, lost.cause) == (first.slot, "preempted")
            _start(executor, second.slot, "hang")
            kill(cluster, substitute)
            lost = _lost(executor)
            assert (lost.slot, lost.cause) == (second.slot, "infrastructure")


def test_an_idle_worker_is_missed_when_it_dies_but_not_when_it_is_released(
    cluster: Cluster, tmp_path: Path
) -> None:
    with _node(cluster), _executor(cluster, partial(SharedFiles, tmp_path)) as executor:
        first = _opened(executor)
        psutil.Process(_pid(first)).kill()
        lost = _lost(executor)
        assert (lost.slot, lost.cause) == (first.slot, "infrastructure")
        second = _opened(executor)
        process = psutil.Process(_pid(second))
        executor.release(second.slot)
        process.wait(30)
        assert executor.next_event(0.1) is None
        assert executor.workers == (0, 1)


def test_a_node_with_another_version_ends_the_run(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = versions_module.versions()
    assert "+" not in here["torch"]
    monkeypatch.setattr(crew, "versions", lambda: here | {"torch": "1.0"})
    with (
        _node(cluster),
        _executor(cluster, partial(SharedFiles, tmp_path)) as executor,
        pytest.raises(UsageError) as caught,
    ):
        _opened(executor)
    assert re.fullmatch(
        rf"node \S+ has torch {re.escape(here['torch'])}, this command has 1\.0",
        caught.value.message,
    )
    assert "--working-dir" in caught.value.remedy


def _broken() -> Files:
    raise OSError("no such disk")


def test_workers_that_cannot_be_opened_end_the_run(cluster: Cluster) -> None:
    with (
        _node(cluster),
        _executor(cluster, _broken) as executor,
        pytest.raises(UsageError, match=r"no worker can be started .*: OSError: no such disk"),
    ):
        _opened(executor)


def test_source_that_differs_is_seen(tmp_path: Path) -> None:
    for package in ("jobs", "orchestrator", "workers", "dashboards"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("a = 1\n")
    before = versions_module._source_hash(tmp_path)
    (tmp_path / "jobs" / "notes.txt").write_text("no source")
    assert versions_module._source_hash(tmp_path) == before
    (tmp_path / "jobs" / "a.py").rename(tmp_path / "jobs" / "b.py")
    assert versions_module._source_hash(tmp_path) != before
