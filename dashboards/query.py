"""Reads tables of the results. Unfinished files are never read, no row is given twice."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboards import files
from jobs import layout
from jobs.errors import StoreError, UsageError
from jobs.place import Place
from jobs.records import MARKER, SIDE_TABLES, TABLES

if TYPE_CHECKING:
    from dashboards.atlas import Atlas

DERIVED = ("phases", "toy_phases", "correlations", "capability_correlations", "advice")
"""Tables that are computed from the others when they are read."""

_KEPT: ContextVar[dict[tuple[str, str], pa.Table] | None] = ContextVar("kept", default=None)
"""Tables that were read within `read_once`, by name and place."""

_PRIMARY = {
    "influences": "geometry",
    "judgements": "winrates",
    "likelihoods": "memorization",
    "outcomes": "evals",
    "sweeps": "geometry",
    "updates": "finetunes",
}
ORDER = ("suite", "model", "step", "layer", "cell_id", "row")


def load(
    table: str, results: str | Path | Place, *, columns: Collection[str] | None = None
) -> pa.Table:
    """Reads one table of the results.

    Rows are deduplicated by (cell_id, row), and a cell's own file outranks merged ones; a row of a
    side table counts only once its cell's primary table is written. The order is by suite, model,
    step, layer, cell_id and row, unknown steps last, so that equal results give equal tables.

    Args:
        table: Name of the table, one of `jobs.records.TABLES` or of `DERIVED`.
        results: Folder or URL of the results.
        columns: Names of the columns to read, all where it is left out; a report over many
            checkpoints has no use for every token's norm.

    Returns:
        The rows, in the table's schema; no rows where nothing of the kind was measured yet.

    Raises:
        UsageError: There is no table of that name.
        StoreError: The place holds no results, a file is damaged, or a newer version wrote it.
    """
    kept = _KEPT.get()
    if kept is None or (table not in DERIVED and not _is_light(table, columns)):
        return _loaded(table, results, columns)
    key = (table, Place(results).at(MARKER))
    if key not in kept:
        light = None if table in DERIVED else [f.name for f in _schema(table) if not _is_list(f)]
        kept[key] = _loaded(table, results, light)
    found = kept[key]
    return (
        found if columns is None else found.select([n for n in found.column_names if n in columns])
    )


@contextmanager
def read_once() -> Iterator[None]:
    """Within it, a table is read once, and a derived one made once, however often it is asked for.

    Lists, such as spectra, are read anew each time: they are large. What others write meanwhile is
    not seen, so that everything made within goes by the same rows.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def _is_light(table: str, columns: Collection[str] | None) -> bool:
    wanted = [field for field in _schema(table) if columns is None or field.name in columns]
    return not any(map(_is_list, wanted))


def _is_list(field: pa.Field) -> bool:
    return bool(pa.types.is_list(field.type))


def _loaded(table: str, results: str | Path | Place, columns: Collection[str] | None) -> pa.Table:
    if table in DERIVED:
        return _derived(table, results, columns)
    schema = _schema(table)
    place = check_results(results)
    wanted = [name for name in schema.names if columns is None or name in columns]
    needed = [name for name in schema.names if name in wanted or name in ORDER]
    rows = _deduplicate(files.rows(place, table, needed))
    if table in SIDE_TABLES:
        complete = pa.array(files.cells(place, _PRIMARY[table]), pa.string())
        rows = rows.filter(pc.is_in(rows.column("cell_id"), value_set=complete))
    keys = [(name, "ascending") for name in ORDER if name in schema.names]
    rows = rows.take(pc.sort_indices(rows, sort_keys=keys)).select(wanted)
    return rows.replace_schema_metadata(schema.metadata)


