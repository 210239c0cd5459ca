"""Slots: which are free, what the busy ones run, and which of those are overdue.

Invariants: a slot is free or runs one task, and a cell runs in one slot at a time; a slot is
abandoned at most once; one that is retired or abandoned gets no other task.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.messages import Abandon, Action, Release

SILENCE_SECONDS = 60.0
"""A busy slot that isn't heard for so long is abandoned; a worker speaks every few seconds."""


class Limit(NamedTuple):
    """Seconds without headway after which a cell of that kind is taken to hang."""

    seconds: float
    kind: str


@dataclass
class _Task:
    """What a busy slot runs.

    Attributes:
        limits: Limit of each of its cells, ended ones too.
        cells: Those that have not ended, and whether each was started.
        heard: When the slot was last heard.
        headway: When there was last news of a cell.
        look: When to look at the slot next: it can't be overdue earlier.
        retired: Whether the slot gets no other task.
        abandoned: Whether the slot's loss was asked for.
    """

    limits: Mapping[str, Limit]
    cells: dict[str, bool]
    heard: float
    headway: float
    look: float = 0.0
    retired: bool = False
    abandoned: bool = False


class Slots:
    """Keeps account of slots and of their tasks.

    Attributes:
        running: Slot of each running cell.
        occupied: How many slots of each kind run a task.
    """

    def __init__(self) -> None:
        self.running: dict[str, str] = {}
        self.occupied: Counter[str] = Counter()
        self._free: dict[str, dict[str, None]] = defaultdict(dict)
        self._seats: dict[str, str] = {}
        self._tasks: dict[str, _Task] = {}
        self._looks: list[tuple[float, str]] = []

    @property
    def free(self) -> list[str]:
        """Of each kind the slot that was freed last; none of a kind whose slots are all busy."""
        return [next(reversed(slots)) for slots in self._free.values() if slots]

    @property
    def busy(self) -> bool:
        """Whether a slot runs a task."""
        return bool(self._tasks)

    def open(self, slot: str, seat: str = "") -> None:
        """Takes in a free slot of a kind."""
        self._seats[slot] = seat
        self._free[seat][slot] = None

    def begin(self, slot: str, limits: Mapping[str, Limit], now: float) -> None:
        """Has a free slot run a task.

        Args:
            slot: The slot.
            limits: The task's cells, and how long each may go without headway.
            now: When it begins.
        """
        del self._free[self._seats[slot]][slot]
        self.occupied[self._seats[slot]] += 1
        self._tasks[slot] = _Task(limits, dict.fromkeys(limits, False), heard=now, headway=now)
        self.running.update(dict.fromkeys(limits, slot))
        self._look_at(slot, now)

    def hear(self, slot: str, now: float) -> None:
        """Notes that a slot was heard."""
        if slot in self._tasks:
            self._tasks[slot].heard = now

    def advance(self, cell_id: str, now: float) -> None:
        """Notes that there is news of a running cell: it is at work."""
        task = self._tasks[self.running[cell_id]]
        task.heard = task.headway = now
        task.cells[cell_id] = True

    def leave(self, cell_id: str) -> None:
        """Takes a cell that has ended out of its task."""
        del self._tasks[self.running.pop(cell_id)].cells[cell_id]

    def cells(self, slot: str) -> list[str]:
        """Returns the cells of a slot that have not ended."""
        return list(self._tasks[slot].cells) if slot in self._tasks else []

    def at_work(self, slot: str) -> list[str]:
        """Returns the cells that a slot works on: those that were started, else all it has."""
        cells = self._tasks[slot].cells if slot in self._tasks else {}
        return [c for c, started in cells.items() if started] or list(cells)

    def retire(self, slot: str) -> list[Action]:
        """Releases a free slot; has a busy one end its task first."""
        if slot in self._tasks:
            self._tasks[slot].retired = True
        elif slot in self._seats:
            self.lose(slot)
            return [Release(slot)]
        return []

    def end(self, slot: str) -> list[Action]:
        """Frees a slot whose task has ended; releases a retired one."""
        task = self._tasks.pop(slot, None)
        if task is None:
            return []
        self.occupied[self._seats[slot]] -= 1
        if task.abandoned:  # Its loss is on its way.
            return []
        if task.retired:
            self.lose(slot)
            return [Release(slot)]
        self._free[self._seats[slot]][slot] = None
        return []

    def lose(self, slot: str) -> None:
        """Forgets a slot."""
        seat = self._seats.pop(slot, "")
        self.occupied[seat] -= self._tasks.pop(slot, None) is not None
        self._free[seat].pop(slot, None)

    def overdue(self, now: float) -> list[Abandon]:
        """Abandons the slots that were silent or without headway for too long."""
        abandoned: list[Abandon] = []
        while (look := self.next_look()) is not None and look <= now:
            abandoned += self._look_at(heapq.heappop(self._looks)[1], now)
        return abandoned

    def next_look(self) -> float | None:
        """Returns when a slot may be overdue, at the earliest."""
        while self._looks:
            look, slot = self._looks[0]
            task = self._tasks.get(slot)
            if task and task.look == look and not task.abandoned:
                return look
            heapq.heappop(self._looks)  # Of a task that has ended.
        return None

    def _look_at(self, slot: str, now: float) -> list[Abandon]:
        """Abandons a slot that is overdue; else says when to look again."""
        task = self._tasks[slot]
        at_work = [task.limits[c] for c, started in task.cells.items() if started]
        limit = max(at_work or task.limits.values())
        silent = task.heard + SILENCE_SECONDS
        idle = task.headway + limit.seconds
        if now < silent and now < idle:
            # News may put a cell with a shorter limit in charge, but can't make it due before this.
            pace = min(task.limits.values()).seconds
            task.look = min(silent, idle, now + pace)
            heapq.heappush(self._looks, (task.look, slot))
            return []
        task.abandoned = True
        if now >= silent:
            message = (
                f"nothing was heard of the worker for {now - task.heard:.0f} s: it hangs, or its "
                "machine can't be reached"
            )
        else:
            message = (
                f"no headway for {now - task.headway:.0f} s, though the worker is alive: the "
                f"computation hangs, or --limit {limit.kind}={limit.seconds:.0f} is too little"
            )
        return [Abandon(slot, message)]
