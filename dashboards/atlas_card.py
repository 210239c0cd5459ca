"""The card of published results: what is in them, what each column means, how they came to be."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa

from dashboards.atlas import Atlas
from dashboards.atlas_scrub import scrubbed_text
from dashboards.tables import natural
from jobs import __version__

_TOLD = ("eigentrace", "python", "libraries", "device", "dtype", "threads")
"""What provenance says that may be known to all; the rest tells where a cell ran."""

_SHOWN = 20


def card(atlas: Atlas, tables: Mapping[str, pa.Table], form: str, license_id: str) -> str:
    """Writes the card.

    Args:
        atlas: What is published.
        tables: Its tables as they are written.
        form: Suffix of their files.
        license_id: Identifier of the license.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - it is Markdown; `cell` escapes what would break a table.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell)
    conflicts = tables["conflicts"].to_pylist() if "conflicts" in tables else []
    return environment.get_template("atlas_card.md.j2").render(
        version=__version__,
        license=license_id,
        form=form,
        tables={name: _described(rows) for name, rows in tables.items()},
        columns={
            name: [(f.name, str(f.type), *_meaning(f)) for f in rows.schema]
            for name, rows in tables.items()
        },
        sources=[(source, _rows_of(tables, source)) for source in atlas.sources],
        studies=[scrubbed_text(study) for study in atlas.studies],
        provenance=_provenance(atlas),
        failures=_failures(atlas.tables["failures"]),
        conflicts=conflicts[:_SHOWN],
        n_conflicts=len(conflicts),
    )


def _described(rows: pa.Table) -> dict[str, int]:
    names = ("cell_id", "weights_fingerprint")
    return {"rows": len(rows)} | {
        name: len(rows[name].unique().drop_null()) if name in rows.column_names else 0
        for name in names
    }


def _meaning(field: pa.Field) -> tuple[str, str]:
    known = field.metadata or {}
    return known.get(b"unit", b"").decode(), known.get(b"definition", b"").decode()


def _rows_of(tables: Mapping[str, pa.Table], source: str) -> int:
    """Returns how many of the rows a source holds."""
    held = (
        pair.as_py()
        for rows in tables.values()
        if "source" in rows.column_names
        for pair in rows["source"].value_counts()
    )
    return sum(found["counts"] for found in held if source in found["values"].split("+"))


def _provenance(atlas: Atlas) -> list[tuple[str, list[str]]]:
    """Collects what may be told of how the rows came to be: names and their distinct values."""
    values: dict[str, set[str]] = defaultdict(set)
    for record in atlas.provenance:
        for name in _TOLD:
            found = record.get(name)
            parts = found.items() if isinstance(found, dict) else [("", found)]
            for part, value in parts:
                if value is not None:
                    values[f"{name} {part}".strip()].add(scrubbed_text(str(value)))
    return [(name, sorted(values[name], key=natural)) for name in sorted(values)]


def _failures(rows: pa.Table) -> list[tuple[str, str, int]]:
    """Counts cells that were given up, by kind and cause."""
    pairs: Any = zip(rows["kind"].to_pylist(), rows["cause"].to_pylist(), strict=True)
    return [(str(k), str(c), n) for (k, c), n in sorted(Counter(pairs).items(), key=str)]


def _cell(value: object) -> str:
    """Returns a text for a cell of a Markdown table."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(str(value).split()))
