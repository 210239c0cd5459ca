"""The executor without Ray: one slot, in this process."""

import time
from collections.abc import Callable, Generator, Mapping

from jobs.cells import Cell
from jobs.events import Alive, Event
from orchestrator.messages import (
    SlotAlive,
    SlotEvent,
    SlotLost,
    SlotOpened,
    TaskEnded,
    to_fetch,
)
from orchestrator.prefetch import Prefetcher
from workers.artifacts import Files
from workers.stream import stream_task
from workers.telling import Task

Body = Callable[[Task, Files], Generator[Event | Alive, None, None]]
"""Runs a task and yields its events."""

_SLOT = "inline"


class InlineExecutor:
    """Runs one task at a time in a thread of this process.

    Args:
        files: Where artifacts lie.
        body: What runs a task.
    """

    def __init__(self, files: Files, body: Body = stream_task) -> None:
        self._files, self._body = files, body
        self._prefetcher = Prefetcher(files)
        self._stream: Generator[Event | Alive, None, None] | None = None
        self._told: list[SlotEvent] = [SlotOpened(_SLOT, "this process")]

    @property
    def workers(self) -> tuple[int, int]:
        """How many workers are there, and how many are wanted."""
        return 1, 1

    def resize(self, demand: Mapping[str, int]) -> None:
        """Does nothing: there is one slot."""

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in the only slot."""
        self._prefetcher.begin(task.cells)
        self._stream = self._body(task, self._files)

    def prepare(self, slot: str, cells: tuple[Cell, ...]) -> None:
        """Fetches in the background what will be needed for these cells."""
        self._prefetcher.promise(to_fetch(cells[0]))

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        """Returns the next event; None after `timeout` seconds in which nothing ran."""
        if self._told:
            return self._told.pop(0)
        if self._stream is None:
            time.sleep(timeout)
            return None
        event = next(self._stream, None)
        if event is None:
            self._stream = None
            return TaskEnded(_SLOT)
        return SlotAlive(_SLOT) if isinstance(event, Alive) else event

    def abandon(self, slot: str, message: str) -> None:
        """Leaves the task: a thread can't be killed, but nobody listens to it any more."""
        self._stop()
        self._told += [SlotLost(slot, "infrastructure", message), SlotOpened(slot, "this process")]

    def release(self, slot: str) -> None:
        """Closes the slot; never asked for, since this process has no notice of its end."""
        self.close()

    def close(self) -> None:
        """Stops the task and the fetching, so that none works while the process is torn down."""
        self._stop()
        self._prefetcher.close()

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
