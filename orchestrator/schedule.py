"""The scheduler: a pure state machine. Events come in, actions go out; the clock is given.

Invariants: a cell runs in one slot at a time; a cell is started only when all it needs is done;
every cell ends as done, failed or blocked by a failure; no cause is charged beyond its budget.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Event, Failed, Finished, Started

State = Literal["waiting", "running", "done", "failed", "blocked"]

RETRIES: Mapping[Cause, int | None] = {
    "preempted": None,
    "infrastructure": 3,
    "memory": 1,
    "data": 0,
    "diverged": 0,
    "user": 0,
}
"""How often a cell is tried again after each cause; None: for ever."""

_BACKOFF_SECONDS = 2.0


@dataclass(frozen=True)
class SlotOpened:
    """A place that can run one task at a time is there."""

    slot: str


@dataclass(frozen=True)
class SlotLost:
    """A place is gone, with whatever it ran."""

    slot: str
    cause: Cause
    message: str


@dataclass(frozen=True)
class TaskEnded:
    """A place has reported all it will of its task and is free."""

    slot: str


@dataclass(frozen=True)
class Start:
    """Run these cells together in that slot; `frugal` after they ran out of memory."""

    slot: str
    cells: tuple[Cell, ...]
    frugal: bool


@dataclass(frozen=True)
class Quarantine:
    """Give a cell up."""

    cell: Cell
    failure: Failed
    attempts: int


Action = Start | Quarantine


@dataclass
class _Group:
    """Cells that are run together."""

    order: int
    cells: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    priority: int = 0
    not_before: float = 0.0
    queued: bool = False


class Scheduler:
    """Decides what runs where.

    Args:
        cells: All cells of the plan, each after those that it needs.
        done: Cells that are done already.
        failed: Cells that were given up earlier and are left alone.
        retries: Budget of each cause.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        done: Collection[str] = (),
        failed: Collection[str] = (),
        retries: Mapping[Cause, int | None] = RETRIES,
    ) -> None:
        self._cells = {cell.id: cell for cell in cells}
        self._retries = retries
        self.states: dict[str, State] = {}
        self._groups: dict[str, _Group] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        self._charges: dict[str, dict[Cause, int]] = defaultdict(lambda: defaultdict(int))
        self._free: deque[str] = deque()
        self._running: dict[str, dict[str, bool]] = {}
        self._slots: dict[str, str] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._delayed: list[tuple[float, str]] = []
        for cell in self._cells.values():
            state: State = (
                "done" if cell.id in done else "failed" if cell.id in failed else "waiting"
            )
            self.states[cell.id] = state
            for need in cell.needs:
                self._dependents[need].append(cell.id)
            if state == "waiting":
                group = self._groups.setdefault(cell.group, _Group(len(self._groups)))
                group.cells.append(cell.id)
        self._open = 0
        for cell_id, state in list(self.states.items()):
            if state == "failed":
                self._block_dependents(cell_id)
        self._open = sum(state == "waiting" for state in self.states.values())
        self._rank()
        for name in self._groups:
            self._requeue(name, 0.0)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self._open == 0

    @property
    def stuck(self) -> bool:
        """Whether cells are left that wait for each other: a defect of the plan."""
        at_work = any(self._running.values()) or self._ready or self._delayed
        return bool(self._open and self._free and not at_work)

    @property
    def wake_time(self) -> float | None:
        """When a delayed retry is due, if one waits."""
        return self._delayed[0][0] if self._delayed else None

    def handle(self, event: Event | SlotOpened | SlotLost | TaskEnded, now: float) -> list[Action]:
        """Takes one event in and returns what to do.

        Args:
            event: What happened.
            now: Seconds on any clock that never goes back.
        """
        actions: list[Action] = []
        match event:
            case SlotOpened(slot):
                self._free.append(slot)
            case Started(cell_id):
                if cell_id in self._slots:
                    self._running[self._slots[cell_id]][cell_id] = True
            case Finished(cell_id):
                self._end(cell_id, "done", now)
            case Failed():
                actions += self._charge(event, now)
            case TaskEnded(slot):
                for cell_id in self._running.pop(slot, {}):
                    silent = Failed(
                        cell_id, "infrastructure", "the task ended without a word of it"
                    )
                    actions += self._charge(silent, now)
                self._free.append(slot)
            case SlotLost(slot, cause, message):
                actions += self._lose(slot, cause, message, now)
        return actions + self.assign(now)

    def assign(self, now: float) -> list[Action]:
        """Returns the starts that are possible now; also called when `wake_time` has come."""
        while self._delayed and self._delayed[0][0] <= now:
            self._requeue(heapq.heappop(self._delayed)[1], now)
        starts: list[Action] = []
        while self._free and self._ready:
            name = heapq.heappop(self._ready)[2]
            group = self._groups[name]
            group.queued = False
            cells = [c for c in group.cells if self.states[c] == "waiting"]
            if not cells or now < group.not_before:  # A sibling failed after it was queued.
                continue
            slot = self._free.popleft()
            self._running[slot] = dict.fromkeys(cells, False)
            self._slots.update(dict.fromkeys(cells, slot))
            self.states.update(dict.fromkeys(cells, "running"))
            frugal = any(self._charges[c]["memory"] for c in cells if c in self._charges)
            starts.append(Start(slot, tuple(self._cells[c] for c in cells), frugal))
        return starts

    def _charge(self, failure: Failed, now: float) -> list[Action]:
        """Charges a failure to its cell: another try, or the end of it."""
        cell_id = failure.cell_id
        if self.states.get(cell_id) != "running":
            return []
        charges = self._charges[cell_id]
        charges[failure.cause] += 1
        budget = self._retries[failure.cause]
        if budget is None or charges[failure.cause] <= budget:
            self._end(cell_id, "waiting", now)
            return []
        self._end(cell_id, "failed", now)
        return [Quarantine(self._cells[cell_id], failure, sum(charges.values()))]

    def _lose(self, slot: str, cause: Cause, message: str, now: float) -> list[Action]:
        """Charges the cells that the slot was working on; the others go back for free."""
        if slot in self._free:
            self._free.remove(slot)
        tasks = self._running.pop(slot, {})
        guilty = [c for c, started in tasks.items() if started] or list(tasks)
        actions: list[Action] = []
        for cell_id in tasks:
            if cell_id in guilty:
                actions += self._charge(Failed(cell_id, cause, message), now)
            else:
                self._end(cell_id, "waiting", now)
        return actions

    def _end(self, cell_id: str, state: State, now: float) -> None:
        """Moves a running cell on, and whatever hangs on it."""
        if self.states.get(cell_id) != "running":
            return
        self._running.get(self._slots.pop(cell_id), {}).pop(cell_id, None)
        self.states[cell_id] = state
        self._open -= state != "waiting"
        match state:
            case "done":
                for dependent in self._dependents[cell_id]:
                    name = self._cells[dependent].group
                    if name in self._groups:
                        missing = self._groups[name].missing
                        missing.discard(cell_id)
                        if not missing:
                            self._requeue(name, now)
            case "failed":
                for name in self._block_dependents(cell_id):
                    self._requeue(name, now)
            case _:
                charges = self._charges.get(cell_id, {})
                tries = charges.get("infrastructure", 0)
                name = self._cells[cell_id].group
                if tries:
                    wake = now + _BACKOFF_SECONDS * 2 ** (tries - 1)
                    heapq.heappush(self._delayed, (wake, name))
                    self._groups[name].not_before = max(self._groups[name].not_before, wake)
                else:
                    self._requeue(name, now)

    def _requeue(self, name: str, now: float) -> None:
        """Queues a group whose cells all can run."""
        group = self._groups[name]
        waiting = [c for c in group.cells if self.states[c] == "waiting"]
        if group.queued or not waiting or now < group.not_before:
            return
        group.missing = {
            need
            for c in waiting
            for need in self._cells[c].needs
            if self.states.get(need, "done") != "done" and need not in waiting
        }
        if not group.missing:
            group.queued = True
            heapq.heappush(self._ready, (-group.priority, group.order, name))

    def _block_dependents(self, cell_id: str) -> set[str]:
        """Marks all that hangs on a failed cell; returns the groups that lost cells."""
        touched: set[str] = set()
        waiting = [cell_id]
        while waiting:
            for dependent in self._dependents[waiting.pop()]:
                if self.states[dependent] == "waiting":
                    self.states[dependent] = "blocked"
                    self._open -= 1
                    touched.add(self._cells[dependent].group)
                    waiting.append(dependent)
        return touched

    def _rank(self) -> None:
        """Gives each group the length of the longest chain of cells that hangs on it."""
        length: dict[str, int] = {}
        for cell_id in reversed(self._cells):
            after = (length[d] for d in self._dependents[cell_id] if d in length)
            length[cell_id] = 1 + max(after, default=0)
        for group in self._groups.values():
            group.priority = max(length[c] for c in group.cells)
