"""Nodes of a simulated cluster: they come late or are there, hold workers, fetch, and go.

A node's line to the hub serves one file after the other, in the order in which they are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.cells import Cell
from orchestrator.messages import to_fetch


@dataclass(frozen=True)
class SimulatedCluster:
    """What a run is computed for.

    Attributes:
        nodes: How many nodes there may be.
        workers_per_node: Workers of a node.
        bandwidth: Bytes per second of each node's line to the hub.
        startup_seconds: What a worker takes to start.
        boot_seconds: What a node takes to come; None: all are there from the beginning to the end.
        idle_seconds: How long a node is kept that holds no worker, where nodes come and go.
        losses_per_hour: How often a node is taken away, in each hour that it is there.
        seed: Of the losses.
    """

    nodes: int
    workers_per_node: int
    bandwidth: float
    startup_seconds: float = 0.0
    boot_seconds: float | None = None
    idle_seconds: float = 60.0
    losses_per_hour: float = 0.0
    seed: int = 0

    @property
    def comes_and_goes(self) -> bool:
        """Whether nodes come with the demand."""
        return self.boot_seconds is not None


@dataclass
class Node:
    """A node that is there or on its way.

    Attributes:
        since: When it came; None while it is on its way.
        workers: Names of its workers.
        empty_since: Since when it holds no worker.
    """

    since: float | None = None
    workers: set[str] = field(default_factory=set)
    empty_since: float = 0.0
    _line_free: float = 0.0
    _arrivals: dict[str, float] = field(default_factory=dict)

    def fetch(self, cells: Sequence[Cell], bandwidth: float, now: float) -> float:
        """Returns when all files of cells are there; those that lack are fetched, in turn."""
        there = now
        for file in (file for source in to_fetch(cells[0]) for file in source.files):
            content = file.sha256 or file.oid
            if content not in self._arrivals:
                self._line_free = max(now, self._line_free) + file.size / bandwidth
                self._arrivals[content] = self._line_free
            there = max(there, self._arrivals[content])
        return there


class Nodes:
    """The nodes of a simulated cluster, by number.

    Args:
        cluster: How many there may be, and what they are like.

    Attributes:
        seconds: Node seconds of those that are gone.
        most: Most nodes at a time.
    """

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._there: dict[int, Node] = {}
        self._room: dict[int, None] = {}
        self._numbers = 0
        self.seconds, self.most = 0.0, 0

    def __contains__(self, number: int) -> bool:
        """Whether a node is there or on its way."""
        return number in self._there

    def __getitem__(self, number: int) -> Node:
        """Returns a node."""
        return self._there[number]

    def order(self) -> int:
        """Has another node come, and returns its number."""
        self._numbers += 1
        self._there[self._numbers] = Node()
        self.most = max(self.most, len(self._there))
        return self._numbers

    def missing(self, workers: int) -> int:
        """Returns how many more nodes so many workers need that have no place, within the most."""
        places = sum(
            self._cluster.workers_per_node - len(node.workers) for node in self._there.values()
        )
        needed = -(-max(0, workers - places) // self._cluster.workers_per_node)
        return min(needed, self._cluster.nodes - len(self._there))

    def arrive(self, number: int, now: float) -> None:
        """Opens a node to workers."""
        node = self._there[number]
        node.since = node.empty_since = now
        self._room[number] = None

    def seat(self, worker: str) -> int | None:
        """Gives a worker a place on the first node that has one, and returns its number."""
        number = next(iter(self._room), None)
        if number is not None:
            node = self._there[number]
            node.workers.add(worker)
            if len(node.workers) == self._cluster.workers_per_node:
                del self._room[number]
        return number

    def leave(self, worker: str, number: int, now: float) -> bool:
        """Ends a worker; tells whether the node is empty."""
        node = self._there[number]
        node.workers.discard(worker)
        self._room[number] = None
        node.empty_since = now
        return not node.workers

    def is_idle(self, number: int, now: float) -> bool:
        """Whether a node has held no worker for so long that it goes."""
        node = self._there[number]
        return not node.workers and now - node.empty_since >= self._cluster.idle_seconds

    def remove(self, number: int, now: float) -> Node:
        """Takes a node away, and returns it."""
        node = self._there.pop(number)
        self._room.pop(number, None)
        if node.since is not None:
            self.seconds += now - node.since
        return node

    def close(self, now: float) -> None:
        """Takes all nodes away."""
        for number in list(self._there):
            self.remove(number, now)
