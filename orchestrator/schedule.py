"""The scheduler: a pure state machine. Events come in, actions go out; the clock is given.

Invariants: a slot runs one task at a time, and a cell runs in one slot at a time; a cell is started
only when all it needs is done; every cell ends as done, failed or blocked by a failure; no cause is
charged beyond its budget, and no cell is given up for a loss that another may have caused; what is
fetched ahead is what a busy slot was promised, and no slot is free while a cell can run.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Event, Failed, Finished, Progress, Started
from orchestrator.backlog import Backlog, State
from orchestrator.messages import (
    Action,
    Prepare,
    Quarantine,
    SlotAlive,
    SlotEvent,
    SlotLost,
    SlotOpened,
    SlotRetired,
    Start,
    TaskEnded,
)
from orchestrator.slots import Limit, Slots

RETRIES: Mapping[Cause, int | None] = {
    "preempted": None,
    "infrastructure": 3,
    "memory": 1,
    "data": 0,
    "diverged": 0,
    "user": 0,
}
"""How often a cell is tried again after each cause; None: for ever."""

_FIRST_BACKOFF_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 60.0
_MOST_SHARED_LOSSES = 2


class Scheduler:
    """Decides what runs where.

    Args:
        cells: All cells of the plan, each after those that it needs.
        done: Cells that are done already.
        failed: Cells that were given up earlier and are left alone.
        retries: Budget of each cause.
        limits: Seconds without headway after which a cell is taken to hang, by kind, where they
            differ from the kind's `patience`.
        seats: In which kind of slot each group of cells runs, where there are several kinds.
        chains: About how many seconds the longest chain takes that begins with each group of
            cells; without, chains are as long as they have cells.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        done: Collection[str] = (),
        failed: Collection[str] = (),
        retries: Mapping[Cause, int | None] = RETRIES,
        limits: Mapping[str, float] | None = None,
        seats: Mapping[str, str] | None = None,
        chains: Mapping[str, float] | None = None,
    ) -> None:
        self._backlog = Backlog(cells, done, failed, seats or {}, chains or {})
        self._slots = Slots()
        self._retries = retries
        self._limits = limits or {}
        self._charges: dict[str, Counter[Cause]] = defaultdict(Counter)
        self._shared_losses: Counter[str] = Counter()
        self._draining = False

    @property
    def states(self) -> Mapping[str, State]:
        """How each cell stands."""
        return self._backlog.states

    @property
    def running(self) -> Mapping[str, str]:
        """Slot of each running cell."""
        return self._slots.running

    @property
    def demand(self) -> Mapping[str, int]:
        """How many slots of each kind have or could have work now."""
        found = Counter(self._slots.occupied)
        if not self._draining:
            found.update(self._backlog.queued)
        return found

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self._backlog.left == 0

    @property
    def drained(self) -> bool:
        """Whether it drains and nothing runs any more."""
        return self._draining and not self._slots.busy

    @property
    def stuck(self) -> bool:
        """Whether cells are left that wait for each other: a defect of the plan."""
        at_work = self.running or self._backlog.waits
        return bool(self._backlog.left and self._slots.free and not at_work)

    @property
    def wake_time(self) -> float | None:
        """When to call `tick`: a retry is due, or a slot may be overdue."""
        times = (self._backlog.next_retry, self._slots.next_look())
        return min((time for time in times if time is not None), default=None)

    def drain(self) -> None:
        """Starts nothing any more, retries neither; what runs goes on and is taken in."""
        self._draining = True

    def handle(self, event: Event | SlotEvent, now: float) -> list[Action]:
        """Takes one event in and returns what to do.

        Args:
            event: What happened.
            now: Seconds on any clock that never goes back.
        """
        actions: list[Action] = []
        match event:
            case SlotOpened(slot, _, cache, seat):
                self._slots.open(slot, seat)
                self._backlog.open(slot, cache, seat)
            case SlotAlive(slot):
                self._slots.hear(slot, now)
            case SlotRetired(slot):
                self._backlog.close(slot)
                actions += self._slots.retire(slot)
            case SlotLost():
                actions += self._lose(event, now)
            case TaskEnded(slot):
                for cell_id in self._slots.cells(slot):
                    message = "the task ended without a word of it"
                    actions += self._charge(Failed(cell_id, "infrastructure", message), now)
                actions += self._slots.end(slot)
            case Started(cell_id) | Progress(cell_id) | Finished(cell_id) | Failed(cell_id):
                if cell_id in self.running:  # Else it has ended, and late words change nothing.
                    self._slots.advance(cell_id, now)
                    actions += self._conclude(event, now)
        return actions + self._start(now)

    def tick(self, now: float) -> list[Action]:
        """Returns what is due: slots to abandon, and retries.

        It is called when no event waits: a slot isn't silent while its words lie unread.
        """
        actions = self._slots.overdue(now)
        for action in actions:
            self._backlog.close(action.slot)
        return [*actions, *self._start(now)]

    def _start(self, now: float) -> list[Action]:
        """Fills the free slots; if none is left, has the busy ones fetch what may come next."""
        self._backlog.wake(now)
        actions: list[Action] = []
        if self._draining:
            return actions
        while begun := [
            (slot, cells) for slot in self._slots.free if (cells := self._backlog.take(slot, now))
        ]:
            for slot, cells in begun:
                self._slots.begin(slot, {cell.id: self._limit(cell) for cell in cells}, now)
                frugal = any(self._charges[c.id]["memory"] for c in cells if c.id in self._charges)
                actions.append(Start(slot, tuple(cells), frugal))
        for slot, cells in self._backlog.promise(now):
            actions.append(Prepare(slot, tuple(cells)))
        return actions

    def _limit(self, cell: Cell) -> Limit:
        work = cell.work
        return Limit(self._limits.get(work.kind, work.patience), work.kind)

    def _conclude(self, event: Event, now: float) -> list[Action]:
        """Ends a running cell if the event says so."""
        match event:
            case Finished(cell_id):
                self._slots.leave(cell_id)
                self._backlog.finish(cell_id, now)
            case Failed():
                return self._charge(event, now)
        return []

    def _lose(self, lost: SlotLost, now: float) -> list[Action]:
        """Charges the cells that a lost slot was working on; the others go back for free.

        Cells that were at work together are all suspects, and one of them may bring down every slot
        that it comes to. So none is given up for it: after a second such loss, or when one of them
        has no try left, each runs alone, and the next loss is its own.
        """
        suspects = self._slots.at_work(lost.slot)
        charged = set(suspects)
        if len(suspects) > 1 and self._retries[lost.cause] is not None:
            charged = {c for c in suspects if not self._is_spent(c, lost.cause)}
            group = self._backlog.cells[suspects[0]].group
            self._shared_losses[group] += 1
            if self._shared_losses[group] == _MOST_SHARED_LOSSES or len(charged) < len(suspects):
                self._backlog.isolate(suspects[0])
        actions: list[Action] = []
        for cell_id in self._slots.cells(lost.slot):
            if cell_id in charged:
                actions += self._charge(Failed(cell_id, lost.cause, lost.message), now)
            else:
                self._put_back(cell_id, now)
        self._backlog.close(lost.slot)
        self._slots.lose(lost.slot)
        return actions

    def _charge(self, failure: Failed, now: float) -> list[Action]:
        """Charges a failure to its running cell: another try, or the end of it."""
        cell_id, cause = failure.cell_id, failure.cause
        spent = self._is_spent(cell_id, cause)
        charges = self._charges[cell_id]
        charges[cause] += 1
        if spent:
            self._slots.leave(cell_id)
            self._backlog.fail(cell_id, now)
            return [Quarantine(self._backlog.cells[cell_id], failure, charges.total())]
        self._put_back(cell_id, now + _backoff(cause, charges[cause]))
        return []

    def _is_spent(self, cell_id: str, cause: Cause) -> bool:
        """Whether one more charge gives the cell up."""
        budget = self._retries[cause]
        return budget is not None and self._charges[cell_id][cause] >= budget

    def _put_back(self, cell_id: str, not_before: float) -> None:
        self._slots.leave(cell_id)
        self._backlog.put_back(cell_id, not_before)


def _backoff(cause: Cause, charges: int) -> float:
    """Returns how long a cell waits after a charge: a sick machine needs time, others don't."""
    if cause != "infrastructure":
        return 0.0
    doublings = min(charges - 1, 10)  # Far beyond the longest wait, and far from an overflow.
    return min(_FIRST_BACKOFF_SECONDS * 2**doublings, _LONGEST_BACKOFF_SECONDS)
