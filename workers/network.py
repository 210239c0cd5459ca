"""The network of a node: one of its processes fetches at a time, what is needed before the rest.

The files of one checkpoint keep the link busy; two checkpoints at once would both come late. The
turns are locks of the kernel, so that a process that dies gives them up.
"""

import fcntl
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from workers.download import Watch

_FILES_AT_ONCE = 4
_TELL_SECONDS = 0.5
_POLL_SECONDS = 0.2


class Network:
    """The turns of a node's processes.

    Args:
        folder: Where the locks are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def turn(self, needed: bool, waiting: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        """Waits for a turn and gives it; others wait until the block ends.

        Args:
            needed: Whether what is to be fetched is needed now.
            waiting: Called every now and then while it waits.

        Yields:
            Whether the turn must be given up for one who needs it more.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            (self._folder / "needed.lock").open("ab") as need,
            (self._folder / "network.lock").open("ab") as network,
        ):

            def overtaken() -> bool:
                if needed or not _lock(need):
                    return not needed
                fcntl.flock(need, fcntl.LOCK_UN)
                return False

            try:
                if needed:
                    # Shared by all who need something; the others only look whether it is free.
                    fcntl.flock(need, fcntl.LOCK_SH)
                while overtaken() or not _lock(network):
                    waiting()
                    time.sleep(_POLL_SECONDS)
                yield overtaken
            finally:
                # A forked child shares the locks and would keep them beyond the mere closing.
                fcntl.flock(network, fcntl.LOCK_UN)
                fcntl.flock(need, fcntl.LOCK_UN)


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def at_once(
    jobs: Mapping[str, Callable[[Watch], None]],
    done: dict[str, int],
    tell: Callable[[], None],
    overtaken: Callable[[], bool] = lambda: False,
) -> bool:
    """Does a few jobs at once, in their order; the first that fails, or `tell`, ends the others.

    Args:
        jobs: Each takes what it tells its bytes to, and is stopped by.
        done: Where the bytes of each are noted.
        tell: Called at least once a second while they run.
        overtaken: Asked as often whether all shall be left as they are.

    Returns:
        Whether all are done.

    Raises:
        Exception: What a job or `tell` raised.
    """
    stopped = threading.Event()
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for name in jobs:
        left.put(name)

    def work() -> None:
        while not stopped.is_set():
            try:
                name = left.get_nowait()
            except queue.Empty:
                return
            try:
                jobs[name](Watch(partial(done.__setitem__, name), stopped))
            except BaseException as error:  # noqa: BLE001
                ended.put(error)
            else:
                ended.put(None)

    # Daemons: a process that exits doesn't wait for what it fetches ahead.
    threads = [
        threading.Thread(target=work, name="download", daemon=True)
        for _ in range(min(_FILES_AT_ONCE, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    try:
        running = len(jobs)
        while running and not overtaken():
            tell()
            try:
                error = ended.get(timeout=_TELL_SECONDS)
            except queue.Empty:
                continue
            running -= 1
            if error is not None:
                raise error
        return not running
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
