"""A run on three nodes that lose one, drain one, crash, hang and hold poison: it ends by itself."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from dashboards.query import load
from jobs.cells import Cell
from jobs.events import Event, Failed, Started
from jobs.study import load_study
from orchestrator import drive, run, schedule, slots
from orchestrator.actors import RayExecutor
from orchestrator.cluster import Shape, connect
from orchestrator.messages import SlotEvent, SlotLost, SlotRetired
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from tests.orchestrator.local_study import run_here
from tests.orchestrator.nodes import cluster_of, give_notice, kill
from tests.orchestrator.sleeping import ONCE, body, cell, deed_of
from workers.artifacts import SharedFiles
from workers.telling import Task

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

GROUPS = 20
CELLS_EACH = 10
# What befalls which group, beside the nodes. Real kills, all but `memory`, which is the error that
# torch raises: how much memory a shared machine has left is no business of this test.
POISON = {"raise": "user", "kill": "infrastructure", "hang": "infrastructure"}
MISHAPS = ("kill" + ONCE, "stop" + ONCE, "memory" + ONCE)
# What befalls the node of a cell that takes its time.
BEFALLS: dict[str, Callable[[Cluster, Any], None]] = {
    "linger" + ONCE: kill,
    "dawdle" + ONCE: give_notice,
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that runs nothing, and three nodes of one CPU."""
    with cluster_of(3) as made:
        yield made


class Chaos:
    """The executor as the drive loop sees it; nodes go while they run a cell that takes its time.

    Args:
        executor: The executor.
        cluster: Its cluster.

    Attributes:
        charged: Deed and cause of each loss and failure.
        retired: Slots whose node had notice.
    """

    def __init__(self, executor: RayExecutor, cluster: Cluster) -> None:
        self._executor, self._cluster = executor, cluster
        self._tasks: dict[str, tuple[Cell, ...]] = {}
        self._to_befall = dict(BEFALLS)
        self.charged: Counter[tuple[str, str]] = Counter()
        self.retired: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def start(self, slot: str, task: Task) -> None:
        self._tasks[slot] = task.cells
        self._executor.start(slot, task)

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        event = self._executor.next_event(timeout)
        match event:
            case SlotLost(slot, cause):
                self.charged[_worst(self._tasks[slot]), cause] += 1
            case Failed(cell_id, cause):
                self.charged[_worst(self._tasks[self._slot_of(cell_id)]), cause] += 1
            case SlotRetired(slot):
                self.retired.append(slot)
            case Started(cell_id):
                self._befall(cell_id)
        return event

    def _befall(self, cell_id: str) -> None:
        """Takes the node away that runs a certain cell, the first time that it runs."""
        slot = self._slot_of(cell_id)
        deed = next(deed_of(c) for c in self._tasks[slot] if c.id == cell_id)
        befall = self._to_befall.pop(deed, None)
        if befall is not None:
            home = self._executor._slots[slot].home
            nodes = self._cluster.worker_nodes
            befall(self._cluster, next(n for n in nodes if home and n.node_id == home.node))
            self._cluster.add_node(num_cpus=1)

    def _slot_of(self, cell_id: str) -> str:
        """Returns the slot that was given a cell last."""
        return [slot for slot, cells in self._tasks.items() if cell_id in {c.id for c in cells}][-1]


def _worst(cells: tuple[Cell, ...]) -> str:
    """Returns what cells do beside sleeping, if one does."""
    return next((deed for found in cells if (deed := deed_of(found)) != "sleep"), "sleep")


def _cells() -> list[Cell]:
    """Returns the cells of all groups; the first ones hold a deed each."""
    deeds = [*POISON, *MISHAPS, *BEFALLS]
    return [
        cell(
            deeds[group] if number == 3 and group < len(deeds) else "sleep",
            group * CELLS_EACH + number,
            group,
        )
        for group in range(GROUPS)
        for number in range(CELLS_EACH)
    ]


def test_a_run_survives_all_that_can_befall_it(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(slots, "SILENCE_SECONDS", 5.0)
    monkeypatch.setattr(schedule, "_FIRST_BACKOFF_SECONDS", 0.1)
    monkeypatch.setitem(schedule.RETRIES, "infrastructure", 2)
    plan = Plan(load_study("smoke", ()), tuple(_cells()))
    results = tmp_path / "results"
    store = Store(results)
    connect(cluster.address)
    executor = RayExecutor(Shape(3, 1, 0, "cpu"), partial(SharedFiles, tmp_path / "files"), body)
    chaos = Chaos(executor, cluster)
    view = ProgressView(plan.cells, frozenset(), Console(quiet=True), 3)
    try:
        how = drive.How("cpu", 1, {"loss": 6.0})
        scheduler = drive.drive(plan, store, chaos, view, how)
    finally:
        executor.close()

    # Every cell but the poison is there once.
    poison = {c.id: deed for c in plan.cells if (deed := deed_of(c)) in POISON}
    rows = load("evals", results)
    assert Counter(rows["cell_id"].to_pylist()) == Counter(
        c.id for c in plan.cells if c.id not in poison
    )
    assert set(scheduler.states.values()) == {"done", "failed"}

    # Poison is given up with what is known of it.
    failures = {row["cell_id"]: row for row in load("failures", results).to_pylist()}
    assert {i: row["cause"] for i, row in failures.items()} == {
        i: POISON[deed] for i, deed in poison.items()
    }
    by_deed = {poison[i]: row for i, row in failures.items()}
    assert "broken on purpose" in by_deed["raise"]["traceback"]
    assert (by_deed["raise"]["attempts"], by_deed["kill"]["attempts"]) == (1, 3)
    assert "worker process has died" in by_deed["kill"]["message"]
    assert "no headway" in by_deed["hang"]["message"]

    # Each loss was charged to what happened, and a node with notice costs nothing.
    assert chaos.charged == {
        ("raise", "user"): 1,
        ("kill", "infrastructure"): 3,
        ("hang", "infrastructure"): 3,
        ("kill" + ONCE, "infrastructure"): 1,
        ("stop" + ONCE, "infrastructure"): 1,
        ("memory" + ONCE, "memory"): 1,
        ("linger" + ONCE, "infrastructure"): 1,
    }
    assert len(chaos.retired) == 1

    # The command line, which finds nothing left to do, names the poison.
    monkeypatch.setattr(run, "make_plan", lambda study, index: plan)
    outcome = run_here(capsys, "full", "--study", "smoke", "--results", str(results))
    assert outcome.code == 1
    assert {row["cell_id"] for row in outcome.last["failures"]} == set(poison)
    assert "retry" in outcome.last["next"]
