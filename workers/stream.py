"""A task's events as a stream. Its consumer's errors never pass for the task's, nor the reverse."""

import queue
import threading
from collections.abc import Generator
from contextlib import suppress

from jobs.events import Alive, Event
from workers.artifacts import Files
from workers.run import run_task
from workers.telling import Task

_STOPPING_SECONDS = 5.0
_ALIVE_EVERY_SECONDS = 5.0


def stream_task(task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    """Runs a task in a thread of its own and yields its events as they come.

    The consumer's errors thus never pass for the task's, and an interrupt reaches the consumer
    while the task computes: one that has nothing to tell is said to be alive every few seconds.
    Closed early, it stops the task at its next word.
    """
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    closed = threading.Event()

    def report(event: Event) -> None:
        if closed.is_set():
            raise _Closed
        events.put(event)

    def run() -> None:
        try:
            with suppress(_Closed):
                run_task(task, files, report)
        finally:
            events.put(None)

    thread = threading.Thread(target=run, name="task", daemon=True)
    thread.start()
    try:
        while True:
            try:
                event = events.get(timeout=_ALIVE_EVERY_SECONDS)
            except queue.Empty:
                yield Alive()
                continue
            if event is None:
                break
            yield event
    finally:
        closed.set()
        thread.join(_STOPPING_SECONDS)


class _Closed(BaseException):
    """Nobody listens to the task any more. No failure, so that no cell is charged for it."""
