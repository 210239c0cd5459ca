"""Merges the files of many cells into few. At every moment each row can be read from some file.

The merged files of a table are written whole and read back before any of their sources is removed,
earlier merged files first: what a kill leaves behind are copies, which readers pass over and the
next run merges away. A cell's own file outranks every copy of its rows, so one that was written
after an earlier merge takes the place of the older rows.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import layout
from jobs.errors import StoreError
from jobs.place import Place
from jobs.records import SCHEMA_VERSION, SIDE_TABLES, TABLES
from orchestrator.store import Store

_FILE_BYTES = 128 * 2**20
_GROUP_BYTES = 32 * 2**20
_BATCH_BYTES = 16 * 2**20
_BATCH_FILES = 256
_CONNECTIONS = 16
_LEFT_ALONE = frozenset({"failures"})  # `retry` removes them one by one.


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Attributes:
        files_before: Files that held rows before it, failures apart.
        files_after: Files that hold the same rows now.
    """

    files_before: int
    files_after: int


@dataclass(frozen=True)
class _Part:
    """Rows on their way into a merged file.

    Attributes:
        rows: The rows.
        records: Provenance by cell id.
        sources: The files, within the table's folder, that are merged once this part is.
        whole: Whether no cell goes on in the next part.
    """

    rows: pa.Table
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    whole: bool = True


def compact(store: Store, report: Callable[[int, int], None]) -> Compacted:
    """Merges every table's files; side tables before primary ones.

    Files of another schema version, with columns that this version doesn't know, or without rows
    are left as they are. The caller holds the store's lease.

    Args:
        store: The results.
        report: Called with how many files were merged or removed so far, and how many will be.

    Returns:
        How many files there were and are.

    Raises:
        StoreError: A file is damaged, or the place cannot be read or written. No row is lost.
    """
    tables = sorted(TABLES.keys() - _LEFT_ALONE, key=lambda t: (t not in SIDE_TABLES, t))
    before = {table: len(_files(store.place, table)) for table in tables}
    total, done = 2 * sum(before.values()), 0

    def tick(files: int) -> None:
        nonlocal done
        done += files
        report(done, total)

    for table in tables:
        _compact_table(store.place, table, tick)
    tick(total - done)
    after = sum(len(_files(store.place, table)) for table in tables)
    return Compacted(sum(before.values()), after)


def _compact_table(place: Place, table: str, tick: Callable[[int], None]) -> None:
    sizes = _files(place, table)
    own, merged = layout.divided(sizes)
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        found = zip(merged, threads.map(partial(_cells, place, table), merged), strict=True)
        cells = {name: within for name, within in found if within is not None}
        copies = Counter(chain(own, *cells.values()))
        old = {
            name: within
            for name, within in cells.items()
            if sizes[name] < _FILE_BYTES // 2 or any(copies[cell] > 1 for cell in within)
        }
        if len(own) + len(old) < 2:
            return
        parts = chain(
            _own_parts(place, table, own, sizes, threads), _merged_parts(place, table, old, own)
        )
        sources: list[str] = []
        for part in parts:
            sources += _write(place, table, chain([part], parts), tick)
        # Were a cell's own file removed first, older rows of it could come to light.
        for names in ([n for n in sources if n in old], [n for n in sources if n not in old]):
            for _ in threads.map(partial(_remove, place, table), names):
                tick(1)


def _own_parts(
    place: Place,
    table: str,
    own: Mapping[str, str],
    sizes: Mapping[str, int],
    threads: ThreadPoolExecutor,
) -> Iterator[_Part]:
    """Yields the rows of cells' own files."""

    def load(cell_id: str) -> _Part | None:
        name = f"{table}/{own[cell_id]}"
        try:
            with pq.ParquetFile(pa.BufferReader(place.read(name))) as file:
                if file.metadata.num_rows == 0 or not _is_known(table, file):
                    return None
                records = layout.unpack(file.metadata.metadata or {}, cell_id)
                return _Part(_fit(table, file.read(use_threads=False)), records, (own[cell_id],))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise layout.unreadable(place, name, error) from error

    for batch in _batches(own, sizes):
        if loaded := [part for part in threads.map(load, batch) if part is not None]:
            yield _Part(
                pa.concat_tables(part.rows for part in loaded).combine_chunks(),
                {cell_id: record for part in loaded for cell_id, record in part.records.items()},
                tuple(name for part in loaded for name in part.sources),
            )


