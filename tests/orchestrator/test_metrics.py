"""What metrics are told, without Ray: counts, states, trials, and that they end nothing."""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.cells import Cell
from jobs.events import Failed, Finished, Progress
from orchestrator import metrics
from orchestrator.messages import SlotLost, TaskEnded
from orchestrator.metrics import Metric, RunMeter, WorkerMeter
from tests.orchestrator import sleeping
from tests.orchestrator.fake_cells import making
from workers import tally
from workers.artifacts import SharedFiles
from workers.supply import HubCache

CELLS = (making(0), making(1), sleeping.cell("nothing"), sleeping.training("nothing"))
MADE, LOSS, TRAINING = CELLS[0], CELLS[2], CELLS[3]
Told = dict[tuple[str, ...], float]


class _Recorded:
    """A metric that keeps what it is told."""

    def __init__(self, metric: Metric, fixed: Mapping[str, str], told: Told) -> None:
        self._metric, self._fixed, self._told = metric, fixed, told

    def _key(self, labels: Mapping[str, str] | None) -> tuple[str, ...]:
        labels = {**self._fixed, **(labels or {})}
        assert set(labels) == {*self._metric.labels, *self._fixed}
        return (self._metric.name, *(labels[name] for name in sorted(labels)))

    def inc(self, amount: float, labels: Mapping[str, str] | None = None) -> None:
        assert self._metric.type == "counter"
        assert amount > 0
        self._told[self._key(labels)] += amount

    def set(self, amount: float, labels: Mapping[str, str] | None = None) -> None:
        assert self._metric.type == "gauge"
        self._told[self._key(labels)] = amount


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What was told, by name and the values of the labels in the order of their names."""
    found: Told = defaultdict(float)
    monkeypatch.setattr(Metric, "made", lambda self, labels: _Recorded(self, labels, found))
    monkeypatch.setattr(metrics, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(metrics, "_LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(metrics, "_said", set())
    monkeypatch.setattr(tally, "_counts", defaultdict(float))
    return found


def _states(**others: str) -> dict[str, str]:
    """Returns states of cells, `running` but for some, which are named by their place."""
    return {cell.id: others.get(f"c{place}", "running") for place, cell in enumerate(CELLS)}


def _meter() -> RunMeter:
    return RunMeter("mine", CELLS, lambda: 12.5)


def _finished(cell: Cell, seconds: float) -> Finished:
    return Finished(cell.id, (), {"seconds": seconds})


def test_cells_are_counted_by_kind_and_state(told: Told) -> None:
    meter = _meter()
    meter.show(None, _states(c0="done", c1="waiting"), (1, 2))
    kind = MADE.work.kind
    assert told["cells", kind, "done", "mine"] == told["cells", kind, "waiting", "mine"] == 1
    assert told["cells", kind, "running", "mine"] == 0
    assert told["cells", LOSS.work.kind, "running", "mine"] == 1
    assert told["workers", "ready", "mine"] == 1
    assert told["workers", "wanted", "mine"] == 2
    assert told["remaining_seconds", "mine"] == 12.5
    meter.show(None, _states(c0="done", c1="done"), (1, 2))
    assert told["cells", kind, "waiting", "mine"] == 0
    assert told["cells", kind, "done", "mine"] == 2


def test_a_finished_cell_counts_once(told: Told) -> None:
    meter = _meter()
    meter.show(_finished(LOSS, 2.5), _states(), (1, 1))
    meter.show(_finished(LOSS, 2.5), _states(c2="done"), (1, 1))  # Late: it counts no more.
    meter.show(_finished(MADE, 0.0), _states(), (1, 1))
    meter.show(Progress(MADE.id, 1, 2), _states(), (1, 1))
    assert told["cells_finished", LOSS.work.kind, "mine"] == 1
    assert told["cells_finished", MADE.work.kind, "mine"] == 1
    assert told["cell_seconds", LOSS.work.kind, "mine"] == 2.5


def test_trials_are_tasks_that_train(told: Told) -> None:
    meter = _meter()
    meter.placed("a", (TRAINING,))
    meter.placed("b", (LOSS,))
    meter.placed("c", (TRAINING,))
    meter.show(TaskEnded("b"), _states(), (2, 2))
    assert told["trials", "running", "mine"] == 2
    meter.show(TaskEnded("a"), _states(), (2, 2))
    meter.show(TaskEnded("a"), _states(), (2, 2))
    meter.show(SlotLost("c", "memory", "killed"), _states(), (2, 2))
    found = {state: told["trials", state, "mine"] for state in ("running", "ended", "lost")}
    assert found == {"running": 0, "ended": 1, "lost": 1}


def test_failures_have_causes(told: Told) -> None:
    meter = _meter()
    meter.failed(LOSS, Failed(LOSS.id, "data", "gone"))
    meter.failed(MADE, Failed(MADE.id, "data", "gone"))
    meter.show(SlotLost("a", "preempted", "spot"), _states(), (1, 1))
    assert told["failures", "data", "mine", "cell"] == 2
    assert told["failures", "preempted", "mine", "worker"] == 1


def test_a_worker_tells_what_came_since_the_last_time(told: Told, tmp_path: Path) -> None:
    meter = WorkerMeter(SharedFiles(tmp_path, hub=HubCache(tmp_path / "cache", 1000)))
    tally.count("fetched_bytes", "hub", 10)
    meter.tell()
    meter.tell()
    tally.count("fetched_bytes", "hub", 5)
    tally.count("cache_files", "hit", 0)
    (blob := tmp_path / "cache/hub/models--a/blobs/b").parent.mkdir(parents=True)
    blob.write_bytes(b"x" * 70)
    meter.tell()
    assert told == {
        ("fetched_bytes", "hub"): 15,
        ("cache_used_bytes",): 70,
        ("cache_budget_bytes",): 1000,
    }


def test_what_goes_wrong_is_logged_once_and_ends_nothing(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("no agent")

    meter = _meter()
    monkeypatch.setattr(_Recorded, "inc", broken)
    monkeypatch.setattr(_Recorded, "set", broken)
    with caplog.at_level(logging.WARNING, "eigentrace"):
        for _ in range(3):
            meter.show(_finished(LOSS, 1.0), _states(), (1, 1))
            meter.failed(LOSS, Failed(LOSS.id, "data", "gone"))
        monkeypatch.setattr(Metric, "made", broken)
        without = RunMeter("mine", CELLS, lambda: 0.0)
        without.show(None, _states(), (1, 1))
        without.failed(LOSS, Failed(LOSS.id, "data", "gone"))
    (message,) = [record.getMessage() for record in caplog.records]
    assert "no agent" in message


def test_telling_costs_next_to_nothing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_EVERY_SECONDS", 60.0)
    meter, states, event = _meter(), _states(), Progress(LOSS.id, 1, 2)
    meter.show(event, states, (1, 1))
    began = time.process_time()
    for _ in range(1000):
        meter.show(event, states, (1, 1))
        with tally.phase("forward"):
            pass
    # The smallest cells take a hundredth of a second: this is a hundredth of that.
    assert (time.process_time() - began) / 1000 < 1e-4
