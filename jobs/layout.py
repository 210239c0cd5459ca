"""How a table's rows lie in its files. A cell's own file outranks every merged copy of its rows.

A cell writes `<table>/<cell_id>.parquet`; `compact` merges many of them into one file. The
provenance of the rows is metadata of the file: a record in a cell's own file; in a merged one the
distinct records, once each, and for every cell its record and its seconds.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.errors import StoreError
from jobs.place import Place
from jobs.records import MARKER, SCHEMA_VERSION

PROVENANCE = b"eigentrace_provenance"
"""Key of a file's metadata."""

_SUFFIX = ".parquet"
_ID_LENGTH = 64


def read_marker(place: Place) -> dict[str, Any] | None:
    """Reads the file that says that a place holds results; None where there is none.

    Raises:
        StoreError: It is malformed, or a newer version wrote it.
        OSError: The place cannot be read.
    """
    if not place.exists(MARKER):
        return None
    try:
        found: dict[str, Any] = json.loads(place.read(MARKER))
        version = int(found["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{place.at(MARKER)} is malformed: it is no JSON with a whole number under format",
            f'restore it from a backup, or write {{"format": {SCHEMA_VERSION}}} into it',
        ) from error
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{place.at(MARKER)} was written by a newer version (format {version}, this one reads "
            f"up to {SCHEMA_VERSION})",
            "update Eigentrace, or name another place with --results",
        )
    return found


def own_file(table: str, cell_id: str) -> str:
    """Returns the name of the file that a cell writes."""
    return f"{table}/{cell_id}{_SUFFIX}"


def divided(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Tells a table's finished files apart.

    Args:
        names: Names within the table's folder.

    Returns:
        The own file of each cell by cell id, and the names of the merged files.
    """
    own: dict[str, str] = {}
    merged: list[str] = []
    for name in names:
        stem = name.removesuffix(_SUFFIX)
        if stem == name or not stem or name.startswith((".", "_")):
            continue  # Unfinished, or not ours.
        if len(stem) == _ID_LENGTH:
            own[stem] = name
        else:
            merged.append(name)
    return own, merged


def pack(records: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Returns the provenance of many cells, as metadata of their merged file.

    Args:
        records: Each cell's record by cell id.
    """
    places: dict[str, int] = {}
    cells: dict[str, list[Any]] = {}
    for cell_id, record in records.items():
        shared = {name: value for name, value in record.items() if name != "seconds"}
        place = places.setdefault(json.dumps(shared, sort_keys=True), len(places))
        cells[cell_id] = [place, record["seconds"]] if "seconds" in record else [place]
    text = json.dumps({"cells": cells}, separators=(",", ":"))
    return f'{{"records":[{",".join(places)}],{text[1:]}'.encode()


def unpack(metadata: Mapping[bytes, bytes], cell_id: str | None) -> dict[str, dict[str, Any]]:
    """Returns each cell's provenance by cell id, from the metadata of a file.

    Args:
        metadata: The file's metadata.
        cell_id: The cell whose own file it is; None for a merged one.

    Raises:
        ValueError: It is malformed.
    """
    text = metadata.get(PROVENANCE)
    if text is None:
        return {}
    found = json.loads(text)
    if cell_id is not None:
        return {cell_id: found}
    try:
        return {
            cell: found["records"][place] | ({"seconds": seconds[0]} if seconds else {})
            for cell, (place, *seconds) in found["cells"].items()
        }
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"its provenance is malformed: {error!r}") from error


def unreadable(place: Place, name: str, error: Exception) -> StoreError:
    """Returns the error that tells the user of a file that cannot be read."""
    remedy = "if it is damaged, delete it and run the study again: only its cells are repeated"
    return place.failure("cannot read", error, remedy, name)
