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


class Prefetcher:
    """Fetches in a thread of its own, one source after the other.

    It isn't told of promises that were taken back. As a slot has at most `AHEAD` of them, what has
    not begun is forgotten for newer ones.

    Args:
        files: Where this node finds files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._changed = threading.Condition()
        self._promised: deque[tuple[HubFolder, ...]] = deque(maxlen=AHEAD)
        self._closed = False
        self._thread: threading.Thread | None = None

    def promise(self, sources: tuple[HubFolder, ...]) -> None:
        """Has a checkpoint's sources fetched after those that were promised earlier."""
        with self._changed:
            self._promised.append(sources)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
            self._thread.start()

    def begin(self, cells: tuple[Cell, ...]) -> None:
        """Forgets what a task that begins now fetches by itself, unless it is being fetched."""
        sources = to_fetch(cells[0])
        with self._changed:
            if sources in self._promised:
                self._promised.remove(sources)

    def close(self) -> None:
        """Fetches nothing more; a transfer that goes on after seconds is left to the process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        while (sources := self._next()) is not None:
            for source in sources:
                self._fetch(source)

    def _next(self) -> tuple[HubFolder, ...] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._promised or self._closed)
            return None if self._closed else self._promised.popleft()

    def _fetch(self, source: HubFolder) -> None:
        name = f"{source.repository}@{source.commit}"
        try:
            found = self._files.hub.prefetch(source)
        except Exception as error:  # noqa: BLE001 - the task tells it when it holds the files.
            _LOG.info("prefetch %s failed: %s: %s", name, type(error).__name__, error)
        else:
            _LOG.info("prefetch %s %s", name, "finished" if found else "found no room on the disk")
