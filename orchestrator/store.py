"""The results: one Parquet file per cell and table, each appearing whole or not at all.

Side tables come first and the primary table last, so a cell is done exactly when its primary rows
can be read. Whatever a kill leaves behind is invisible to every reader and written over by the
next attempt.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import layout
from jobs.cells import PRIMARY_TABLES, Cell
from jobs.errors import StoreError
from jobs.events import Failed, Finished
from jobs.outage import outlast
from jobs.place import TEMPORARY, Place
from jobs.records import MARKER, SCHEMA_VERSION, rows_table
from orchestrator.rows import with_keys

_STALE_SECONDS = 3600.0
_CONNECTIONS = 16
_PROBE = ".writable"


@dataclass(frozen=True)
class Ledger:
    """What the results say of cells.

    Attributes:
        done: Cells whose primary rows are there.
        failed: Failure row of each cell that failed and wasn't done since.
    """

    done: frozenset[str]
    failed: dict[str, dict[str, Any]]


class Store:
    """A results folder, or a prefix of an object store.

    Args:
        place: Where it lies.
        write: Begin it if it is missing, and refuse one that can't be written; without it, a
            missing one is an empty store.

    Raises:
        StoreError: The place holds something else or a newer layout, cannot be reached, or cannot
            be written.
    """

    def __init__(self, place: str | Path | Place, *, write: bool = True) -> None:
        self.place = Place(place)
        try:
            marker = layout.read_marker(self.place)
            if marker is None and not self._is_unused():
                raise StoreError(
                    f"{self.place} exists and is not a results folder (it has no {MARKER})",
                    "name an empty or new folder with --results",
                )
            if not (write or marker or self.place.is_local or self.place.is_there()):
                raise StoreError(
                    f"there is no bucket for {self.place}", "make it, or mend its name"
                )
            if write:
                self._check_writable()
                named = {"format": SCHEMA_VERSION, "store": uuid.uuid4().hex, **(marker or {})}
                if named != marker:
                    self.place.write(MARKER, json.dumps(named).encode())
        except (OSError, pa.ArrowException) as error:
            what = f"cannot use the results {'folder' if self.place.is_local else 'at'}"
            remedy = "name a place that you can write with --results"
            raise self.place.failure(what, error, remedy) from error

    @property
    def id(self) -> str:
        """The store's own name, by which two machines see whether they reach the same one.

        It is read anew, since two drivers that begin a store at once both name it. Empty where no
        driver has yet.

        Raises:
            StoreError: The store cannot be read.
        """
        try:
            return str((layout.read_marker(self.place) or {}).get("store", ""))
        except (OSError, pa.ArrowException) as error:
            raise layout.unreadable(self.place, MARKER, error) from error

    @contextmanager
    def lease(self, waits: Callable[[], None]) -> Iterator[None]:
        """Keeps every other driver of this machine out of a folder; its process' end ends it.

        A URL has no lock: there it does nothing, and the cluster's lease alone keeps drivers apart.

        Args:
            waits: Called once if another driver holds the lease, before waiting for it.
        """
        if not self.place.is_local:
            yield
            return
        # Not the marker: two drivers that begin at once both write it, the one over the other.
        with (self.place.path / ".lease").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # Some network file systems know no locks.
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
            yield

    def ledger(self, cells: Sequence[Cell] = ()) -> Ledger:
        """Reads which cells are done and which failed, from the rows.

        Args:
            cells: Cells of a plan, each after those that it needs. One of them whose artifact was
                deleted counts as not done while a cell that needs it is still to be run.

        Raises:
            StoreError: The rows cannot be read.
        """
        # Failures first: a cell that is done meanwhile is then found among the done ones.
        rows = [row for read in self._files("failures", None)[1] for row in read.to_pylist()]
        with ThreadPoolExecutor(len(PRIMARY_TABLES)) as threads:
            done = frozenset().union(*threads.map(self._cell_ids, PRIMARY_TABLES))
        failed = {row["cell_id"]: row for row in rows if row["cell_id"] not in done}
        return Ledger(done - self._lost(cells, done, frozenset(failed)), failed)

    def commit(self, cell: Cell, finished: Finished) -> None:
        """Makes a cell's rows readable, all or none.

        Raises:
            StoreError: The rows cannot be written.
        """
        provenance = json.dumps(finished.provenance, sort_keys=True)
        for table, rows in sorted(finished.tables, key=lambda t: t[0] == cell.work.table):
            self._write(table, cell, rows, provenance)
        self._forget(cell.id)

    def fail(self, cell: Cell, failure: Failed, attempts: int) -> None:
        """Records that a cell is given up.

        Raises:
            StoreError: The row cannot be written.
        """
        row = {
            "kind": cell.work.kind,
            "cause": failure.cause,
            "attempts": attempts,
            "message": failure.message,
            "remedy": failure.remedy,
            "traceback": failure.traceback,
        }
        provenance = json.dumps(failure.provenance, sort_keys=True)
        self._write("failures", cell, rows_table("failures", [row]), provenance)

    def forget_failures(self, cell_ids: Iterable[str]) -> int:
        """Removes failure rows, so that the next run tries those cells again.

        Raises:
            StoreError: The rows cannot be removed.
        """
        own, _ = layout.divided(self._names("failures"))
        chosen = sorted(own.keys() & set(cell_ids))
        with ThreadPoolExecutor(_CONNECTIONS) as threads:
            list(threads.map(self._forget, chosen))
        return len(chosen)

    def _lost(
        self, cells: Sequence[Cell], done: frozenset[str], failed: frozenset[str]
    ) -> set[str]:
        """Returns the done cells whose artifacts are gone though a cell to be run needs them."""
        needed: set[str] = set()
        lost: set[str] = set()
        kept: set[str] | None = None
        for cell in reversed(cells):
            if cell.id in done and cell.id in needed:
                kept = self._artifacts() if kept is None else kept
                if cell.id not in kept:
                    lost.add(cell.id)
            if cell.id in lost or cell.id not in done | failed:
                needed.update(cell.needs)
        return lost

    def _artifacts(self) -> set[str]:
        """Returns the cells whose artifacts are published."""
        try:
            if not self.place.is_local:
                paths = map(PurePosixPath, self.place.sizes("artifacts", below=True))
                return {str(path.parent) for path in paths if path.name == "manifest.json"}
            return self.place.entries("artifacts")
        except (OSError, pa.ArrowException) as error:
            raise layout.unreadable(self.place, "artifacts", error) from error

    def _cell_ids(self, table: str) -> set[str]:
        """Returns the cells of a table, from file names; files of many cells are read."""
        own, merged = self._files(table, ["cell_id"])
        return own | {i for rows in merged for i in rows.column("cell_id").unique().to_pylist()}

    def _files(self, table: str, columns: list[str] | None) -> tuple[set[str], list[pa.Table]]:
        """Returns the cells that have files of their own, and reads all files.

        Args:
            table: The table.
            columns: If given, only they are read, and from the files of many cells alone.
        """
        names = self._names(table)
        while True:
            own, merged = layout.divided(names)
            chosen = merged if columns else [*own.values(), *merged]
            try:
                with ThreadPoolExecutor(_CONNECTIONS) as threads:
                    read = threads.map(lambda name: self._read(f"{table}/{name}", columns), chosen)
                    return set(own), list(read)
            except StoreError:
                before, names = names, self._names(table)
                # Otherwise a commit, `retry` or `compact` removed one of them meanwhile.
                if names == before:
                    raise

    def _read(self, name: str, columns: list[str] | None) -> pa.Table:
        try:
            # With partitioning, a folder such as `run=3` above the results would become a column.
            return pq.read_table(
                self.place.within(name),
                filesystem=self.place.filesystem,
                columns=columns,
                partitioning=None,
                read_dictionary=columns,
            )
        except (pa.ArrowException, OSError) as error:
            raise layout.unreadable(self.place, name, error) from error

    def _names(self, table: str) -> list[str]:
        try:
            return self.place.names(table)
        except (pa.ArrowException, OSError) as error:
            raise layout.unreadable(self.place, table, error) from error

    def _write(self, table: str, cell: Cell, rows: pa.Table, provenance: str) -> None:
        buffer = pa.BufferOutputStream()
        pq.write_table(with_keys(table, cell, rows, provenance), buffer, compression="zstd")
        name = layout.own_file(table, cell.id)
        try:
            outlast(lambda: self.place.write(name, buffer.getvalue()))
        except (pa.ArrowException, OSError) as error:
            raise self._unwritable(name, error) from error

    def _forget(self, cell_id: str) -> None:
        name = layout.own_file("failures", cell_id)
        try:
            outlast(lambda: self.place.delete(name))
        except (pa.ArrowException, OSError) as error:
            raise self._unwritable(name, error) from error

    def _is_unused(self) -> bool:
        """Tells whether the place is missing, or empty but for what a killed beginning left."""
        if self.place.is_local and self.place.path.is_file():
            return False
        left = self.place.entries("") - {_PROBE}
        return all(name.startswith(".") and name.endswith(TEMPORARY) for name in left)

    def _check_writable(self) -> None:
        if not self.place.is_local:
            self.place.write(_PROBE, b"")
            return
        self.place.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.place.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # What killed writers left; an hour is far beyond any single write.
        for pattern in (f".*{TEMPORARY}", f"*/.*{TEMPORARY}"):
            for path in self.place.path.glob(pattern):
                with suppress(FileNotFoundError):  # Its writer may be alive and rename it now.
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def _unwritable(self, name: str, error: Exception) -> StoreError:
        failure = self.place.failure(
            "cannot write to",
            error,
            "make room or mend the permissions, and run the same command again",
            name,
        )
        return StoreError(f"{failure.message}; finished cells are kept", failure.remedy)
