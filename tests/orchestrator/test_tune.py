"""Tasks that train, run as trials of Ray Tune on a real cluster, beside those that measure."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from dashboards.query import load
from jobs.cells import Cell
from jobs.events import Started
from jobs.study import load_study
from jobs.work import trains
from orchestrator import drive
from orchestrator.cluster import Shape, connect, divide, machines_of
from orchestrator.messages import (
    SlotAlive,
    SlotLost,
    SlotOpened,
)
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from tests.orchestrator.nodes import cluster_of
from tests.orchestrator.sleeping import ONCE, cell, training
from tests.orchestrator.watched import Watched, open_executor
from tests.results import cells_of
from workers.telling import Task

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

DRIVER = """
import sys
from pathlib import Path
from tests.orchestrator import test_tune as test

test.connect(sys.argv[1])
results = Path(sys.argv[2])
executor = test.open_executor(results.parent, test.Shape(1, 1, 0, "cpu"))
test.drive_plan(test.Watched(executor), results, test.long_plan())
"""


def drive_plan(executor: Watched, results: Path, cells: list[Cell]) -> None:
    plan = Plan(load_study("smoke", ()), tuple(cells))
    view = ProgressView(plan.cells, frozenset(), Console(quiet=True), 2)
    drive.drive(plan, Store(results), executor, view, drive.How("cpu", 1))


def long_plan() -> list[Cell]:
    """Six groups of four trainings, and as many measurements."""
    deeds = [(make, "sleep", group) for group in range(6) for make in (cell, training)]
    return [make(deed, number, group) for make, deed, group in deeds for number in range(4)]


def each_once(results: Path, cells: list[Cell]) -> None:
    assert Counter(load("evals", results)["cell_id"].to_pylist()) == Counter(c.id for c in cells)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs nothing, and two nodes of one CPU."""
    with cluster_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def executor(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    connect(cluster.address)
    made = Watched(open_executor(tmp_path_factory.mktemp("files")))
    yield made
    made.close()


@pytest.fixture
def ready(executor: Watched) -> Watched:
    """The executor with both slots free."""
    executor.all_open()
    while executor.busy:
        executor.next_event(1)
    executor.forget()
    return executor


@pytest.mark.soak  # `tests/chaos` kills drivers amid trials in every run of the tests.
def test_a_killed_driver_resumes_from_the_ledger(
    cluster: Cluster, executor: Watched, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)  # The executor has the others.
    results, said = tmp_path / "results", tmp_path / "said"
    command = [sys.executable, "-c", DRIVER, cluster.address, str(results)]
    trained = {c.id for c in long_plan() if trains(c.work)}
    with said.open("wb") as out:
        driver = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        while driver.poll() is None and len(trained & cells_of(results)) < 3:
            time.sleep(0.05)
        assert driver.poll() is None, said.read_text()
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not said.read_text()
    kept = {path: path.stat().st_mtime_ns for path in (results / "evals").glob("[!.]*.parquet")}
    assert 3 <= len(kept) < len(long_plan())
    cluster.remove_node(node, allow_graceful=True)
    drive_plan(executor, results, long_plan())
    each_once(results, long_plan())
    assert len(executor.runs) == len(long_plan()) - len(kept)
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())


