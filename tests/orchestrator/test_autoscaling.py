"""Ray's autoscaler brings nodes with GPUs for what can run, and takes them away again."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants
from rich.console import Console

from dashboards.query import load
from jobs.cells import Cell
from jobs.events import Event
from jobs.study import load_study
from orchestrator import drive, elastic
from orchestrator.actors import RayExecutor
from orchestrator.cluster import connect, divide, seat
from orchestrator.live import telling
from orchestrator.messages import SlotEvent
from orchestrator.model_sizes import ModelSizes
from orchestrator.node_types import startable
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from tests.orchestrator.local_study import run_here
from tests.orchestrator.ray_head import Head, ray_head
from tests.orchestrator.sleeping import body, cell, sampling, training
from workers.artifacts import SharedFiles

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

MOST = 4
WAITING = f"0 of {MOST} workers"
TYPES = {"gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": MOST}}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(cpus=0, node_types=TYPES) as found:
        yield found


@pytest.fixture(autouse=True)
def _on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process find the head where it listens."""
    monkeypatch.setenv(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)


def _nodes() -> int:
    return sum(node["Alive"] and "GPU" in node["Resources"] for node in ray.nodes())


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not until():
        assert time.monotonic() < end
        time.sleep(0.2)


class Watching:
    """The executor as the drive loop sees it; looks at the nodes, and at what `status` tells."""

    def __init__(self, executor: RayExecutor, look: Callable[[], str]) -> None:
        self._executor, self._look = executor, look
        self.most_nodes, self.seen = 0, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        event = self._executor.next_event(timeout)
        self.most_nodes = max(self.most_nodes, _nodes())
        if self._executor.workers == (0, MOST) and WAITING not in self.seen:
            self.seen = self._look()  # What is told of a run is written once a second.
        return event


@pytest.mark.parametrize(
    "kind",
    [
        cell,
        pytest.param(training, marks=pytest.mark.soak),
        pytest.param(sampling, marks=pytest.mark.soak),
    ],
)
def test_from_no_node_to_the_demand_and_back(
    kind: Callable[..., Cell],
    head: Head,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(elastic, "IDLE_SECONDS", 2.0)
    cells = tuple(kind("sleep", number, group) for group in range(8) for number in range(2))
    plan = Plan(load_study("smoke", ()), cells)
    results = tmp_path / "results"
    store = Store(results)
    connect(head.address)
    assert _nodes() == 0
    coming = startable()
    shape = divide("auto", 1, len(cells), coming=coming)
    assert (shape.device, shape.actors) == ("cuda", MOST)
    seats, of_group = seat(shape, None, cells, ModelSizes(cells), coming)
    assert seats is not None
    executor = RayExecutor(shape, partial(SharedFiles, tmp_path / "files"), body, seats)

    def look() -> str:
        return run_here(capsys, "status", "--study", "smoke", "--results", str(results)).out

    watching = Watching(executor, look)
    try:
        with telling(store.place, "smoke", print) as publish:
            view = ProgressView(plan.cells, frozenset(), Console(quiet=True), MOST, publish)
            how = drive.How("cpu", 1, seats=of_group)
            scheduler = drive.drive(plan, store, watching, view, how)
        assert set(scheduler.states.values()) == {"done"}
        assert watching.most_nodes == MOST
        assert WAITING in watching.seen
        # All is done, and nobody holds a node.
        executor.resize({})
        for slot in list(executor._slots):
            executor.release(slot)
        _wait(lambda: _nodes() == 0)
    finally:
        executor.close()
    rows = load("evals", results)
    assert sorted(rows["cell_id"].to_pylist()) == sorted(c.id for c in cells)
