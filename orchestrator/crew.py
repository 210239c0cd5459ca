"""The actors of a run: which were asked for, where they live, and which are given back.

Where machines come and go, or workers are of several kinds, there are as many as have work; else
all that there is room for, from the beginning to the end.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from jobs.errors import UsageError
from orchestrator.cluster import Shape
from orchestrator.elastic import Held, changes
from orchestrator.inline import Body
from orchestrator.losses import is_node_loss, reason
from orchestrator.messages import SlotOpened, SlotRetired
from orchestrator.node_types import GPU_KIND
from orchestrator.placement import Seat
from orchestrator.resident import Worker
from orchestrator.seats import Slot, check_own_node
from orchestrator.versions import check_versions, versions
from workers.artifacts import Files

BESIDE = "beside the task"
"""A concurrency group of an actor, whose calls run while a task does."""

_OPENING_TRIES = 3
_RESIZING_SECONDS = 0.2  # With a thousand actors, to look at them all takes a millisecond.


class Crew:
    """Asks Ray for actors and takes them in.

    Args:
        shape: How many actors, and of what size.
        seats: Their kinds by name; without, all are alike.
        open_files: Called once in each actor; tells where artifacts lie.
        body: What runs a task.

    Attributes:
        slots: What is known of each actor, by name.
        opening: The names of those that don't run yet, by the references to their answers.
    """

    def __init__(
        self,
        shape: Shape,
        seats: Mapping[str, Seat] | None,
        open_files: Callable[[], Files],
        body: Body,
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self.opening: dict[Any, str] = {}
        self._elastic = seats is not None
        self._seats = dict(seats or {"": Seat("", shape.gpus, shape.actors)})
        self._threads, self._most = shape.threads, shape.actors
        self._wanted = 0 if self._elastic else shape.actors
        self._resized = -_RESIZING_SECONDS
        self._versions = versions()
        self._arguments = (open_files, body)
        self._actor = ray.remote(concurrency_groups={BESIDE: 1})(Worker)
        self._names = iter(f"worker-{number}" for number in range(sys.maxsize))
        for _ in range(self._wanted):
            self._open("")

    @property
    def most(self) -> int:
        """How many actors there may be at a time."""
        return self._most

    @property
    def counts(self) -> tuple[int, int]:
        """How many actors can be given tasks, and how many are wanted."""
        ready = sum(slot.home is not None and not slot.retired for slot in self.slots.values())
        return ready, self._wanted

    def resize(self, demand: Mapping[str, int]) -> list[SlotRetired]:
        """Asks for actors that have work to do, and gives back those that have none.

        Args:
            demand: How many of each kind have or could have work now.

        Returns:
            The actors that are told to go; they end the task that they may just have been given.
        """
        now = time.monotonic()
        if not self._elastic or now - self._resized < _RESIZING_SECONDS:
            return []
        self._resized = now
        held = {
            name: Held(slot.seat, slot.home is not None, slot.since)
            for name, slot in self.slots.items()
            if not slot.retired
        }
        found = changes(held, self._seats, demand, self._most, now)
        retired: list[SlotRetired] = []
        for name in found.close:
            if self.slots[name].home is None:
                self.opening = {ref: n for ref, n in self.opening.items() if n != name}
                self.dismiss(name)
            else:
                retired.append(self.retire(name))
        for kind in found.ask:
            self._open(kind)
        self._wanted = len(held) - len(found.close) + len(found.ask)
        return retired

    def opened(self, reference: Any) -> SlotOpened | None:
        """Takes in an actor that has answered; asks for another where it failed instead.

        Raises:
            UsageError: No actor can be made, or it differs from this process.
        """
        name = self.opening.pop(reference)
        slot = self.slots[name]
        try:
            slot.home = home = ray.get(reference)
        except RayError as error:
            check_own_node(error)
            self.dismiss(name)
            tries = slot.tries + (not is_node_loss(error))
            if tries < _OPENING_TRIES:
                self._open(slot.seat, tries)
            elif self.counts[0]:  # A starved node, say: the others go on without it.
                self._wanted, self._most = self._wanted - 1, self._most - 1
            else:
                raise UsageError(
                    f"no worker can be started on the cluster: {reason(error)}",
                    "mend what the message names, and look into the worker's log on the node "
                    "(`ray logs`); finished cells are kept",
                ) from error
            return None
        check_versions(self._versions, home.versions, home.address)
        slot.since = time.monotonic()
        return SlotOpened(name, str(home), home.node, slot.seat)

    def rename(self, name: str) -> SlotOpened:
        """Gives an actor another name, since what ran in its place is lost; it itself is not."""
        slot = self.slots.pop(name)
        renamed = next(self._names)
        slot.abandoned, slot.since = "", time.monotonic()
        self.slots[renamed] = slot
        node = "" if slot.home is None else slot.home.node
        return SlotOpened(renamed, str(slot.home), node, slot.seat)

    def retire(self, name: str) -> SlotRetired:
        """Has an actor get no other task."""
        self.slots[name].retired = True
        return SlotRetired(name)

    def replace(self, slot: Slot) -> None:
        """Asks for a substitute; where actors come with the work, what is left of it says so."""
        if not self._elastic:
            self._open(slot.seat)

    def dismiss(self, name: str) -> Slot:
        """Kills an actor, and returns what was known of it."""
        slot = self.slots.pop(name)
        ray.kill(slot.actor)
        return slot

    def _open(self, kind: str, tries: int = 0) -> None:
        """Asks for one more actor of a kind; the demand is what an autoscaler sees."""
        name, seat = next(self._names), self._seats[kind]
        # Every node with such GPUs has one of these; a trace of it says that they are meant.
        resources = {f"{GPU_KIND}{seat.kind}": 0.001} if seat.kind else None
        options = self._actor.options(
            num_cpus=self._threads, num_gpus=seat.gpus, resources=resources, max_restarts=0
        )
        actor = options.remote(*self._arguments)
        self.slots[name] = Slot(actor, kind, tries, time.monotonic())
        self.opening[actor.ready.remote()] = name
