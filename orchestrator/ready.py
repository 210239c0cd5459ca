"""The groups that can run now: queued for all, or promised to a slot that will run them next.

Invariants: a group is queued or promised to one slot, never both; a slot has at most AHEAD
promises; a promise moves a download forward and holds nothing back, for any slot may take it over.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field

AHEAD = 2
"""Promises of a slot: while one is fetched there is a next, so that the transfers don't pause."""

_Queue = list[tuple[int, bool, tuple[int, ...], "Group"]]
_Offers = list[tuple[int, int, "Group"]]


@dataclass(eq=False)
class Group:
    """Cells that are run together.

    Attributes:
        order: Its place in the plan.
        seat: In which kind of slot it runs.
        cells: All of them.
        fetches: Whether files on the hub must be fetched for them.
        priority: Grows with the length of the longest chain that begins with it.
        missing: What its waiting cells still need.
        not_before: When it may be tried again.
        begun: Whether one of its cells was tried or is done.
        ready: Whether it is queued or promised.
        promise: Number of the promise; None if it isn't promised.
    """

    order: tuple[int, ...]
    seat: str = ""
    cells: list[str] = field(default_factory=list)
    fetches: bool = False
    priority: int = 0
    missing: set[str] = field(default_factory=set)
    not_before: float = 0.0
    begun: bool = False
    ready: bool = False
    promise: int | None = None


class Ready:
    """Keeps groups in order: long chains first, then what was begun, then the order of the plan."""

    def __init__(self) -> None:
        self._at_hand: _Queue = []
        self._to_fetch: _Queue = []
        self._caches: dict[str, str] = {}
        self._promised: dict[str, dict[Group, None]] = {}
        self._holders: dict[Group, str] = {}
        self._room: tuple[dict[str, None], ...] = tuple({} for _ in range(AHEAD))
        self._offers: _Offers = []
        self._offers_of: dict[str, _Offers] = defaultdict(list)
        self._promises = 0

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._at_hand) + len(self._to_fetch) + len(self._holders)

    def open(self, slot: str, cache: str) -> None:
        """Takes in a slot that may be given promises, and which cache it fetches into."""
        self._caches[slot], self._promised[slot] = cache, {}
        self._room[0][slot] = None

    def close(self, slot: str) -> None:
        """Forgets a slot, whose promises are queued again."""
        for group in self._promised.pop(slot, {}):
            del self._holders[group]
            group.promise = None
            self._push(group)
        for slots in self._room:
            slots.pop(slot, None)
        self._caches.pop(slot, None)

    def add(self, group: Group) -> None:
        """Queues a group that is neither queued nor promised."""
        group.ready = True
        self._push(group)

    def revoke(self, group: Group) -> None:
        """Takes the promise of a group back, if there is one: it can't run now."""
        if group.promise is not None:
            self._leave(group)

    def take(self, slot: str) -> Group | None:
        """Takes out what a free slot runs next; None if there is nothing.

        Longer chains go first, wherever they are: a promise to a busy slot may not delay them.
        Among equals the slot takes what it was promised, then what is queued, then the promise
        that was made last, into its own cache if there is one: that is most likely not yet fetched,
        and the slot that has it is busy for longest.
        """
        own = max(self._promised[slot], key=lambda group: group.priority, default=None)
        queue = self._first_queue()
        held = self._best_offer(self._offers)
        best = max(
            own.priority if own else 0,
            -queue[0][0] if queue else 0,
            held.priority if held else 0,
        )
        if own and own.priority == best:
            return self._leave(own)
        if queue and -queue[0][0] == best:
            group = heapq.heappop(queue)[-1]
            group.ready = False
            return group
        near = self._best_offer(self._offers_of[self._caches[slot]])
        if near and near.priority == best:
            return self._leave(near)
        return self._leave(held) if held else None

    def next_to_fetch(self) -> Group | None:
        """Takes out the next group to promise; None if there is none, or no slot for it."""
        if not self._to_fetch or not any(self._room):
            return None
        group = heapq.heappop(self._to_fetch)[-1]
        group.ready = False
        return group

    def promise(self, group: Group) -> str:
        """Promises a group to a slot with the fewest promises, and returns the slot."""
        slot = next(slot for slots in self._room for slot in slots)
        group.ready, group.promise = True, self._promises
        self._promises += 1
        self._holders[group] = slot
        self._promised[slot][group] = None
        self._file(slot)
        offer = (-group.priority, -group.promise, group)
        heapq.heappush(self._offers, offer)
        if cache := self._caches[slot]:
            heapq.heappush(self._offers_of[cache], offer)
        return slot

    def _push(self, group: Group) -> None:
        queue = self._to_fetch if group.fetches else self._at_hand
        heapq.heappush(queue, (-group.priority, not group.begun, group.order, group))

    def _leave(self, group: Group) -> Group:
        """Ends a promise; the group is on its own then."""
        slot = self._holders.pop(group)
        del self._promised[slot][group]
        self._file(slot)
        group.ready, group.promise = False, None
        return group

    def _file(self, slot: str) -> None:
        """Files a slot under the number of its promises, which has changed."""
        for slots in self._room:
            slots.pop(slot, None)
        if (promises := len(self._promised[slot])) < AHEAD:
            self._room[promises][slot] = None

    def _first_queue(self) -> _Queue:
        """Returns the queue whose head goes first."""
        if self._at_hand and self._to_fetch:
            return min(self._at_hand, self._to_fetch, key=lambda queue: queue[0][:3])
        return self._at_hand or self._to_fetch

    def _best_offer(self, offers: _Offers) -> Group | None:
        """Returns the group of the longest chain that was promised last."""
        while offers:
            _, number, group = offers[0]
            if group.promise == -number:
                return group
            heapq.heappop(offers)  # It was taken, or given back.
        return None
