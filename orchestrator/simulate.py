"""A run of a plan that is only computed: the real scheduler, a simulated cluster and its clock.

What a cell takes is known beforehand; what is computed is what comes of the order, of downloads, of
nodes that come late, and of nodes that are taken away.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.cells import Cell
from jobs.events import Finished
from orchestrator.elastic import Held, changes
from orchestrator.messages import (
    Action,
    Prepare,
    Release,
    SlotLost,
    SlotOpened,
    SlotRetired,
    Start,
    TaskEnded,
)
from orchestrator.placement import Seat
from orchestrator.schedule import Scheduler
from orchestrator.simulated_nodes import Nodes, SimulatedCluster

TaskSeconds = Callable[[Sequence[Cell]], Iterable[float]]
"""Gives what each of the cells of a task takes, in their order."""

_LOOKS = 2000
_LEAST_LOOK_SECONDS = 1.0
_MOST_LOSSES = 1_000_000


@dataclass(frozen=True)
class Simulation:
    """How a computed run went.

    Attributes:
        seconds: From its beginning to the last cell's end.
        busy_seconds: Worker seconds of the cells that ended, waiting for downloads left out.
        held_seconds: Worker seconds of the nodes that were there.
        most_nodes: Most nodes at a time.
        losses: Nodes that were taken away.
        cells: Cells that ended.
    """

    seconds: float
    busy_seconds: float
    held_seconds: float
    most_nodes: int
    losses: int
    cells: int

    @property
    def utilization(self) -> float:
        """Share of what was held that was spent on cells."""
        return self.busy_seconds / self.held_seconds if self.held_seconds else 0.0


def simulate(
    cells: Sequence[Cell],
    seconds: TaskSeconds,
    cluster: SimulatedCluster,
    expected: float,
    chains: Mapping[str, float] | None = None,
) -> Simulation:
    """Computes a run.

    Args:
        cells: What is to be done, each cell after those that it needs.
        seconds: What the cells of a task take.
        cluster: Where.
        expected: About how many seconds the run will take; it tells how often to look whether nodes
            are to come or go.
        chains: What the scheduler is told of the lengths of chains.

    Raises:
        RuntimeError: It has no end: nodes are taken away before any cell could end.
    """
    return _World(cells, seconds, cluster, expected, chains).run()


@dataclass
class _Worker:
    """A worker.

    Attributes:
        since: Since when it has waited for a place or for work; None while it works.
        node: Number of its node, once it has one.
        ready: Whether it has started.
        retired: Whether it gets no other task.
    """

    since: float | None
    node: int | None = None
    ready: bool = False
    retired: bool = False


class _World:
    def __init__(
        self,
        cells: Sequence[Cell],
        seconds: TaskSeconds,
        cluster: SimulatedCluster,
        expected: float,
        chains: Mapping[str, float] | None,
    ) -> None:
        self._cluster, self._seconds_of = cluster, seconds
        self._scheduler = Scheduler(cells, chains=chains)
        self._nodes = Nodes(cluster)
        self._random = np.random.default_rng(cluster.seed)
        self._most = cluster.nodes * cluster.workers_per_node
        self._look_seconds = max(_LEAST_LOOK_SECONDS, expected / _LOOKS)
        self._workers: dict[str, _Worker] = {}
        self._waiting: dict[str, None] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count, self._named, self._now = 0, 0, 0.0
        self._busy, self._finished, self._losses = 0.0, 0, 0

    def run(self) -> Simulation:
        """Computes the run to its end."""
        if self._cluster.comes_and_goes:
            self._look()
        else:
            for _ in range(self._cluster.nodes):
                self._arrive(self._nodes.order())
            for _ in range(self._most):
                self._ask()
        while not self._scheduler.finished:
            if not self._heap:
                raise RuntimeError("the simulated run has no end")
            self._now, _, happen = heapq.heappop(self._heap)
            happen()
        self._nodes.close(self._now)
        held = self._nodes.seconds * self._cluster.workers_per_node
        return Simulation(
            self._now, self._busy, held, self._nodes.most, self._losses, self._finished
        )

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self._now + seconds, self._count, happen))

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Start(slot, cells):
                    self._start(slot, cells)
                case Prepare(slot, cells):
                    self._fetch(slot, cells)
                case Release(slot):
                    self._drop(slot)

    def _open(self, name: str) -> None:
        worker = self._workers.get(name)
        if worker is not None:
            worker.ready, worker.since = True, self._now
            opened = SlotOpened(name, cache=str(worker.node))
            self._act(self._scheduler.handle(opened, self._now))

    def _start(self, slot: str, cells: tuple[Cell, ...]) -> None:
        self._workers[slot].since = None
        ends = self._fetch(slot, cells) - self._now
        for cell, seconds in zip(cells, self._seconds_of(cells), strict=True):
            ends += seconds
            self._after(ends, lambda c=cell, s=seconds: self._finish(slot, c, s))  # type: ignore[misc]
        self._after(ends, lambda: self._end_task(slot))

    def _finish(self, slot: str, cell: Cell, seconds: float) -> None:
        if slot in self._workers:
            self._busy += seconds
            self._finished += 1
            self._act(self._scheduler.handle(Finished(cell.id, ()), self._now))

    def _end_task(self, slot: str) -> None:
        if slot in self._workers:
            self._workers[slot].since = self._now
            self._act(self._scheduler.handle(TaskEnded(slot), self._now))

    def _fetch(self, slot: str, cells: Sequence[Cell]) -> float:
        """Returns when the files of cells are on the slot's node."""
        number = self._workers[slot].node
        assert number is not None
        return self._nodes[number].fetch(cells, self._cluster.bandwidth, self._now)

    def _look(self) -> None:
        """Asks for workers and nodes and gives some back, as executor and autoscaler do."""
        held = {
            name: Held("", worker.ready, worker.since)
            for name, worker in self._workers.items()
            if not worker.retired
        }
        seats = {"": Seat("", 1, self._most)}
        found = changes(held, seats, self._scheduler.demand, self._most, self._now)
        for name in found.close:
            if self._workers[name].ready:
                self._workers[name].retired = True
                self._act(self._scheduler.handle(SlotRetired(name), self._now))
            else:
                self._drop(name)
        for _ in found.ask:
            self._ask()
        for _ in range(self._nodes.missing(len(self._waiting))):
            number = self._nodes.order()
            self._after(self._cluster.boot_seconds or 0.0, lambda n=number: self._arrive(n))  # type: ignore[misc]
        self._after(self._look_seconds, self._look)

    def _ask(self) -> None:
        """Asks for a worker: it starts on a node with room, or waits for one."""
        self._named += 1
        name = f"worker-{self._named}"
        self._workers[name] = _Worker(self._now)
        self._waiting[name] = None
        self._place()

    def _place(self) -> None:
        for name in list(self._waiting):
            number = self._nodes.seat(name)
            if number is None:
                return
            del self._waiting[name]
            self._workers[name].node = number
            self._after(self._cluster.startup_seconds, lambda n=name: self._open(n))  # type: ignore[misc]

    def _arrive(self, number: int) -> None:
        self._nodes.arrive(number, self._now)
        if self._cluster.losses_per_hour:
            lives = self._random.exponential(3600 / self._cluster.losses_per_hour)
            self._after(lives, lambda: self._take_away(number))
        self._place()
        self._watch_idle(number)

    def _take_away(self, number: int) -> None:
        if number not in self._nodes:
            return
        self._losses += 1
        if self._losses > _MOST_LOSSES:
            raise RuntimeError("nodes are taken away before any cell could end")
        lost = sorted(self._nodes.remove(number, self._now).workers)
        if not self._cluster.comes_and_goes:
            # Another one comes at once in its place, with nothing in its cache.
            self._arrive(self._nodes.order())
        for name in lost:
            worker = self._workers.pop(name)
            if worker.ready:
                message = SlotLost(name, "preempted", "the node was taken away")
                self._act(self._scheduler.handle(message, self._now))
            if not self._cluster.comes_and_goes:
                self._ask()

    def _drop(self, name: str) -> None:
        """Ends a worker; an empty node goes after a while."""
        worker = self._workers.pop(name)
        if worker.node is None:
            del self._waiting[name]
        elif self._nodes.leave(name, worker.node, self._now):
            self._watch_idle(worker.node)

    def _watch_idle(self, number: int) -> None:
        def leave() -> None:
            if number in self._nodes and self._nodes.is_idle(number, self._now):
                self._nodes.remove(number, self._now)

        if self._cluster.comes_and_goes:
            self._after(self._cluster.idle_seconds, leave)
