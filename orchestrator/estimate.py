"""What a plan will take: more machines never take longer, and more cells never less.

Every part that cells share is counted once: a checkpoint's load, a text's pass, a file on the hub.
Hours come from measured seconds of finished cells where there are some, else from FLOPs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.capability_work import ChatsWork
from jobs.cells import Cell
from jobs.frozen import DType
from jobs.place import Place
from jobs.work import (
    CorpusWork,
    PretrainWork,
    SequencesWork,
    StageName,
    precision,
)
from orchestrator.costs import Costs, Part
from orchestrator.downloads import Downloads
from orchestrator.hardware import Machines
from orchestrator.measured import Rates, measured_rates, recorded_sizes
from orchestrator.model_sizes import ModelSizes, size_notes
from orchestrator.plan import Plan
from orchestrator.store import Ledger

BANDWIDTH = 125_000_000
"""Bytes per second that a node fetches from the hub, unless told: a line of 1 Gbit/s."""

_AHEAD = 2  # Checkpoints that a worker's node fetches while it measures one.


@dataclass
class StageEstimate:
    """What a stage will take.

    Attributes:
        cells: Cells to do.
        download_bytes: Bytes from the hub that no earlier stage fetches.
        peak_disk_bytes: Most that a node's cache needs for the stage's own checkpoints, those that
            its workers measure and those fetched ahead.
        artifact_bytes: What its cells add to the results besides rows, where it is known.
        seconds: Seconds of one worker.
        measured_seconds: Those of them that come from measured rates.
        by_kind: Seconds of the stage's cells by kind, and their number.
    """

    cells: int = 0
    download_bytes: int = 0
    peak_disk_bytes: int = 0
    artifact_bytes: int = 0
    seconds: float = 0.0
    measured_seconds: float = 0.0
    by_kind: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def basis(self) -> str:
        """Whether the seconds are `measured`, `assumed` (from FLOPs), or `mixed`."""
        return _basis(self.seconds, self.measured_seconds)


@dataclass(frozen=True)
class Estimate:
    """What the rest of a plan will take.

    Attributes:
        machines: Where it runs.
        stages: What each stage takes.
        chains: Seconds of the longest chain of work that begins with each group of cells.
        largest_download: Bytes of the largest checkpoint on the hub.
        bandwidth: Bytes per second of each node's line to the hub.
        peak_disk_bytes: Most that a node's cache needs for what its workers measure and have
            fetched ahead.
        artifact_bytes: What cells add to the results besides rows, where it is known.
        notes: What was assumed, and what will not fit.
    """

    machines: Machines
    stages: Mapping[StageName, StageEstimate]
    chains: Mapping[str, float]
    largest_download: int
    bandwidth: int
    peak_disk_bytes: int
    artifact_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """Cells to do."""
        return sum(stage.cells for stage in self.stages.values())

    @property
    def download_bytes(self) -> int:
        """Bytes from the hub, each file once."""
        return sum(stage.download_bytes for stage in self.stages.values())

    @property
    def work_seconds(self) -> float:
        """Seconds that one worker would need."""
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def longest_seconds(self) -> float:
        """Seconds of the longest chain of work, each needing the one before."""
        return max(self.chains.values(), default=0.0)

    @property
    def compute_seconds(self) -> float:
        """Seconds of computing on the clock: all shared out evenly, or the longest chain."""
        return max(self.work_seconds / self.machines.workers, self.longest_seconds)

    @property
    def transfer_seconds(self) -> float:
        """Seconds of downloading on the clock."""
        return self.download_bytes / (self.bandwidth * self.machines.nodes)

    @property
    def seconds(self) -> float:
        """Seconds on the clock: downloads run beside the computing, but for the first."""
        if not self.cells:
            return 0.0
        first = self.largest_download / self.bandwidth
        busy = max(self.compute_seconds, self.transfer_seconds)
        return self.machines.startup_seconds + first + busy

    @property
    def basis(self) -> str:
        """Whether the hours are `measured`, `assumed` (from FLOPs), or `mixed`."""
        measured = sum(stage.measured_seconds for stage in self.stages.values())
        return _basis(self.work_seconds, measured)

    @property
    def seconds_by_kind(self) -> dict[str, float]:
        """Mean seconds of a cell of each kind."""
        kinds = [pair for stage in self.stages.values() for pair in stage.by_kind.items()]
        return {kind: seconds / cells for kind, (seconds, cells) in kinds}


def estimate_plan(
    plan: Plan,
    place: Place,
    ledger: Ledger,
    left: Sequence[Cell],
    machines: Machines,
    bandwidth: int = BANDWIDTH,
) -> Estimate:
    """Estimates what is left of a plan, from what its finished cells took where some are.

    Raises:
        StoreError: The results cannot be read.
    """
    cells, done = plan.cells, ledger.done
    if not left:
        return Estimate(machines, {}, {}, 0, bandwidth, 0, 0)
    sizes = ModelSizes(cells, recorded_sizes(place, cells, done))
    costs = Costs(cells, sizes, plan.study.forward.batch_size)
    rates = measured_rates(place, cells, done, costs, machines.processor)
    return estimate(left, sizes, costs, rates, machines, bandwidth)


def estimate(
    left: Sequence[Cell],
    sizes: ModelSizes,
    costs: Costs,
    rates: Rates,
    machines: Machines,
    bandwidth: int = BANDWIDTH,
) -> Estimate:
    """Estimates what cells will take.

    Args:
        left: The cells, each after those that it needs.
        sizes: How large their models are.
        costs: What they take by FLOPs.
        rates: What parts took where they were measured.
        machines: Where they run.
        bandwidth: Bytes per second of each node's line to the hub.
    """
    stages: dict[StageName, StageEstimate] = {}
    loads = _Loads()
    downloads = Downloads()
    own: dict[StageName, Downloads] = defaultdict(Downloads)
    shared: set[tuple[str | int, str]] = set()
    known: dict[tuple[str, float], tuple[float, bool]] = {}
    for cell in left:
        stage = stages.setdefault(cell.work.stage, StageEstimate())
        group = _group(cell)
        seconds = 0.0
        for part in costs.parts(cell, machines.processor):
            if part.shared is not None:
                if (group, part.shared) in shared:
                    continue
                shared.add((group, part.shared))
            key = part.name, part.seconds
            if key not in known:
                known[key] = corrected(part, rates)
            takes, measured = known[key]
            seconds += takes
            stage.measured_seconds += takes if measured else 0.0
        stage.cells += 1
        stage.seconds += seconds
        before, count = stage.by_kind.get(cell.work.kind, (0.0, 0))
        stage.by_kind[cell.work.kind] = before + seconds, count + 1
        stage.download_bytes += downloads.add(cell, group)
        own[cell.work.stage].add(cell, group)
        stage.artifact_bytes += _artifact_bytes(cell, sizes)
        loads.add(cell, seconds)
    at_once = machines.workers_per_node * (1 + _AHEAD)
    for name, stage in stages.items():
        stage.peak_disk_bytes = own[name].most_at_once(at_once)
    models = {_group(cell): cell.checkpoint for cell in left if cell.checkpoint is not None}
    return Estimate(
        machines,
        stages,
        loads.chains(),
        downloads.largest,
        bandwidth,
        downloads.most_at_once(at_once),
        sum(stage.artifact_bytes for stage in stages.values()),
        tuple(size_notes(models.values(), sizes, machines.processor, _precision(left))),
    )


class _Loads:
    """Seconds of groups of cells that run together, and what they wait for."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._needs: dict[str, set[str]] = defaultdict(set)
        self._groups: dict[str, str] = {}

    def add(self, cell: Cell, seconds: float) -> None:
        self._seconds[cell.group] += seconds
        self._needs[cell.group].update(cell.needs)
        self._groups[cell.id] = cell.group

    def chains(self) -> dict[str, float]:
        """Returns the seconds of the longest chain of groups from each group on."""
        after: dict[str, float] = defaultdict(float)
        # Groups stand after those that they need.
        for group in reversed(self._seconds):
            whole = self._seconds[group] + after[group]
            for need in self._needs[group]:
                if need in self._groups and (before := self._groups[need]) != group:
                    after[before] = max(after[before], whole)
        return {group: seconds + after[group] for group, seconds in self._seconds.items()}


