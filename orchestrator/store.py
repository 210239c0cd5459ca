"""The results: one Parquet file per cell and table, each appearing whole or not at all.

A file is written under a temporary name, flushed to disk and renamed; side tables come first and
the primary table last, so a cell is done exactly when its primary rows can be read. Whatever a
kill leaves behind is invisible to every reader and written over by the next attempt.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cells import PRIMARY_TABLES, Cell
from jobs.errors import StoreError
from jobs.events import Failed, Finished
from jobs.records import MARKER, SCHEMA_VERSION, TABLES, rows_table

_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0


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
    """A results folder.

    Args:
        root: The folder.
        write: Make the folder if it is missing and refuse one that can't be written; without
            it, a missing folder is an empty store.

    Raises:
        StoreError: The place holds something else, a newer layout, or cannot be written.
    """

    def __init__(self, root: str | Path, *, write: bool = True) -> None:
        self.root = Path(root).expanduser().absolute()
        marker = self.root / MARKER
        try:
            if marker.exists():
                _check_format(marker)
            elif self.root.exists() and not _is_unused(self.root):
                raise StoreError(
                    f"{self.root} exists and is not a results folder (it has no {MARKER})",
                    "name an empty or new folder with --results",
                )
            elif write:
                self.root.mkdir(parents=True, exist_ok=True)
                _write_whole(marker, json.dumps({"format": SCHEMA_VERSION}).encode())
            if write:
                if not os.access(self.root, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                self._remove_stale()
        except OSError as error:
            raise StoreError(
                f"cannot use the results folder {self.root}: {error.strerror or error}",
                "name a folder that you can write with --results",
            ) from error

    @contextmanager
    def lease(self, waits: Callable[[], None]) -> Iterator[None]:
        """Keeps every other driver out of the results; the kernel ends it with the process.

        Args:
            waits: Called once if another driver holds the lease, before waiting for it.
        """
        # Not the marker: two drivers that begin at once both write it, the one over the other.
        with (self.root / ".lease").open("ab") as file:
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
        """
        done = frozenset(i for table in PRIMARY_TABLES for i in self._cell_ids(table))
        failed = {
            row["cell_id"]: row
            for path in self._files("failures")
            for row in _read(path).to_pylist()
            if row["cell_id"] not in done
        }
        return Ledger(done - self._lost(cells, done, frozenset(failed)), failed)

    def commit(self, cell: Cell, finished: Finished) -> None:
        """Makes a cell's rows readable, all or none.

        Raises:
            StoreError: The rows cannot be written.
        """
        provenance = json.dumps(finished.provenance, sort_keys=True)
        try:
            for table, rows in sorted(finished.tables, key=lambda t: t[0] == cell.work.table):
                keyed = _with_keys(table, cell, rows, provenance)
                self._write(table, cell.id, keyed)
            (self.root / "failures" / f"{cell.id}.parquet").unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from error

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
        try:
            rows = _with_keys("failures", cell, rows_table("failures", [row]), "{}")
            self._write("failures", cell.id, rows)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def forget_failures(self, cell_ids: Iterable[str]) -> int:
        """Removes failure rows, so that the next run tries those cells again."""
        wanted = set(cell_ids)
        paths = [path for path in self._files("failures") if path.stem in wanted]
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        return len(paths)

    def _lost(
        self, cells: Sequence[Cell], done: frozenset[str], failed: frozenset[str]
    ) -> set[str]:
        """Returns the done cells whose artifacts are gone though a cell to be run needs them."""
        needed: set[str] = set()
        lost: set[str] = set()
        for cell in reversed(cells):
            artifact = self.root / "artifacts" / cell.id
            if cell.id in done and cell.id in needed and not artifact.is_dir():
                lost.add(cell.id)
            if cell.id in lost or cell.id not in done | failed:
                needed.update(cell.needs)
        return lost

    def _cell_ids(self, table: str) -> set[str]:
        """Returns the cells of a table, from file names; files of many cells are read."""
        found: set[str] = set()
        for path in self._files(table):
            if len(path.stem) == 64:
                found.add(path.stem)
            else:
                found.update(_read(path, ["cell_id"]).column("cell_id").unique().to_pylist())
        return found

    def _files(self, table: str) -> list[Path]:
        folder = self.root / table
        return sorted(folder.glob("[!._]*.parquet")) if folder.is_dir() else []

    def _write(self, table: str, name: str, rows: pa.Table) -> None:
        folder = self.root / table
        folder.mkdir(exist_ok=True)
        buffer = pa.BufferOutputStream()
        pq.write_table(rows, buffer, compression="zstd")
        _write_whole(folder / f"{name}.parquet", buffer.getvalue())

    def _remove_stale(self) -> None:
        """Removes what killed writers left; an hour is far beyond any single write."""
        for folder in (".", "*"):
            for path in self.root.glob(f"{folder}/.*{_TEMPORARY}"):
                with suppress(FileNotFoundError):  # Its writer may be alive and rename it now.
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()


def _is_unused(root: Path) -> bool:
    """Tells whether a folder is empty but for what a killed beginning left."""
    return root.is_dir() and all(
        path.name.startswith(".") and path.suffix == _TEMPORARY for path in root.iterdir()
    )


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        # With partitioning, a folder such as `run=3` above the results would become a column.
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            "it is damaged; remove it, and its cells are run again",
        ) from error


def _with_keys(table: str, cell: Cell, rows: pa.Table, provenance: str) -> pa.Table:
    """Returns the rows with the cell's keys before them, in the table's schema."""
    checkpoint = cell.checkpoint
    labels = {
        "cell_id": cell.id,
        "suite": checkpoint.suite if checkpoint else cell.suite,
        "model": checkpoint.model if checkpoint else cell.model,
        "revision": checkpoint.revision if checkpoint else None,
        "step": checkpoint.step if checkpoint else None,
        "tokens": checkpoint.tokens if checkpoint else None,
        "stage": checkpoint.stage if checkpoint else None,
    }
    schema = TABLES[table]
    columns = []
    for column in schema:
        if column.name == "row":
            columns.append(pa.array(range(rows.num_rows), column.type))
        elif column.name in rows.column_names:
            columns.append(rows.column(column.name).combine_chunks().cast(column.type))
        else:
            value = labels.get(column.name)
            columns.append(pa.array([value] * rows.num_rows, column.type))
    metadata = {**(schema.metadata or {}), b"eigentrace_provenance": provenance.encode()}
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(metadata))


def _write_whole(path: Path, data: bytes | pa.Buffer) -> None:
    """Writes a file so that it appears whole or, should power fail, not at all."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_format(marker: Path) -> None:
    try:
        found = json.loads(marker.read_text())["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{marker} is malformed", "name another folder with --results") from error
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise StoreError(
            f"{marker.parent} was written by a newer version (format {found}, this one reads up to "
            f"{SCHEMA_VERSION})",
            "update Eigentrace, or name another folder with --results",
        )


def _unwritable(root: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write to {error.filename or root}: {error.strerror or error}; "
        "finished cells are kept",
        "make room or mend the permissions, and run the same command again",
    )