def test_measuring_and_training_share_the_seats(
    cluster: Cluster, ready: Watched, tmp_path: Path
) -> None:
    drive_plan(ready, tmp_path, long_plan())
    each_once(tmp_path, long_plan())
    assert ready.most_at_once == 2
    assert not ready.lost
    # Neither kind waits for the end of the other.
    half = [trains(run.cell.work) for run in ready.runs[: len(ready.runs) // 2]]
    assert 0.2 < sum(half) / len(half) < 0.8
    # A seat has its actor and one process for all its trials, on the actor's node.
    for slot, opened in ready.open.items():
        of_kind: dict[bool, set[int]] = {True: set(), False: set()}
        for run in (run for run in ready.runs if run.slot == slot):
            of_kind[trains(run.cell.work)].add(run.where["pid"])
            assert run.where["on"] == opened.cache
            log = Path(cluster.head_node.get_logs_dir_path(), run.where["log"]).read_text()
            assert f"cell {run.cell.id} {run.cell.label} finished\n" in log
        assert of_kind[False] == {int(opened.node.rpartition(" ")[2])}
        assert len(of_kind[True]) == 1
        assert of_kind[True].isdisjoint(of_kind[False])


def test_what_a_task_leaves_serves_the_next_one_that_trains(ready: Watched) -> None:
    slot = next(iter(ready.open))
    found = [
        ready.run(slot, make("sleep", number))["held"]
        for number, make in enumerate((training, training, cell, training), 40)
    ]
    assert found[1:] == [1, 0, 0]


def test_a_killed_process_costs_the_cell_at_work(ready: Watched, tmp_path: Path) -> None:
    deeds = ("sleep", "kill" + ONCE, "sleep")
    cells = [training(deed, 10 + number) for number, deed in enumerate(deeds)]
    before = {opened.node for opened in ready.open.values()}
    drive_plan(ready, tmp_path, cells)
    each_once(tmp_path, cells)
    assert [ready.started[c.id] for c in cells] == [1, 2, 1]
    (lost,) = ready.lost
    assert lost.cause == "infrastructure"
    assert "worker process has died" in lost.message
    # The actor that holds the seat stays; its slot has another name.
    assert {opened.node for opened in ready.open.values()} == before
    assert lost.slot not in ready.open


def test_an_abandoned_trial_is_killed(ready: Watched) -> None:
    slot = next(iter(ready.open))
    process = psutil.Process(ready.run(slot, training("sleep", 20))["pid"])
    ready.start(slot, Task((training("hang", 21),), "cpu", 1, 1))
    ready.until(Started)
    ready.until(SlotAlive)
    ready.abandon(slot, "it hangs")
    lost = ready.until(SlotLost)
    assert (lost.slot, lost.cause) == (slot, "infrastructure")
    assert lost.message.startswith("it hangs (")
    process.wait(30)
    # As is one whose process is being started.
    again: SlotOpened = ready.until(SlotOpened)
    ready.start(again.slot, Task((training("sleep", 22),), "cpu", 1, 1))
    ready.abandon(again.slot, "it doesn't start")
    assert ready.until(SlotLost, 60).message.startswith("it doesn't start (")
    ready.until(SlotOpened)


def test_a_trial_ends_with_the_actor_that_holds_its_seat(ready: Watched) -> None:
    slot, opened = next(iter(ready.open.items()))
    process = psutil.Process(ready.run(slot, training("sleep", 30))["pid"])
    ready.start(slot, Task((training("hang", 31),), "cpu", 1, 1))
    ready.until(Started)
    psutil.Process(int(opened.node.rpartition(" ")[2])).kill()
    assert ready.until(SlotLost, 60).slot == slot
    process.wait(30)


def test_workers_share_a_gpu_and_leave_nothing_behind(
    cluster: Cluster, executor: Watched, tmp_path: Path
) -> None:
    session = Path(cluster.head_node.get_session_dir_path())

    def artifacts() -> set[Path]:
        return {*session.glob("artifacts/eigentrace-*"), *session.glob("artifacts/*/*")}

    executor.close()
    before = artifacts()  # Of the driver that was killed.
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    connect(cluster.address)
    shape = divide("auto", None, 9, gpus_per_worker=0.5)
    assert shape == Shape(2, 1, 0.5, "cuda")
    assert machines_of(shape).gpus == 1
    sharing = Watched(open_executor(tmp_path, shape))
    opened = sharing.all_open()
    assert {found.cache for found in opened} == {node.node_id}
    slot = opened[0].slot
    measured = sharing.run(slot, cell("sleep"), "cuda")
    trained = sharing.run(slot, training("sleep"), "cuda")
    assert (measured["device"], measured["visible"]) == ("cuda", "0")
    assert (trained["device"], trained["visible"]) == ("cuda:0", "0")
    processes = [psutil.Process(found["pid"]) for found in (measured, trained)]
    sharing.start(slot, Task((training("hang", 1),), "cuda", 1, 1))
    sharing.until(Started)
    sharing.start(opened[1].slot, Task((training("sleep", 2),), "cuda", 1, 1))  # To be begun.
    assert artifacts() > before
    began = time.monotonic()
    sharing.close()
    assert time.monotonic() - began < 12
    for process in processes:
        process.wait(30)
    assert "tune" not in {thread.name for thread in threading.enumerate()}
    assert artifacts() == before


def test_a_worker_has_several_gpus_of_one_node(
    cluster: Cluster, executor: Watched, tmp_path: Path
) -> None:
    executor.close()
    cluster.add_node(num_cpus=2, num_gpus=4)
    connect(cluster.address)
    shape = divide("cuda", None, 2, gpus_per_worker=2)
    assert shape == Shape(2, 1, 2, "cuda")
    pairs = Watched(open_executor(tmp_path, shape))
    try:
        seen = [
            pairs.run(opened.slot, make("sleep", number), "cuda")["visible"]
            for number, opened in enumerate(pairs.all_open())
            for make in (cell, training)
        ]
    finally:
        pairs.close()
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert sorted(",".join({seen[0], seen[2]}).split(",")) == ["0", "1", "2", "3"]
