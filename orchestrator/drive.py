"""The loop that joins scheduler, executor, store and progress. Rows are kept before they count."""

import time
from pathlib import Path
from typing import Protocol

from jobs.events import Event, Finished
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.schedule import Action, Quarantine, Scheduler, SlotLost, SlotOpened, TaskEnded
from orchestrator.store import Store
from workers.run import Task

_LONGEST_WAIT_SECONDS = 1.0
_FRUGAL_DIVISOR = 4
_WORKERS_PER_NODE = 4


class Executor(Protocol):
    """Where tasks run: in process, or on a Ray cluster."""

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in a free slot."""

    def next_event(self, timeout: float) -> Event | SlotOpened | SlotLost | TaskEnded | None:
        """Returns the next event, or None after `timeout` seconds without one."""

    def close(self) -> None:
        """Gives back what the executor holds."""


def threads_per_worker(cores: int) -> int:
    """Returns the CPU threads of a worker, so that a node's workers don't fight over its cores.

    Both executors follow it, since the last bits of a matrix product depend on the thread count.
    """
    return max(1, cores // _WORKERS_PER_NODE)


def drive(
    plan: Plan, store: Store, executor: Executor, view: ProgressView, *, device: str, threads: int
) -> Scheduler:
    """Runs every cell of a plan that is neither done nor failed.

    Args:
        plan: The cells.
        store: Where rows go; its ledger says what is left.
        executor: Where cells run.
        view: What the user sees.
        device: Device of the tasks.
        threads: CPU threads of a task.

    Returns:
        The scheduler, whose states say how each cell ended.

    Raises:
        StoreError: Rows cannot be written.
    """
    ledger = store.ledger(plan.cells)
    scheduler = Scheduler(plan.cells, ledger.done, ledger.failed)
    by_id = {cell.id: cell for cell in plan.cells}
    batch_size = plan.study.forward.batch_size

    def act(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Quarantine):
                store.fail(action.cell, action.failure, action.attempts)
                view.failed(action.cell, action.failure)
                continue
            size = max(1, batch_size // _FRUGAL_DIVISOR) if action.frugal else batch_size
            task = Task(action.cells, Path(store.root), device, threads, size)
            executor.start(action.slot, task)

    with view:
        while not scheduler.finished:
            now = time.monotonic()
            wake = scheduler.wake_time
            timeout = _LONGEST_WAIT_SECONDS if wake is None else max(0.0, wake - now)
            event = executor.next_event(min(timeout, _LONGEST_WAIT_SECONDS))
            if isinstance(event, Finished):
                store.commit(by_id[event.cell_id], event)
            view.show(event, scheduler.states)
            now = time.monotonic()
            act(scheduler.assign(now) if event is None else scheduler.handle(event, now))
            if scheduler.stuck:
                left = [c.label for c in plan.cells if scheduler.states[c.id] == "waiting"]
                raise RuntimeError(f"{len(left)} cells wait for each other, first {left[0]}")
    return scheduler
