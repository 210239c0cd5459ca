"""Reads tables of the results. Unfinished files are never read, no row is given twice."""

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.errors import StoreError, UsageError
from jobs.records import MARKER, SCHEMA_VERSION, SIDE_TABLES, TABLES

_PRIMARY = {"influences": "geometry"}
_ORDER = ("suite", "model", "step", "layer", "cell_id", "row")


def load(table: str, results: str | Path, *, columns: Collection[str] | None = None) -> pa.Table:
    """Reads one table of the results.

    Rows are deduplicated by (cell_id, row); a row of a side table counts only once its cell's
    primary table is written. The order is by suite, model, step, layer, cell_id and row, unknown
    steps last, so that equal results give equal tables.

    Args:
        table: Name of the table, one of `jobs.records.TABLES`.
        results: Folder of the results.
        columns: Names of the columns to read, all where it is left out; a report over many
            checkpoints has no use for every token's norm.

    Returns:
        The rows, in the table's schema; no rows where nothing of the kind was measured yet.

    Raises:
        UsageError: There is no table of that name.
        StoreError: The folder holds no results, a file is damaged, or a newer version wrote it.
    """
    schema = _schema(table)
    check_results(results)
    wanted = [name for name in schema.names if columns is None or name in columns]
    needed = [name for name in schema.names if name in wanted or name in _ORDER]
    rows = _deduplicate(_read(Path(results), table, needed))
    if table in SIDE_TABLES:
        complete = _read(Path(results), _PRIMARY[table], ["cell_id"]).column("cell_id")
        rows = rows.filter(pc.is_in(rows.column("cell_id"), value_set=pc.unique(complete)))
    keys = [(name, "ascending") for name in _ORDER if name in schema.names]
    rows = rows.take(pc.sort_indices(rows, sort_keys=keys)).select(wanted)
    return rows.replace_schema_metadata(schema.metadata)


def provenance(results: str | Path) -> list[dict[str, Any]]:
    """Reads how the rows came to be from the metadata of every finished file.

    Args:
        results: Folder of the results.

    Returns:
        One record per file that carries `eigentrace_provenance`, or several where a compacted
        file carries a list; by table and file name.

    Raises:
        StoreError: The folder holds no results, a file is damaged, or a newer version wrote it.
    """
    check_results(results)
    records: list[dict[str, Any]] = []
    for table in sorted(TABLES):
        for path in _files(Path(results), table):
            text = _file_metadata(path).get(b"eigentrace_provenance")
            if text is None:
                continue
            try:
                record = json.loads(text)
            except ValueError as error:
                raise _damaged(path, error) from error
            records.extend(record if isinstance(record, list) else [record])
    return records


def check_results(results: str | Path) -> None:
    """Refuses a folder that holds no results, or results of a newer version.

    Args:
        results: Folder of the results.

    Raises:
        StoreError: The folder or its marker is missing or unreadable, or a newer version wrote it.
    """
    folder = Path(results)
    if not folder.is_dir():
        raise StoreError(
            f"there is no results folder {results}",
            "check --results, or run a study first: python -m orchestrator.run full",
        )
    marker = folder / MARKER
    if not marker.is_file():
        raise StoreError(
            f"{results} is not a results folder: it has no {MARKER}",
            "name the folder that a study wrote, or run one: python -m orchestrator.run full",
        )
    try:
        version = int(json.loads(marker.read_text(encoding="utf-8"))["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read as JSON with a whole number under format",
            f'restore it from a backup, or write {{"format": {SCHEMA_VERSION}}} into it',
        ) from error
    _check_version(version, marker)


def _schema(table: str) -> pa.Schema:
    if table in TABLES:
        return TABLES[table]
    near = difflib.get_close_matches(table, TABLES, n=1, cutoff=0.4)
    names = ", ".join(sorted(TABLES))
    hint = f"did you mean {near[0]}? The tables are {names}" if near else f"the tables are {names}"
    raise UsageError(f"there is no table {table!r}", hint)


def _files(results: Path, table: str) -> list[Path]:
    return sorted(
        path
        for path in (results / table).glob("*.parquet")
        if not path.name.startswith((".", "_")) and path.is_file()
    )


def _read(results: Path, table: str, columns: list[str]) -> pa.Table:
    try:
        return _read_once(results, table, columns)
    except FileNotFoundError:
        # A compaction replaced many files by one while we read: list them again.
        return _read_once(results, table, columns)


def _read_once(results: Path, table: str, columns: list[str]) -> pa.Table:
    # Imported late: pyarrow.dataset imports pandas where that is installed.
    import pyarrow.dataset as ds

    paths = _files(results, table)
    for path in paths:
        version = _file_metadata(path).get(b"eigentrace_schema_version", b"0")
        _check_version(int(version), path)
    if not paths:
        return TABLES[table].empty_table().select(columns)
    dataset = ds.dataset([str(path) for path in paths], schema=TABLES[table], format="parquet")
    try:
        return dataset.to_table(columns=columns)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(results / table, error) from error


def _file_metadata(path: Path) -> dict[bytes, bytes]:
    try:
        return pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _deduplicate(rows: pa.Table) -> pa.Table:
    keys = rows.select(["cell_id", "row"]).append_column("place", pa.array(np.arange(len(rows))))
    first = keys.group_by(["cell_id", "row"]).aggregate([("place", "min")]).column("place_min")
    return rows if len(first) == len(rows) else rows.take(first)


def _check_version(version: int, path: Path) -> None:
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION})",
            "update eigentrace to the version that wrote these results, or a later one",
        )


def _damaged(path: Path, error: Exception) -> StoreError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StoreError(
        f"{path} is damaged: {detail}",
        "delete the damaged file and run the study again: only its cells are repeated",
    )