def merge(
    *results: str | Path | Place,
    names: Sequence[str] | None = None,
    relative_tolerance: float = 1e-3,
    absolute_tolerance: float = 1e-6,
) -> "Atlas":
    """Joins results of several people by the fingerprints of the checkpoints' weights.

    Cells that several hold alike become one. The same cell, or the same weights measured with the
    same parameters, with other values is a conflict, and so is a label that stands for other
    weights elsewhere: then all rows stay, marked in the column `conflict`. The same weights under
    other labels are joined by their fingerprint; `also_known_as` has the other labels.

    Args:
        results: Folders or URLs of results.
        names: What to call them in the column `source`; their numbers, from 1 on, if left out,
            since folders carry names of users.
        relative_tolerance: Numbers that differ by no more, relative to the larger one, are equal;
            machines differ by about 1e-5 in a float32 pass.
        absolute_tolerance: Numbers that differ by no more are equal however small they are.

    Returns:
        The joined tables, all in memory, and a table of conflicts.

    Raises:
        UsageError: There are no results, or the names don't fit them.
        StoreError: A place holds no results, or results that cannot be read.
    """
    # Imported here: it reads its tables through `load`.
    from dashboards.atlas import merge as join

    places = [Place(place) for place in results]
    return join(places, names, relative_tolerance, absolute_tolerance)


def provenance(results: str | Path | Place) -> list[dict[str, Any]]:
    """Reads how the rows came to be from the metadata of every finished file.

    Args:
        results: Folder or URL of the results.

    Returns:
        The record of each cell that has one, by table and cell id, whether or not its rows were
        merged with those of other cells. A side table's are those of its primary table.

    Raises:
        StoreError: The place holds no results, a file is damaged, or a newer version wrote it.
    """
    place = check_results(results)
    records: list[dict[str, Any]] = []
    for table in sorted(TABLES.keys() - SIDE_TABLES):
        found = files.provenance(place, table)
        records.extend(found[cell_id] for cell_id in sorted(found))
    return records


def check_results(results: str | Path | Place) -> Place:
    """Refuses a place that holds no results, or results of a newer version.

    Args:
        results: Folder or URL of the results.

    Returns:
        The place.

    Raises:
        StoreError: The place or its marker is missing or unreadable, or a newer version wrote it.
    """
    place = Place(results)
    try:
        if layout.read_marker(place) is not None:
            return place
        there = place.is_there()
    except (pa.ArrowException, OSError) as error:
        raise layout.unreadable(place, MARKER, error) from error
    if there:
        raise StoreError(
            f"{results} is not a results folder: it has no {MARKER}",
            "name the folder that a study wrote, or run one: python -m orchestrator.run full",
        )
    raise StoreError(
        f"there is no {'results folder' if place.is_local else 'bucket for'} {results}",
        "check --results, or run a study first: python -m orchestrator.run full",
    )


def _derived(table: str, results: str | Path | Place, columns: Collection[str] | None) -> pa.Table:
    # Imported here: they read their tables through `load`.
    from dashboards.advisor import advice_table
    from dashboards.capability_correlations import capability_correlations
    from dashboards.correlations import correlations
    from dashboards.phases import phases
    from dashboards.toy_phases import toy_phases

    tables = {
        "phases": phases,
        "toy_phases": toy_phases,
        "correlations": correlations,
        "capability_correlations": capability_correlations,
        "advice": advice_table,
    }
    found = tables[table](check_results(results))
    return (
        found if columns is None else found.select([n for n in found.column_names if n in columns])
    )


def _schema(table: str) -> pa.Schema:
    if table in TABLES:
        return TABLES[table]
    known = [*TABLES, *DERIVED]
    near = difflib.get_close_matches(table, known, n=1, cutoff=0.4)
    names = ", ".join(sorted(known))
    hint = f"did you mean {near[0]}? The tables are {names}" if near else f"the tables are {names}"
    raise UsageError(f"there is no table {table!r}", hint)


def _deduplicate(rows: pa.Table) -> pa.Table:
    keys = rows.select(["cell_id", "row"]).append_column("place", pa.array(np.arange(len(rows))))
    first = keys.group_by(["cell_id", "row"]).aggregate([("place", "min")]).column("place_min")
    return rows if len(first) == len(rows) else rows.take(first)
