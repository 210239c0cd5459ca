"""Writes joined results as a folder that `datasets` loads and that can be published as it is.

Invariant: the folder appears whole or not at all, and replaces nothing but an export that is as
it was written; nothing in it tells of machines or of people, but for the names of the sources.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dashboards.atlas import Atlas
from dashboards.atlas_card import card
from dashboards.atlas_scrub import scrubbed
from jobs.errors import StoreError, UsageError
from jobs.folders import flush_folder
from jobs.place import Place

Format = Literal["parquet", "csv"]

MARKER = "eigentrace-export.json"
"""File that says that a folder is an export, with the SHA-256 of each of its files."""

_GROUP_BYTES = 64 * 2**20


def export(atlas: Atlas, folder: Path, form: Format, license_id: str) -> dict[str, int]:
    """Writes joined results, a file per table that has rows, and a card.

    Failures stay out: their messages tell of machines, and the card counts them.

    Args:
        atlas: What to write.
        folder: Where to; an export that lies there unchanged is replaced.
        form: `parquet` keeps lists; `csv` has them as JSON, in which numbers that JSON lacks are
            the texts "NaN", "Infinity" and "-Infinity".
        license_id: The license's identifier on the hub, for the card.

    Returns:
        The number of rows of each table that was written.

    Raises:
        UsageError: The license's identifier is malformed.
        StoreError: The folder holds something else, or cannot be written.
    """
    target = check_export(folder, license_id)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    whole = {**atlas.tables, "conflicts": atlas.conflicts}
    tables = {
        name: scrubbed(rows) for name, rows in whole.items() if len(rows) and name != "failures"
    }
    try:
        _write(Place(temporary), tables, card(atlas, tables, form, license_id), form)
        check_export(target, license_id)  # Someone may have put something there meanwhile.
        _publish(temporary, target)
    except (OSError, pa.ArrowException) as error:
        remedy = "make room, or name another folder with --to"
        raise Place(target).failure("cannot write", error, remedy) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {name: len(rows) for name, rows in tables.items()}


def check_export(folder: Path, license_id: str) -> Path:
    """Refuses what `export` would refuse, before any work is done.

    Args:
        folder: Where to export to.
        license_id: The license's identifier.

    Returns:
        The folder as it is named without links.

    Raises:
        UsageError: The identifier is malformed.
        StoreError: The folder holds anything but an export that is as it was written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license_id):
        raise UsageError(
            f"{license_id!r} is no identifier of a license",
            "name it as the hub does: cc-by-4.0, apache-2.0, odc-by, other, unknown …",
        )
    remedy = "name a new or an empty folder with --to"
    target = folder.expanduser().resolve()
    try:
        if target.exists() and not target.is_dir():
            raise StoreError(f"{target} is a file", remedy)
        wrong = _foreign(target)
    except OSError as error:
        raise Place(target).failure("cannot read", error, remedy) from error
    if wrong:
        raise StoreError(f"{target} {wrong}", remedy)
    return target


def _foreign(target: Path) -> str:
    """Says what of a folder is no export as it was written; empty for nothing."""
    there = {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}
    if not there:
        return ""
    try:
        known = dict(json.loads((target / MARKER).read_text(encoding="utf-8"))["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "is not empty, and no export"
    for name in sorted(there - {MARKER}):
        if name not in known:
            return f"is an export, but {name} in it is something else"
        if _sha256(target / name) != known[name]:
            return f"is an export, but its {name} was changed since"
    return ""


def _write(place: Place, tables: dict[str, pa.Table], text: str, form: Format) -> None:
    write: Callable[[pa.Table, IO[bytes]], None] = _parquet if form == "parquet" else _csv
    place.write("README.md", text.encode())
    for name, rows in tables.items():
        with place.writer(f"{name}.{form}") as stream:
            write(rows, stream)
    files = {path.name: _sha256(path) for path in sorted(place.path.iterdir())}
    place.write(MARKER, json.dumps({"format": 1, "files": files}, indent=1).encode())


def _publish(temporary: Path, target: Path) -> None:
    """Gives a folder its name; an earlier export goes only once the new one is there."""
    aside = temporary.with_suffix(".old")
    if target.exists():
        target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    flush_folder(target.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _parquet(rows: pa.Table, stream: IO[bytes]) -> None:
    group = max(1, _GROUP_BYTES * len(rows) // max(rows.nbytes, 1))
    pq.write_table(rows, stream, compression="zstd", row_group_size=group)


def _csv(rows: pa.Table, stream: IO[bytes]) -> None:
    from pyarrow import csv

    for place, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            texts = [_json(values) for values in rows.column(place).to_pylist()]
            rows = rows.set_column(place, field.name, pa.array(texts, pa.string()))
    csv.write_csv(rows, stream)


def _json(values: list[Any] | None) -> str | None:
    if values is None:
        return None
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except ValueError:  # Not finite, as the logarithm of 0.
        plain = [_spelled(value) if isinstance(value, float) else value for value in values]
        return json.dumps(plain, ensure_ascii=False)


def _spelled(value: float) -> float | str:
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else ("Infinity" if value > 0 else "-Infinity")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
