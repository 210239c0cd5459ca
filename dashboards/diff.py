"""What differs between two results, beyond provenance: cells by their ids, values by their size.

The same inputs give the same cell id everywhere, so rows are matched by (cell_id, row) alone;
neither files nor their order count.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboards.distances import Places, distances, within_lists
from dashboards.query import load
from jobs.place import Place
from jobs.records import SIDE_TABLES, TABLES

Results = str | Path | Place
"""Where results lie."""

_KEY = ("cell_id", "row")
_ASIDE = frozenset({"traceback", "attempts"})
"""How a cell failed, not why: tracebacks carry paths, and attempts the luck of a run."""

_LABELS = ("kind", "dataset", "unigram_dataset", "task")


@dataclass(frozen=True)
class NamedCell:
    """A cell, with what people call it: `suite/model@revision` and the text."""

    cell_id: str
    label: str

    def __str__(self) -> str:
        return f"{self.label} [{self.cell_id[:12]}]"


@dataclass(frozen=True)
class RowCount:
    """A cell that has more rows in one of the results."""

    cell: NamedCell
    first: int
    second: int


@dataclass(frozen=True)
class Example:
    """One value that differs.

    Attributes:
        cell: Its cell.
        row: Its row in the cell.
        place: Its place in the row's list; None where the row holds no list, or the lists as a
            whole differ.
        first: What the first results hold.
        second: What the second results hold.
    """

    cell: NamedCell
    row: int
    place: int | None
    first: Any
    second: Any


@dataclass(frozen=True)
class ColumnDifference:
    """A column whose values differ in rows that both results have.

    Attributes:
        column: Its name.
        rows: Rows that differ.
        cells: Their cells.
        without_size: Those of the rows that differ by no finite amount: text, null, NaN or infinity
            on one side, lists of unequal lengths.
        largest_absolute: Largest |a − b|; None where no row has a size.
        largest_relative: Largest |a − b| / max(|a|, |b|), where a and b stand in a list over the
            largest magnitude in both lists: noise in the tail of a spectrum is small.
        example: A row without a size if there is one, else the largest relative difference.
    """

    column: str
    rows: int
    cells: int
    without_size: int
    largest_absolute: float | None
    largest_relative: float | None
    example: Example


@dataclass(frozen=True)
class TableDifference:
    """A table that is not the same in both results.

    Attributes:
        table: Its name.
        only_first: Cells that only the first results have.
        only_second: Cells that only the second results have.
        both: How many cells both have.
        differing: How many of those differ, in their values or their number of rows.
        row_counts: Cells of both whose numbers of rows differ.
        columns: Columns that differ, the largest differences first.
    """

    table: str
    only_first: tuple[NamedCell, ...]
    only_second: tuple[NamedCell, ...]
    both: int
    differing: int
    row_counts: tuple[RowCount, ...]
    columns: tuple[ColumnDifference, ...]


def diff(
    first: Results, second: Results, *, relative_tolerance: float = 0.0
) -> list[TableDifference]:
    """Compares two results, table by table.

    Of failures, tracebacks and numbers of attempts are not compared, nor are failures of cells
    that were done since.

    Args:
        first: Place of some results.
        second: Place of others.
        relative_tolerance: Numbers whose relative difference is no larger count as equal; 0 asks
            for the same value.

    Returns:
        The tables that differ, failures last; none if the results agree.

    Raises:
        StoreError: One of the places holds no results, or results that cannot be read.
    """
    places = (first, second)
    done: tuple[set[str], set[str]] = (set(), set())
    differences = []
    for table in sorted(TABLES, key=lambda name: name == "failures"):
        names = [f.name for f in TABLES[table] if not pa.types.is_list(f.type)]
        pair = [load(table, place, columns=set(names) - _ASIDE) for place in places]
        for number, ids in enumerate(done):
            cells = pair[number].column("cell_id")
            if table == "failures":
                since = pc.is_in(cells, pa.array(sorted(ids), pa.string()))
                pair[number] = pair[number].filter(pc.invert(since))
            elif table not in SIDE_TABLES:
                ids.update(cells.to_pylist())
        differences.append(_compare(table, pair, places, relative_tolerance))
    return [found for found in differences if found is not None]


def _compare(
    table: str, pair: Sequence[pa.Table], places: Sequence[Results], tolerance: float
) -> TableDifference | None:
    """Compares one table, whose columns without lists are given."""
    first, second = (Counter(rows.column("cell_id").to_pylist()) for rows in pair)
    unlike = [cell for cell in first if cell in second and first[cell] != second[cell]]
    changed = set(unlike)
    columns = []
    for names, a, b in _parts(table, pair, places):
        ours, theirs = _matched(a, b)
        cells = a.column("cell_id").take(pa.array(ours))
        for name in names:
            found = distances(a.column(name), b.column(name), ours, theirs, tolerance)
            rows = np.flatnonzero(found.absolute != 0)
            if len(rows):
                touched = cells.take(pa.array(rows)).unique().to_pylist()
                changed.update(touched)
                sizes = found.absolute[rows], found.relative[rows]
                # The first without a size, else the largest: argmax finds NaN first.
                at = rows[np.argmax(sizes[1])]
                example = _example(pair[0], a, b, int(ours[at]), int(theirs[at]), name, tolerance)
                columns.append(
                    ColumnDifference(name, len(rows), len(touched), *_largest(*sizes), example)
                )
    if not changed and first.keys() == second.keys():
        return None
    return TableDifference(
        table,
        _named(pair[0], (cell for cell in first if cell not in second)),
        _named(pair[1], (cell for cell in second if cell not in first)),
        both=len(first.keys() & second.keys()),
        differing=len(changed),
        row_counts=tuple(
            RowCount(cell, first[cell.cell_id], second[cell.cell_id])
            for cell in _named(pair[0], unlike)
        ),
        columns=tuple(sorted(columns, key=_gravity)),
    )


def _parts(
    table: str, pair: Sequence[pa.Table], places: Sequence[Results]
) -> Iterator[tuple[list[str], pa.Table, pa.Table]]:
    """Yields the columns of both results: those without lists, then one of lists at a time."""
    yield [name for name in pair[0].column_names if name not in _KEY], pair[0], pair[1]
    if not len(pair[0]) or not len(pair[1]):
        return
    for field in TABLES[table]:
        if pa.types.is_list(field.type):
            a, b = (load(table, place, columns=[*_KEY, field.name]) for place in places)
            yield [field.name], a, b


def _matched(first: pa.Table, second: pa.Table) -> tuple[Places, Places]:
    """Returns the places, in both tables, of the rows that both have."""
    chunks = [*first.column("cell_id").chunks, *second.column("cell_id").chunks]
    codes = pa.chunked_array(chunks, pa.string()).dictionary_encode()
    cells = np.concatenate([[], *(chunk.indices.to_numpy() for chunk in codes.chunks)])
    rows = [table.column("row").to_numpy() for table in (first, second)]
    keys = (cells.astype(np.int64) << 32) | np.concatenate(rows)
    _, ours, theirs = np.intersect1d(
        keys[: len(first)], keys[len(first) :], assume_unique=True, return_indices=True
    )
    return ours, theirs


def _largest(*sizes: Any) -> tuple[int, float | None, float | None]:
    """Returns how many rows have no size, and the largest absolute and relative of the others."""
    none = np.isnan(sizes[0])
    if none.all():
        return int(none.sum()), None, None
    return int(none.sum()), float(np.nanmax(sizes[0])), float(np.nanmax(sizes[1]))


def _example(
    named: pa.Table, a: pa.Table, b: pa.Table, ours: int, theirs: int, name: str, tolerance: float
) -> Example:
    """Returns a row's values, or those of the element of its lists that differs most."""
    first, second = a.column(name)[ours], b.column(name)[theirs]
    cell_id, row = a.column("cell_id")[ours].as_py(), a.column("row")[ours].as_py()
    place = None
    if pa.types.is_list(first.type):
        elements = within_lists(first, second, tolerance)
        if elements is not None:
            place = int(np.argmax(elements.relative))
            first, second = first.values[place], second.values[place]
    (cell,) = _named(named, [cell_id])
    return Example(cell, row, place, first.as_py(), second.as_py())


def _named(rows: pa.Table, cells: Iterable[str]) -> tuple[NamedCell, ...]:
    """Returns cells with their labels, from the first row of each."""
    wanted = pa.array(list(cells), pa.string())
    chosen = rows.take(pc.index_in(wanted, value_set=rows.column("cell_id")))
    return tuple(NamedCell(row["cell_id"], _label(row)) for row in chosen.to_pylist())


def _label(row: dict[str, Any]) -> str:
    checkpoint = "/".join(filter(None, (row["suite"], row["model"])))
    revision = f"@{row['revision']}" if row["revision"] else ""
    texts = (str(row[name]) for name in _LABELS if row.get(name))
    return " ".join(filter(None, (checkpoint + revision, *texts)))


def _gravity(column: ColumnDifference) -> tuple[bool, float]:
    return not column.without_size, -(column.largest_relative or 0.0)
