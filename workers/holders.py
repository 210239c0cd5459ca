"""Holders: who needs what in a folder with a budget.

A holder pins entries by naming them in a file that its process keeps locked. The kernel unlocks the
file of a process that dies, however it dies, and with the lock go the pins.
"""

import errno
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True)
class Claim:
    """What a holder's file says.

    Attributes:
        strand: The thread that holds: it may hold several times at once.
        pins: Keys and bytes of its entries.
        waits: Bytes that it waits for.
    """

    strand: str
    pins: dict[str, int]
    waits: int = 0


class Holder:
    """One who pins entries, and is known to live by the lock on its file.

    Args:
        path: The file, which is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("x+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.claim = Claim(f"{_PROCESS}-{os.getpid()}-{threading.get_ident()}", {})
        self._write(self.claim)

    def say(self, pins: dict[str, int], waits: int = 0) -> None:
        """Tells everyone what it pins and for how much it waits.

        Raises:
            OSError: The file cannot be written; what it said before still holds.
        """
        claim = Claim(self.claim.strand, pins, waits)
        try:
            self._write(claim)
        except OSError:
            self._write(self.claim)
            raise
        self.claim = claim

    def _write(self, claim: Claim) -> None:
        data = json.dumps(vars(claim)).encode()
        self._file.seek(0)
        if self._file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._file.truncate()

    def close(self) -> None:
        """Gives up all pins."""
        self._path.unlink(missing_ok=True)
        # A forked child shares the lock and would keep it beyond the mere closing of the file.
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


class Holders:
    """All holders of a folder. Whoever calls has the folder's ledger to itself.

    Args:
        folder: Where their files are, which must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> Holder:
        """Returns a new holder, which must be closed."""
        return Holder(self.folder / uuid.uuid4().hex)

    def claims(self) -> list[Claim]:
        """Returns what living holders say, and removes the files of dead ones."""
        claims = []
        for path in self.folder.iterdir():
            try:
                with path.open("rb") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        claims.append(Claim(**json.load(file)))
                    else:
                        path.unlink()
            except FileNotFoundError:  # Given up this very moment.
                continue
        return claims


def check_no_circle(claims: Sequence[Claim], holder: Holder, room: int) -> None:
    """Refuses a request that can only wait for others that wait for it.

    Raises:
        OSError: Every pin belongs to a thread that waits for more than there is room.
    """
    stuck = {claim.strand for claim in claims if claim.waits > room}
    pinning = {claim.strand for claim in claims if claim.pins}
    if holder.claim.strand in pinning <= stuck:
        raise OSError(
            "the disk budget is held by tasks that each wait for more of it; "
            "this one gives way, raise --disk-budget (or EIGENTRACE_DISK_BUDGET)"
        )
