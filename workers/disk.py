"""The ledger of a folder with a budget: what lies in it, who needs it, and what may go.

Whatever is reserved counts in full from then on, before its first byte is written and whether or
not its process lives; and no byte is written that isn't reserved. So the folder never outgrows its
budget, and what a living holder has pinned is never deleted.

    .ledger/lock            held by the one process that reads or changes the ledger
    .ledger/entries.sqlite  sizes and last uses; rebuilt from the files if it is lost
    .ledger/holders/<id>    what a holder has pinned; its process keeps the file locked

The kernel unlocks the file of a holder whose process dies, however it dies, and with the lock go
its pins. An entry is a file, named by its path in the folder, with what was fetched of it so far.
"""

import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from jobs.errors import DataError
from workers.entries import TABLE, Entry, Found, leaving, reconcile, write
from workers.holders import Holder, Holders, check_no_circle

LEDGER = ".ledger"
"""Folder of the ledger: what lies in it is not counted."""

INCOMPLETE = ".incomplete"
"""Suffix of what was fetched so far of an entry."""

_FREE_SHARE = 0.8
_POLL_SECONDS = 0.5
_BUSY_SECONDS = 60.0
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_VERIFIED = """
CREATE TABLE IF NOT EXISTS verified (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
"""


class Disk:
    """A folder that several processes fill, within a budget.

    Args:
        root: The folder.
        budget: Most bytes of it. None: what lies in it and four fifths of what the disk has free,
            at the time of each reservation.
    """

    def __init__(self, root: Path, budget: int | None = None) -> None:
        self.root, self._budget = root, budget
        self._folder = root / LEDGER
        self._holders = Holders(self._folder / "holders")

    @contextmanager
    def holder(self) -> Iterator[Holder]:
        """Gives a holder, whose pins are given up when the block ends.

        Raises:
            OSError: The folder cannot be written.
        """
        with self._ledger():
            holder = self._holders.open()
        try:
            yield holder
        finally:
            holder.close()

    def reserve(
        self,
        entries: Mapping[str, int],
        holder: Holder,
        *,
        voluntary: bool = False,
        waiting: Callable[[], None] = lambda: None,
    ) -> bool:
        """Pins entries, all or none, and makes room for them.

        Entries that nobody pins go as far as needed: those used already before those that were
        fetched ahead, and each of them the least recently used first. A voluntary request lets
        those that were fetched ahead be.

        A request waits only for pins of other holders to be given up. Those who hold without
        waiting will give up theirs, since they finish or die. A thread that holds may wait for
        more; should all pins belong to waiting threads, and none of them have room, then whoever
        sees it first is refused. That ends its block and gives up its pins, so that the others go
        on. Small requests may pass a big one that waits, but each of them ends.

        Args:
            entries: Keys and full sizes.
            holder: Who pins them, beside what it has pinned already.
            voluntary: Whether the request may be declined. It then never waits.
            waiting: Called every now and then while the request waits.

        Returns:
            Whether they are pinned: always, unless the request is voluntary.

        Raises:
            DataError: They would not fit if nothing else were there.
            OSError: Holders wait for each other, or the folder cannot be read or written.
        """
        try:
            while not self._attempt(entries, holder, voluntary):
                if voluntary:
                    return False
                waiting()
                time.sleep(_POLL_SECONDS)
        finally:
            if holder.claim.waits:
                with self._ledger():
                    holder.say(holder.claim.pins)
        return True

    def usage(self) -> tuple[int, int]:
        """Returns the bytes that lie in the folder, and its budget.

        Raises:
            OSError: It cannot be read.
        """
        used = sum(file.bytes for file in self._scan().values())
        return used, self._limit(used)

    def verified(self, files: Mapping[Path, str]) -> set[Path]:
        """Returns which files were found to have these hashes and haven't changed since.

        Raises:
            OSError: The ledger cannot be read.
        """
        with self._ledger() as ledger:
            known = dict(ledger.execute("SELECT path, stamp FROM verified"))
        return {f for f, wanted in files.items() if known.get(str(f), "") == _stamp(f, wanted)}

    def remember(self, file: Path, found: str) -> None:
        """Remembers the hash that a file was found to have.

        Raises:
            OSError: The ledger cannot be written.
        """
        with self._ledger() as ledger:
            row = (str(file), _stamp(file, found))
            ledger.execute("INSERT OR REPLACE INTO verified VALUES (?, ?)", row)

    def _attempt(self, wanted: Mapping[str, int], holder: Holder, voluntary: bool) -> bool:
        with self._ledger() as ledger:
            # Pins first: what is renamed during the scan can be missed by it, and whoever pins it
            # may give it up at once. Seen in the other order, it would be in neither.
            claims = self._holders.claims()
            found = self._scan()
            budget = self._limit(sum(file.bytes for file in found.values()))
            pins = {key: size for claim in claims for key, size in claim.pins.items()}
            mine = dict(wanted)
            for claim in claims:
                if claim.strand == holder.claim.strand:
                    mine |= claim.pins
            if sum(mine.values()) > budget:
                raise self._too_large(sum(mine.values()), budget)
            known = reconcile(ledger, found, pins)
            gone = leaving(known, pins, wanted, budget, ahead=not voluntary)
            if wanted.keys() <= pins.keys():  # They take no room, however little there is.
                gone = []
            if gone is None:
                if not voluntary:
                    missing = sum(size for key, size in wanted.items() if key not in pins)
                    holder.say(holder.claim.pins, missing)
                    room = budget - sum(pins.values())
                    check_no_circle(self._holders.claims(), holder, room)
                return False
            for key in gone:
                self._evict(ledger, key)
            holder.say({**holder.claim.pins, **wanted})
            last_use = max((entry.last_use for entry in known.values()), default=0) + 1
            sizes = {
                key: max(size, found[key].bytes if key in found else 0)
                for key, size in wanted.items()
            }
            write(ledger, {k: Entry(size, last_use, not voluntary) for k, size in sizes.items()})
            return True

    def _limit(self, on_disk: int) -> int:
        if self._budget is not None:
            return self._budget
        there = next(path for path in (self.root, *self.root.parents) if path.exists())
        return on_disk + int(shutil.disk_usage(there).free * _FREE_SHARE)

    def _too_large(self, size: int, budget: int) -> DataError:
        if self._budget is None:
            return DataError(
                f"{size:,} bytes are needed at once in {self.root}, and {budget:,} may be used",
                "free space on that disk, or set EIGENTRACE_CACHE to a folder on a larger one",
            )
        return DataError(
            f"{size:,} bytes are needed at once, and the disk budget is {budget:,} bytes",
            "raise --disk-budget (or EIGENTRACE_DISK_BUDGET)",
        )

    def _scan(self) -> dict[str, Found]:
        """Returns all that lies in the folder."""
        found: dict[str, Found] = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root:
                folders[:] = [name for name in folders if name != LEDGER]
            for name in files:
                path = Path(folder, name)
                try:
                    state = path.lstat()
                except FileNotFoundError:  # Finished, so renamed, this very moment.
                    state = None
                if state is not None and not stat.S_ISLNK(state.st_mode):
                    key = path.relative_to(self.root).as_posix().removesuffix(INCOMPLETE)
                    part = found.get(key, Found(0, 0.0))
                    found[key] = Found(
                        part.bytes + state.st_size, max(part.changed, state.st_mtime)
                    )
        return found

    def _evict(self, ledger: sqlite3.Connection, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        path.with_name(path.name + INCOMPLETE).unlink(missing_ok=True)
        ledger.execute("DELETE FROM entries WHERE key = ?", (key,))
        ledger.execute("DELETE FROM verified WHERE path = ?", (str(path),))

    @contextmanager
    def _ledger(self) -> Iterator[sqlite3.Connection]:
        """Gives the ledger to one process alone; what changed is kept if the block succeeds."""
        self._holders.folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                with closing(self._open()) as ledger:
                    ledger.execute("BEGIN IMMEDIATE")
                    yield ledger
                    ledger.commit()
            except sqlite3.Error as error:
                raise OSError(f"cannot use the ledger in {self._folder}: {error}") from error
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _open(self) -> sqlite3.Connection:
        """Opens the ledger's tables; broken ones are thrown away, and rebuilt from the files."""
        path = self._folder / "entries.sqlite"
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) not in _BROKEN:
                raise
        for broken in self._folder.glob(f"{path.name}*"):
            broken.unlink()
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    ledger = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        ledger.executescript(TABLE + _VERIFIED)
    except sqlite3.Error:
        ledger.close()
        raise
    return ledger


def _stamp(file: Path, wanted: str) -> str | None:
    """Returns what changes when a file does; None if there is none."""
    try:
        state = file.stat()
    except FileNotFoundError:
        return None
    return f"{wanted} {state.st_size} {state.st_mtime_ns}"
