"""Workers that write rows themselves, where the results are behind a URL; the driver gets receipts.

Rows then travel once, from where they are made to where they stay.
"""

from collections.abc import Generator
from dataclasses import replace

from jobs.errors import StoreError
from jobs.events import Alive, Event, Failed, Finished
from jobs.place import Place
from orchestrator.store import Store
from workers.artifacts import Files
from workers.stream import stream_task
from workers.telling import Task


def stream_receipts(place: Place, task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    """Runs a task as `workers.stream.stream_task` does, and commits each finished cell.

    Yields:
        The task's events. A finished cell comes without its rows; one whose rows couldn't be
        written comes as failed, by infrastructure.
    """
    store = Store(place, write=False)
    cells = {cell.id: cell for cell in task.cells}
    for event in stream_task(task, files):
        if not isinstance(event, Finished):
            yield event
            continue
        try:
            store.commit(cells[event.cell_id], event)
        except StoreError as error:
            yield Failed(event.cell_id, "infrastructure", error.message, error.remedy)
        else:
            yield replace(event, tables=())
