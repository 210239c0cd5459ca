"""Reads the files of a table. What `compact` removes meanwhile is read from where it went."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs import layout
from jobs.errors import StoreError
from jobs.place import Place
from jobs.records import SCHEMA_VERSION, TABLES

_BATCH_FILES = 1024
_CONNECTIONS = 16

Read = TypeVar("Read")


def rows(place: Place, table: str, columns: list[str]) -> pa.Table:
    """Reads a table's rows, `cell_id` among the columns; copies of rows may be among them.

    Raises:
        StoreError: A file is damaged, a newer version wrote it, or the place cannot be read.
    """

    def scan(fragments: Sequence[Any]) -> pa.Table:
        return _dataset(place, table, fragments).to_table(columns=columns)

    own, cells, merged = _settled(place, table, scan)
    copies = pa.concat_tables([TABLES[table].empty_table().select(columns), *merged])
    if cells and copies.num_rows:
        outranked = pc.is_in(copies["cell_id"], value_set=pa.array(sorted(cells), pa.string()))
        copies = copies.filter(pc.invert(outranked))
    return pa.concat_tables([*own, copies])


def cells(place: Place, table: str) -> set[str]:
    """Returns the cells whose rows a table has: a file's name tells its cell.

    Raises:
        StoreError: A file is damaged, a newer version wrote it, or the place cannot be read.
    """

    def scan(fragments: Sequence[Any]) -> list[str]:
        found = _dataset(place, table, fragments).to_table(columns=["cell_id"])
        return list(found["cell_id"].unique().to_pylist())

    while True:
        sizes = _sizes(place, table)
        own, merged = layout.divided(sizes)
        ids, read = _scanned(place, table, {name: sizes[name] for name in merged}, scan)
        if len(read) == len(merged):
            return own.keys() | set(chain.from_iterable(ids))


def provenance(place: Place, table: str) -> dict[str, dict[str, Any]]:
    """Reads how a table's rows came to be, by cell id.

    Raises:
        StoreError: A file is damaged, a newer version wrote it, or the place cannot be read.
    """

    def scan(fragments: Sequence[Any]) -> dict[str, dict[str, Any]]:
        records: dict[str, dict[str, Any]] = {}
        for fragment in fragments:
            name = fragment.path.rpartition("/")[2]
            own, _ = layout.divided([name])
            try:
                records |= layout.unpack(fragment.metadata.metadata or {}, next(iter(own), None))
            except ValueError as error:
                raise layout.unreadable(place, f"{table}/{name}", error) from error
        return records

    own, _, merged = _settled(place, table, scan)
    found: dict[str, dict[str, Any]] = {}
    for records in (*merged, *own):
        found |= records
    return found


def _settled(
    place: Place, table: str, scan: Callable[[Sequence[Any]], Read]
) -> tuple[list[Read], set[str], list[Read]]:
    """Reads the cells' own files and the merged ones, until none of the latter was missed.

    Returns:
        What was read of own files, the cells that they belong to, and what was read of merged ones.
    """
    while True:
        sizes = _sizes(place, table)
        own, merged = layout.divided(sizes)
        first, own_read = _scanned(place, table, {n: sizes[n] for n in own.values()}, scan)
        second, merged_read = _scanned(place, table, {n: sizes[n] for n in merged}, scan)
        # A merged file is there before any of its sources is gone.
        if len(own_read) + len(merged_read) == len(own) + len(merged) or (
            set(layout.divided(_sizes(place, table))[1]) <= set(merged_read)
        ):
            return first, set(layout.divided(own_read)[0]), second


def _scanned(
    place: Place, table: str, sizes: Mapping[str, int], scan: Callable[[Sequence[Any]], Read]
) -> tuple[list[Read], list[str]]:
    """Reads files in batches, without those that vanish; returns the others' names as well.

    One that a commit replaces meanwhile is read again, with the size that it has now.
    """
    results: list[Read] = []
    read: list[str] = []
    names = list(sizes)
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        for start in range(0, len(names), _BATCH_FILES):
            batch = {name: sizes[name] for name in names[start : start + _BATCH_FILES]}
            while batch:
                try:
                    opened = threads.map(partial(_open, place, table), batch, batch.values())
                    results.append(scan(list(opened)))
                    break
                except (pa.ArrowException, OSError, StoreError) as error:
                    there = _sizes(place, table)
                    left = {name: there[name] for name in batch if name in there}
                    if left == batch and isinstance(error, StoreError):
                        raise
                    if left == batch:
                        raise layout.unreadable(place, table, error) from error
                    batch = left
            read += batch
    return results, read


def _open(place: Place, table: str, name: str, size: int) -> Any:
    """Returns a file as a fragment of a dataset, its metadata read and its version checked."""
    # Imported late: pyarrow.dataset imports pandas where that is installed.
    import pyarrow.dataset as ds

    file = f"{table}/{name}"
    try:
        fragment = ds.ParquetFileFormat().make_fragment(
            place.within(file), place.filesystem, file_size=size
        )
        metadata = fragment.metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise layout.unreadable(place, file, error) from error
    version = int(metadata.get(b"eigentrace_schema_version", b"0"))
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{place.at(file)} was written by a newer version (schema {version}, this one reads up "
            f"to {SCHEMA_VERSION})",
            "update Eigentrace to the version that wrote these results, or a later one",
        )
    return fragment


def _dataset(place: Place, table: str, fragments: Sequence[Any]) -> Any:
    import pyarrow.dataset as ds

    format_ = ds.ParquetFileFormat()
    return ds.FileSystemDataset(list(fragments), TABLES[table], format_, place.filesystem)


def _sizes(place: Place, table: str) -> dict[str, int]:
    try:
        return place.sizes(table)
    except (pa.ArrowException, OSError) as error:
        raise layout.unreadable(place, table, error) from error
