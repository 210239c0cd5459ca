"""What a run tells Prometheus, through the agent for metrics that Ray has on every node.

Invariant: it changes nothing and ends nothing. What goes wrong with a metric is logged once, and
the run goes on.
"""

import json
import logging
import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.util import metrics as ray_metrics

from jobs.cells import Cell
from jobs.events import Failed, Finished
from jobs.work import trains
from orchestrator.backlog import State
from orchestrator.messages import SlotLost, TaskEnded
from workers import tally
from workers.artifacts import Files

_LOG = logging.getLogger("eigentrace")

_EVERY_SECONDS = 2.0
"""Ray forgets a gauge that isn't set again within its reporting interval, 10 seconds by default."""

_LOOK_EVERY_SECONDS = 10.0
_PREFIX = "eigentrace_"
_TRIAL_STATES = ("running", "ended", "lost")


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name within Eigentrace.
        type: A counter only grows, a gauge goes up and down.
        description: What Prometheus tells of it.
        labels: By what its values are told apart.
    """

    name: str
    type: Literal["counter", "gauge"]
    description: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{_PREFIX}{self.name}" + ("_total" if self.type == "counter" else "")

    def made(self, labels: Mapping[str, str]) -> Any:
        """Returns Ray's metric for this process, with labels that all of its values have."""
        kind = ray_metrics.Counter if self.type == "counter" else ray_metrics.Gauge
        metric = kind(_PREFIX + self.name, self.description, (*self.labels, *labels))
        return metric.set_default_tags(dict(labels))


OF_RUNS = (
    Metric("cells", "gauge", "Cells of a run's plan", ("kind", "state")),
    Metric("cells_finished", "counter", "Cells that a run has finished", ("kind",)),
    Metric("cell_seconds", "counter", "Seconds of finished cells, shared parts in each", ("kind",)),
    Metric("failures", "counter", "Cells given up, and workers lost", ("cause", "what")),
    Metric("trials", "gauge", "Trials of Ray Tune, which train", ("state",)),
    Metric("workers", "gauge", "Workers that are ready, and that are wanted", ("state",)),
    Metric("remaining_seconds", "gauge", "Estimate of the time that a run has left"),
)
"""What the driver of a run tells; each has the label `study`."""

OF_WORKERS = (
    Metric("phase_seconds", "counter", "Seconds that cells spent, by part", ("phase",)),
    Metric("fetched_bytes", "counter", "Bytes fetched to a node", ("origin",)),
    Metric("cache_files", "counter", "Files needed, and whether they were there", ("outcome",)),
    Metric("sampled_tokens", "counter", "Tokens sampled", ("engine",)),
    Metric("cache_used_bytes", "gauge", "Bytes of the hub's files on a node"),
    Metric("cache_budget_bytes", "gauge", "Most bytes of the hub's files on a node"),
)
"""What every worker tells: the counts of `workers.tally`, and its node's cache of hub files."""

_said: set[str] = set()