def _batches(own: Mapping[str, str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Divides cells so that those of a batch are read at once."""
    batch: list[str] = []
    size = 0
    for cell_id, name in own.items():
        if batch and (size + sizes[name] > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(cell_id)
        size += sizes[name]
    if batch:
        yield batch


def _merged_parts(
    place: Place, table: str, merged: Mapping[str, set[str]], own: Mapping[str, str]
) -> Iterator[_Part]:
    """Yields the rows of merged files: each cell's from one of them, none of cells in `own`."""
    taken = set(own)
    for name, within in merged.items():
        wanted = within - taken
        taken |= within
        with _opened(place, f"{table}/{name}") as file:
            records = layout.unpack(file.metadata.metadata or {}, None)
            for group in range(file.num_row_groups):
                rows = _fit(table, file.read_row_group(group))
                chosen = pc.is_in(rows["cell_id"], value_set=pa.array(sorted(wanted), pa.string()))
                yield _Part(rows.filter(chosen), whole=False)
        kept = {cell_id: record for cell_id, record in records.items() if cell_id in wanted}
        yield _Part(TABLES[table].empty_table(), kept, (name,))


def _write(
    place: Place, table: str, parts: Iterator[_Part], tick: Callable[[int], None]
) -> list[str]:
    """Writes one merged file of as many parts as it may hold; returns the files it replaces."""
    name = f"{table}/compact-{uuid.uuid4().hex}.parquet"
    records: dict[str, dict[str, Any]] = {}
    sources: list[str] = []
    group: list[pa.Table] = []
    expected = held = 0
    try:
        with (
            place.writer(name) as stream,
            pq.ParquetWriter(stream, TABLES[table], compression="zstd") as writer,
        ):
            for part in parts:
                group.append(part.rows)
                held += part.rows.nbytes
                records |= part.records
                sources += part.sources
                tick(len(part.sources))
                if held >= _GROUP_BYTES:
                    expected += _flush(writer, group)
                    held = 0
                if part.whole and stream.tell() >= _FILE_BYTES:
                    break
            expected += _flush(writer, group)
            writer.add_key_value_metadata({layout.PROVENANCE: layout.pack(records)})
    except (OSError, pa.ArrowException) as error:
        remedy = "make room or mend the permissions, and run the same command again"
        raise place.failure("cannot write to", error, remedy, name) from error
    with _opened(place, name) as file:
        found = file.read(columns=["cell_id"]).num_rows
    if found != expected:
        raise StoreError(f"{place.at(name)} has {found} rows, not {expected}", "check the disk")
    return sources


def _flush(writer: pq.ParquetWriter, group: list[pa.Table]) -> int:
    """Writes tables as one row group and forgets them."""
    if not group:
        return 0
    rows = pa.concat_tables(group)
    group.clear()
    if rows.num_rows:
        writer.write_table(rows, row_group_size=rows.num_rows)
    return int(rows.num_rows)


def _fit(table: str, rows: pa.Table) -> pa.Table:
    """Gives rows of an older file the columns that it lacks."""
    schema = TABLES[table]
    if rows.schema.equals(schema):  # As nearly always.
        return rows.replace_schema_metadata(schema.metadata)
    there = set(rows.column_names)
    columns = [
        rows[column.name].cast(column.type)
        if column.name in there
        else pa.nulls(rows.num_rows, column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _is_known(table: str, file: pq.ParquetFile) -> bool:
    """Tells whether nothing of a file would be lost in one that this version writes."""
    version = (file.metadata.metadata or {}).get(b"eigentrace_schema_version")
    columns = set(file.schema_arrow.names)
    return version == str(SCHEMA_VERSION).encode() and columns <= set(TABLES[table].names)


def _cells(place: Place, table: str, name: str) -> set[str] | None:
    """Returns the cells of a merged file; None if it must stay as it is."""
    with _opened(place, f"{table}/{name}") as file:
        if not _is_known(table, file):
            return None
        return set(file.read(columns=["cell_id"])["cell_id"].unique().to_pylist())


@contextmanager
def _opened(place: Place, name: str) -> Iterator[pq.ParquetFile]:
    try:
        with (
            place.filesystem.open_input_file(place.within(name)) as source,
            pq.ParquetFile(source) as file,
        ):
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise layout.unreadable(place, name, error) from error


def _files(place: Place, table: str) -> dict[str, int]:
    """Returns the sizes of a table's finished files by name."""
    try:
        sizes = place.sizes(table)
    except (OSError, pa.ArrowException) as error:
        raise layout.unreadable(place, table, error) from error
    own, merged = layout.divided(sizes)
    return {name: sizes[name] for name in (*own.values(), *merged)}


def _remove(place: Place, table: str, name: str) -> None:
    try:
        place.delete(f"{table}/{name}")
    except (OSError, pa.ArrowException) as error:
        remedy = "mend the permissions, and run the same command again"
        raise place.failure("cannot remove", error, remedy, f"{table}/{name}") from error
