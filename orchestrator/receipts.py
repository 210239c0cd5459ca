"""Workers that write rows themselves, where the results are behind a URL; the driver gets receipts.

Rows then travel once, from where they are made to where they stay. A worker whose store is out of
reach keeps them and waits, and says meanwhile that it is alive.
"""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache, partial

from jobs.errors import StoreError
from jobs.events import Alive, Event, Failed, Finished
from jobs.outage import outlast
from jobs.place import Place
from orchestrator.store import Store
from workers.artifacts import Files
from workers.stream import stream_task
from workers.telling import Task

_ALIVE_SECONDS = 2.0


def stream_receipts(place: Place, task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    """Runs a task as `workers.stream.stream_task` does, and commits each finished cell.

    Yields:
        The task's events. A finished cell comes without its rows; one whose rows couldn't be
        written comes as failed, by infrastructure.
    """
    cells = {cell.id: cell for cell in task.cells}

    @cache
    def store() -> Store:
        return outlast(lambda: Store(place, write=False))

    def commit(event: Finished) -> None:
        store().commit(cells[event.cell_id], event)

    for event in stream_task(task, files):
        if not isinstance(event, Finished):
            yield event
            continue
        try:
            yield from _alive_during(partial(commit, event))
        except StoreError as error:
            yield Failed(event.cell_id, "infrastructure", error.message, error.remedy)
        else:
            yield replace(event, tables=())


def _alive_during(do: Callable[[], None]) -> Generator[Alive, None, None]:
    """Calls a function, and says every other second that this worker is alive."""
    with ThreadPoolExecutor(1) as aside:
        pending = aside.submit(do)
        while not wait([pending], _ALIVE_SECONDS).done:
            yield Alive()
        pending.result()
