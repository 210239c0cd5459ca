"""The loop that joins scheduler, executor, store and progress. Rows are kept before they count."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.cells import Cell
from jobs.events import Event, Failed, Finished
from orchestrator.interrupt import noticing_interrupts
from orchestrator.messages import (
    Abandon,
    Action,
    Prepare,
    Quarantine,
    Release,
    SlotEvent,
    Start,
)
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.schedule import Scheduler
from orchestrator.store import Store
from workers.telling import Task

DRAIN_SECONDS = 30.0
"""How long an interrupted run waits for the cells that are at work."""

_LONGEST_WAIT_SECONDS = 1.0
_LONGEST_WITHOUT_TICK_SECONDS = 1.0  # Where events come without a pause.
_LONGEST_STEP_SECONDS = 2.0
_FRUGAL_DIVISOR = 4


class Executor(Protocol):
    """Where tasks run: in process, or on a Ray cluster."""

    @property
    def workers(self) -> tuple[int, int]:
        """How many workers are there, and how many are wanted."""

    def resize(self, demand: Mapping[str, int]) -> None:
        """Holds as many workers of each kind as have work, where they come and go."""

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in a free slot."""

    def prepare(self, slot: str, cells: tuple[Cell, ...]) -> None:
        """Fetches, beside what the slot runs, what it will need for these cells."""

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        """Returns the next event, or None after `timeout` seconds without one."""

    def abandon(self, slot: str, message: str) -> None:
        """Kills what runs in a slot; a SlotLost answers, and another slot opens."""

    def release(self, slot: str) -> None:
        """Closes a retired slot."""

    def close(self) -> None:
        """Gives back what the executor holds."""


class Watcher(Protocol):
    """Who is shown what happens; it must be quick, and raise nothing."""

    def show(self, event: Any, states: Mapping[str, str], workers: tuple[int, int]) -> None:
        """Takes note of an event, of the cells' states before it, and of the workers."""

    def placed(self, slot: str, cells: Sequence[Cell]) -> None:
        """Takes note of a task that was started."""

    def failed(self, cell: Cell, failure: Failed) -> None:
        """Takes note of a cell that was given up."""


@dataclass(frozen=True)
class How:
    """How cells are run; nothing of it is part of their identity.

    Attributes:
        device: Device of the tasks.
        threads: CPU threads of a task.
        limits: Seconds without headway after which a cell of a kind counts as hung, where they
            are not the kind's own.
        seats: On which kind of worker each group of cells runs, where there are several kinds.
        chains: Seconds of the longest chain that begins with each group of cells, where known.
    """

    device: str
    threads: int
    limits: Mapping[str, float] = field(default_factory=dict)
    seats: Mapping[str, str] = field(default_factory=dict)
    chains: Mapping[str, float] = field(default_factory=dict)


def drive(
    plan: Plan,
    store: Store,
    executor: Executor,
    view: ProgressView,
    how: How,
    others: Sequence[Watcher] = (),
) -> Scheduler:
    """Runs every cell of a plan that is neither done nor failed.

    Args:
        plan: The cells.
        store: Where rows go; its ledger says what is left.
        executor: Where cells run.
        view: What the user sees.
        how: Device, threads and time limits.
        others: Who else is shown what the user sees.

    Returns:
        The scheduler, whose states say how each cell ended.

    Raises:
        StoreError: Rows cannot be written.
        KeyboardInterrupt: An interrupt came. What was at work had `DRAIN_SECONDS` to finish; a
            second interrupt doesn't wait.
    """
    ledger = store.ledger(plan.cells)
    scheduler = Scheduler(
        plan.cells,
        ledger.done,
        ledger.failed,
        limits=how.limits,
        seats=how.seats,
        chains=how.chains,
    )
    by_id = {cell.id: cell for cell in plan.cells}
    watchers: tuple[Watcher, ...] = (view, *others)
    batch_size = plan.study.forward.batch_size

    def act(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Quarantine(cell, failure, attempts):
                    store.fail(cell, failure, attempts)
                    for watcher in watchers:
                        watcher.failed(cell, failure)
                case Start(slot, cells, frugal):
                    size = max(1, batch_size // _FRUGAL_DIVISOR) if frugal else batch_size
                    executor.start(slot, Task(cells, how.device, how.threads, size))
                    for watcher in watchers:
                        watcher.placed(slot, cells)
                case Prepare(slot, cells):
                    executor.prepare(slot, cells)
                case Abandon(slot, message):
                    executor.abandon(slot, message)
                case Release(slot):
                    executor.release(slot)

    clock = _AttentiveClock()
    give_up, ticked = None, clock.now()
    with view, noticing_interrupts() as interrupted:
        while not (scheduler.finished or scheduler.drained):
            if interrupted() and give_up is None:
                give_up = time.monotonic() + DRAIN_SECONDS
                scheduler.drain()
                view.draining(DRAIN_SECONDS)
                continue
            if give_up is not None and time.monotonic() >= give_up:
                break
            executor.resize(scheduler.demand)
            wake = scheduler.wake_time
            timeout = _LONGEST_WAIT_SECONDS if wake is None else max(0.0, wake - clock.now())
            event = executor.next_event(min(timeout, _LONGEST_WAIT_SECONDS))
            if isinstance(event, Finished) and event.tables:
                store.commit(by_id[event.cell_id], event)
            for watcher in watchers:
                watcher.show(event, scheduler.states, executor.workers)
            now = clock.now()
            if event is not None:
                act(scheduler.handle(event, now))
            if event is None or now - ticked >= _LONGEST_WITHOUT_TICK_SECONDS:
                act(scheduler.tick(now))
                ticked = now
            if scheduler.stuck:
                left = [c.label for c in plan.cells if scheduler.states[c.id] == "waiting"]
                raise RuntimeError(f"{len(left)} cells wait for each other, first {left[0]}")
    if give_up is not None and not scheduler.finished:
        raise KeyboardInterrupt
    return scheduler


class _AttentiveClock:
    """A clock that counts the loop's stalls as two seconds each, however long they took.

    While the loop was held up, by a slow store or by a machine that was put to sleep, workers spoke
    and nobody listened: they must not pass for silent.
    """

    def __init__(self) -> None:
        self._seconds, self._looked = 0.0, time.monotonic()

    def now(self) -> float:
        """Returns the seconds since the clock was made, less the stalls."""
        looked = time.monotonic()
        self._seconds += min(looked - self._looked, _LONGEST_STEP_SECONDS)
        self._looked = looked
        return self._seconds
