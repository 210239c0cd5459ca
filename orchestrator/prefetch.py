"""Fetching beside the task: what was promised to a slot is there, or on its way, once it starts.

Invariant: it holds up no task and fails none. What goes wrong is left for the task to meet.
"""

import logging
import threading
from collections import deque

from jobs.cells import Cell
from jobs.sources import HubFolder
from orchestrator.messages import to_fetch
from orchestrator.ready import AHEAD
from workers.artifacts import Files

_LOG = logging.getLogger("eigentrace")

_CLOSING_SECONDS = 5.0
_TOLD = {True: "finished", False: "found no room on the disk", None: "failed"}


class Prefetcher:
    """Fetches in a thread of its own, one source after the other.

    What finds no room on the disk waits for the next task, and what was promised later waits behind
    it: were that fetched first, it would have to go again for what runs before it.

    It isn't told of promises that were taken back. As a slot has at most `AHEAD` of them, what has
    not begun is forgotten for newer ones.

    Args:
        files: Where this node finds files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._changed = threading.Condition()
        self._promised: deque[tuple[HubFolder, ...]] = deque(maxlen=AHEAD)
        self._begun: tuple[HubFolder, ...] = ()
        self._has_no_room = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def promise(self, sources: tuple[HubFolder, ...]) -> None:
        """Has a checkpoint's sources fetched after those that were promised earlier."""
        with self._changed:
            if len(self._promised) == AHEAD:
                self._has_no_room = False  # Who waited for room is forgotten.
            self._promised.append(sources)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
            self._thread.start()

    def begin(self, cells: tuple[Cell, ...]) -> None:
        """Forgets what a task that begins now fetches by itself, unless it is being fetched.

        What the task before it has used may go now, so that there may be room.
        """
        sources = to_fetch(cells[0])
        with self._changed:
            self._begun = sources
            if sources in self._promised:
                self._promised.remove(sources)
            self._has_no_room = False
            self._changed.notify()

    def close(self) -> None:
        """Fetches nothing more; a transfer that goes on after seconds is left to the process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        while (sources := self._next()) is not None:
            if not all(self._fetch(source) for source in sources):
                self._wait_for_room(sources)

    def _next(self) -> tuple[HubFolder, ...] | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._promised and not self._has_no_room)
            )
            return None if self._closed else self._promised.popleft()

    def _wait_for_room(self, sources: tuple[HubFolder, ...]) -> None:
        """Puts a promise back at its place, unless its task has begun or newer ones fill it."""
        with self._changed:
            if sources != self._begun and len(self._promised) < AHEAD:
                self._promised.appendleft(sources)
                self._has_no_room = True

    def _fetch(self, source: HubFolder) -> bool:
        """Returns whether it would be of no use to try again."""
        name = f"{source.repository}@{source.commit}"
        try:
            found = self._files.hub.prefetch(source)
        except Exception as error:  # noqa: BLE001 - the task tells it when it holds the files.
            _LOG.info("prefetch %s failed: %s: %s", name, type(error).__name__, error)
            return True
        _LOG.info("prefetch %s %s", name, _TOLD[found])
        return found is not False