def _group(cell: Cell) -> str | int:
    """Returns what tells apart cells of different checkpoints, which share what these are read by.

    A plan's cells of one checkpoint share the object, and its digest would take longer than all
    else that is done here.
    """
    return cell.id if cell.checkpoint is None else id(cell.checkpoint)


def corrected(part: Part, rates: Rates) -> tuple[float, bool]:
    """Returns what a part takes, and whether that comes from measured seconds."""
    rate = rates.rate(part)
    return (part.seconds, False) if rate is None else (part.seconds * rate, True)


def _artifact_bytes(cell: Cell, sizes: ModelSizes) -> int:
    """Returns the bytes of what a cell makes, as far as its parameters tell."""
    match cell.work:
        case PretrainWork(model):
            return len(model.checkpoint_steps) * sizes.trained(cell.id).weight_bytes
        case CorpusWork(corpus):
            return 2 * corpus.training_tokens
        case SequencesWork(draw=draw) | ChatsWork(draw=draw):
            return 4 * draw.sequences * (draw.sequence_length + 1)
        case _:
            return 0


def _precision(left: Sequence[Cell]) -> DType:
    """Returns the precision that checkpoints are loaded in."""
    return next((found for cell in left if (found := precision(cell.work))), "float32")


def _basis(seconds: float, measured: float) -> str:
    if measured <= 0:
        return "assumed"
    return "measured" if measured >= seconds * (1 - 1e-9) else "mixed"
