"""Checkpoints with known weights, and results joined under the names of their folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboards.atlas import Atlas
from dashboards.query import merge
from tests.dashboards import synthetic

A, B = "a" * 64, "b" * 64
"""Weights."""


def checkpoint(results: Path, weights: str, step: int = 512, **columns: Any) -> None:
    row = {**synthetic.keys("checkpoints", "pico-64", step), "weights_sha256": weights, "d": 64}
    synthetic.write(results, "checkpoints", [{**row, **columns}])


def joined(*results: Path, **options: Any) -> Atlas:
    return merge(*results, names=[place.name for place in results], **options)


def rows_of(atlas: Atlas, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = atlas.tables[table].to_pylist()
    return rows


def told(atlas: Atlas) -> list[tuple[str, str, str, Sequence[str]]]:
    return [
        (row["kind"], row["table"], row["column"], row["values"])
        for row in atlas.conflicts.to_pylist()
    ]
