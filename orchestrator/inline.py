"""The executor without Ray: one slot, in this process."""

import time
from collections.abc import Generator

from jobs.events import Event
from orchestrator.schedule import SlotLost, SlotOpened, TaskEnded
from workers.run import Task, stream_task

_SLOT = "inline"


class InlineExecutor:
    """Runs one task at a time in a thread of this process."""

    def __init__(self) -> None:
        self._stream: Generator[Event, None, None] | None = None
        self._opened = False

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in the only slot."""
        self._stream = stream_task(task)

    def next_event(self, timeout: float) -> Event | SlotOpened | SlotLost | TaskEnded | None:
        """Returns the next event; None after `timeout` seconds in which nothing ran."""
        if not self._opened:
            self._opened = True
            return SlotOpened(_SLOT)
        if self._stream is None:
            time.sleep(timeout)
            return None
        event = next(self._stream, None)
        if event is None:
            self._stream = None
            return TaskEnded(_SLOT)
        return event

    def close(self) -> None:
        """Stops the task, so that none computes while the process is torn down."""
        if self._stream is not None:
            self._stream.close()