@contextmanager
def _harmless() -> Iterator[None]:
    """Logs what goes wrong in a block, once; metrics are no reason for a run to end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        said = f"{type(error).__name__}: {error}"
        if said not in _said:
            _said.add(said)
            _LOG.warning("some metrics are missing: %s", said)


class RunMeter:
    """Tells of a run; it is shown what the user is shown.

    Args:
        study: Name of the study.
        cells: The cells of the plan.
        remaining: Estimates the seconds that are left.
    """

    def __init__(self, study: str, cells: Sequence[Cell], remaining: Callable[[], float]) -> None:
        self._kinds = {cell.id: cell.work.kind for cell in cells}
        self._remaining = remaining
        self._training: set[str] = set()
        self._trials = Count(dict.fromkeys(_TRIAL_STATES, 0))
        self._due = 0.0
        self._metrics: dict[str, Any] = {}
        with _harmless():
            self._metrics = {each.name: each.made({"study": study}) for each in OF_RUNS}

    def show(self, event: Any, states: Mapping[str, str], workers: tuple[int, int]) -> None:
        """Takes note of an event, of the cells' states before it, and of the workers."""
        if not self._metrics:
            return
        with _harmless():
            match event:
                case Finished(cell_id) if states[cell_id] == "running":
                    kind = {"kind": self._kinds[cell_id]}
                    self._metrics["cells_finished"].inc(1, kind)
                    if seconds := event.provenance.get("seconds"):
                        self._metrics["cell_seconds"].inc(seconds, kind)
                case TaskEnded(slot):
                    self._end_trial(slot, "ended")
                case SlotLost(slot, cause):
                    self._metrics["failures"].inc(1, {"cause": cause, "what": "worker"})
                    self._end_trial(slot, "lost")
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _EVERY_SECONDS
                self._set(states, workers)

    def placed(self, slot: str, cells: Sequence[Cell]) -> None:
        """Takes note of a task that was started."""
        if trains(cells[0].work):
            self._training.add(slot)
            self._trials["running"] += 1

    def failed(self, cell: Cell, failure: Failed) -> None:
        """Takes note of a cell that was given up."""
        if not self._metrics:
            return
        with _harmless():
            self._metrics["failures"].inc(1, {"cause": failure.cause, "what": "cell"})

    def _end_trial(self, slot: str, state: str) -> None:
        if slot in self._training:
            self._training.remove(slot)
            self._trials["running"] -= 1
            self._trials[state] += 1

    def _set(self, states: Mapping[str, str], workers: tuple[int, int]) -> None:
        """Sets what goes up and down; states without cells as well, which had some before."""
        found = Count((self._kinds[cell_id], state) for cell_id, state in states.items())
        for kind in set(self._kinds.values()):
            for state in get_args(State):
                labels = {"kind": kind, "state": state}
                self._metrics["cells"].set(found[kind, state], labels)
        for state in _TRIAL_STATES:
            self._metrics["trials"].set(self._trials[state], {"state": state})
        for state, count in zip(("ready", "wanted"), workers, strict=True):
            self._metrics["workers"].set(count, {"state": state})
        self._metrics["remaining_seconds"].set(self._remaining())


class WorkerMeter:
    """Tells of a worker's process what `workers.tally` counts, and of its node's cache.

    Args:
        files: Where this node finds files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._told: dict[tuple[str, str], float] = {}
        self._usage: tuple[int, int] | None = None
        self._looked = -_LOOK_EVERY_SECONDS
        self._labels = {each.name: each.labels for each in OF_WORKERS}
        self._metrics = {each.name: each.made({}) for each in OF_WORKERS}

    def tell(self) -> None:
        """Tells what came since the last call."""
        for (what, label), amount in tally.counts().items():
            more = amount - self._told.get((what, label), 0.0)
            if more > 0:
                (name,) = self._labels[what]
                self._metrics[what].inc(more, {name: label})
                self._told[what, label] = amount
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked, self._usage = now, self._files.hub.usage()
        if self._usage is not None:
            used, budget = self._usage
            self._metrics["cache_used_bytes"].set(used)
            self._metrics["cache_budget_bytes"].set(budget)


def tell_of_this_process(files: Files) -> None:
    """Has a thread tell of this worker's process until that ends."""

    def run() -> None:
        with _harmless():
            meter = WorkerMeter(files)
            while True:
                with _harmless():
                    meter.tell()
                time.sleep(_EVERY_SECONDS)

    threading.Thread(target=run, name="metrics", daemon=True).start()


def announce() -> None:
    """Writes where the metrics of this process's own cluster are, for Prometheus to find.

    Ray's dashboard does so, at the same place; a cluster that is started for one run has none.
    """
    with _harmless():
        targets = [
            f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()
        ]
        folder = Path(ray_worker.global_worker.node.get_session_dir_path())
        path = folder / ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE
        written = path.with_suffix(".tmp")
        written.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": targets}]))
        written.replace(path)
