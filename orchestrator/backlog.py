"""The backlog: how every cell stands, and which of those that wait goes next.

Invariants: cells of a group go together; a group goes only when all that its waiting cells need is
done; whatever waits is queued or promised as soon as it can run, or blocked by a failure.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from jobs.cells import Cell
from orchestrator.messages import to_fetch
from orchestrator.ready import Group, Ready

_RANKS_PER_DOUBLING = 10

State = Literal["waiting", "running", "done", "failed", "blocked"]


class Backlog:
    """Keeps account of cells.

    Long chains go first, then checkpoints that were begun, then the order of the plan.

    Args:
        cells: All cells of the plan, each after those that it needs.
        done: Cells that are done already.
        failed: Cells that were given up earlier and are left alone.
        seats: In which kind of slot each group runs, where there are several kinds.
        chains: Seconds of the longest chain that begins with each group; empty if unknown.

    Attributes:
        cells: The cells by id.
        states: How each cell stands.
        left: How many wait or run.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        done: Collection[str],
        failed: Collection[str],
        seats: Mapping[str, str],
        chains: Mapping[str, float],
    ) -> None:
        self.cells = {cell.id: cell for cell in cells}
        self.states: dict[str, State] = {}
        self.left = 0
        self._groups: dict[str, Group] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        self._ready: dict[str, Ready] = defaultdict(Ready)
        self._seat_of_slot: dict[str, str] = {}
        self._delayed: list[tuple[float, tuple[int, ...], Group]] = []
        groups: dict[str, Group] = {}
        for cell in self.cells.values():
            state: State = (
                "done" if cell.id in done else "failed" if cell.id in failed else "waiting"
            )
            self.states[cell.id] = state
            self.left += state == "waiting"
            seat = seats.get(cell.group, "")
            group = groups.setdefault(cell.group, Group((len(groups),), seat))
            group.cells.append(cell.id)
            group.fetches = group.fetches or bool(to_fetch(cell))
            group.begun |= state != "waiting"
            self._groups[cell.id] = group
            for need in cell.needs:
                self._dependents[need].append(cell.id)
        if chains:
            for name, group in groups.items():
                group.priority = _rank_of(chains.get(name, 0.0))
        else:
            self._rank_by_cells()
        for cell_id in [c for c, state in self.states.items() if state == "failed"]:
            self._block_dependents(cell_id)
        for group in groups.values():
            self._queue(group, 0.0)

    @property
    def waits(self) -> bool:
        """Whether something can run now or later without anything else ending."""
        return any(self._ready.values()) or bool(self._delayed)

    @property
    def queued(self) -> Mapping[str, int]:
        """How many groups of each seat can run now."""
        return {seat: len(ready) for seat, ready in self._ready.items()}

    @property
    def next_retry(self) -> float | None:
        """When a delayed group is due."""
        return self._delayed[0][0] if self._delayed else None

    def wake(self, now: float) -> None:
        """Queues the groups whose retry is due."""
        while self._delayed and self._delayed[0][0] <= now:
            self._queue(heapq.heappop(self._delayed)[-1], now)

    def open(self, slot: str, cache: str, seat: str) -> None:
        """Takes in a slot that may be given promises, which cache it fetches into, and its kind."""
        self._seat_of_slot[slot] = seat
        self._ready[seat].open(slot, cache)

    def close(self, slot: str) -> None:
        """Gives the promises of a slot back; it gets no other."""
        if slot in self._seat_of_slot:
            self._ready[self._seat_of_slot.pop(slot)].close(slot)

    def take(self, slot: str, now: float) -> list[Cell]:
        """Returns the cells that a free slot runs next; none if none can run."""
        while (group := self._ready[self._seat_of_slot[slot]].take(slot)) is not None:
            if cells := self._runnable(group, now):
                group.begun = True
                self.states.update(dict.fromkeys((cell.id for cell in cells), "running"))
                return cells
        return []

    def promise(self, now: float) -> Iterator[tuple[str, list[Cell]]]:
        """Promises what must be fetched to slots with room, and yields slot and cells of each."""
        for ready in self._ready.values():
            while (group := ready.next_to_fetch()) is not None:
                if cells := self._runnable(group, now):
                    yield ready.promise(group), cells

    def finish(self, cell_id: str, now: float) -> None:
        """Ends a running cell well and queues what waited for it."""
        self.states[cell_id] = "done"
        self.left -= 1
        for dependent in self._dependents[cell_id]:
            group = self._groups[dependent]
            group.missing.discard(cell_id)
            if not group.missing:
                self._queue(group, now)

    def fail(self, cell_id: str, now: float) -> None:
        """Gives a running cell up, and all that hangs on it."""
        self.states[cell_id] = "failed"
        self.left -= 1
        for group in self._block_dependents(cell_id):
            self._queue(group, now)

    def put_back(self, cell_id: str, not_before: float) -> None:
        """Has a running cell wait again; the longest wait among siblings counts for all."""
        self.states[cell_id] = "waiting"
        self._delay(self._groups[cell_id], not_before)

    def isolate(self, cell_id: str) -> None:
        """Has each cell of this one's group run alone from now on."""
        group = self._groups[cell_id]
        self._ready[group.seat].revoke(group)
        for number, sibling in enumerate(group.cells):
            order = (*group.order, number)
            alone = replace(group, order=order, cells=[sibling], missing=set(), ready=False)
            self._groups[sibling] = alone
            self._delay(alone, alone.not_before)
        group.cells = []

    def _runnable(self, group: Group, now: float) -> list[Cell]:
        """Returns the cells of a group that wait; none if a sibling failed since it was queued."""
        if group.not_before > now:
            return []
        return [self.cells[c] for c in group.cells if self.states[c] == "waiting"]

    def _delay(self, group: Group, not_before: float) -> None:
        self._ready[group.seat].revoke(group)
        group.not_before = max(group.not_before, not_before)
        heapq.heappush(self._delayed, (group.not_before, group.order, group))

    def _queue(self, group: Group, now: float) -> None:
        """Queues a group whose waiting cells all can run."""
        if group.ready or now < group.not_before:
            return
        waiting = [c for c in group.cells if self.states[c] == "waiting"]
        group.missing = {
            need
            for c in waiting
            for need in self.cells[c].needs
            if self.states.get(need, "done") != "done" and need not in waiting
        }
        if waiting and not group.missing:
            self._ready[group.seat].add(group)

    def _block_dependents(self, cell_id: str) -> list[Group]:
        """Marks all that hangs on a failed cell; returns the groups that lost cells."""
        touched: dict[tuple[int, ...], Group] = {}
        ended = [cell_id]
        while ended:
            for dependent in self._dependents[ended.pop()]:
                if self.states[dependent] == "waiting":
                    self.states[dependent] = "blocked"
                    self.left -= 1
                    group = self._groups[dependent]
                    touched[group.order] = group
                    ended.append(dependent)
        return list(touched.values())

    def _rank_by_cells(self) -> None:
        """Gives each group the length of the longest chain of cells that hangs on it."""
        length: dict[str, int] = {}
        for cell_id in reversed(self.cells):
            after = (length[d] for d in self._dependents[cell_id] if d in length)
            length[cell_id] = 1 + max(after, default=0)
            if self.states[cell_id] == "waiting":
                group = self._groups[cell_id]
                group.priority = max(group.priority, length[cell_id])


def _rank_of(seconds: float) -> int:
    """Returns a rank that grows by one with every 7 %.

    Estimates are no finer, and of chains that are about as long the one goes first whose files are
    there.
    """
    return int(_RANKS_PER_DOUBLING * math.log2(1 + seconds))
