"""Tells what differs between two results: lines for people, counts for programs."""

from collections.abc import Sequence
from typing import Any

from dashboards.diff import ColumnDifference, TableDifference

_SHOWN_CHARACTERS = 60


def summary(differences: Sequence[TableDifference]) -> dict[str, Any]:
    """Returns counts and largest differences, as the last line of output tells them.

    Args:
        differences: What `diff` found.

    Returns:
        `code` (0: the results agree, 1: they differ) and, for every table that differs, `tables`.
    """
    tables = {
        found.table: {
            "only_first": len(found.only_first),
            "only_second": len(found.only_second),
            "both": found.both,
            "differing": found.differing,
            "columns": {
                column.column: {
                    "rows": column.rows,
                    "largest_absolute": column.largest_absolute,
                    "largest_relative": column.largest_relative,
                }
                for column in found.columns
            },
        }
        for found in differences
    }
    return {"code": 1 if differences else 0, "tables": tables}


def lines(differences: Sequence[TableDifference], *, most: int = 5) -> list[str]:
    """Tells people what differs.

    Args:
        differences: What `diff` found.
        most: How many cells to name of those that one of the results lacks; others are counted.

    Returns:
        Lines of text: of each table its counts, its cells, and its columns.
    """
    told = []
    for found in differences:
        aside = " (tracebacks and attempts aside)" if found.table == "failures" else ""
        told.append(
            f"{found.table}: {found.differing:,} of {found.both:,} cells in both differ{aside}, "
            f"{len(found.only_first):,} are only in the first, "
            f"{len(found.only_second):,} only in the second"
        )
        counts = [f"{c.first} rows, then {c.second}: {c.cell}" for c in found.row_counts]
        told += _few(counts, most)
        told += _few([f"only in the first: {cell}" for cell in found.only_first], most)
        told += _few([f"only in the second: {cell}" for cell in found.only_second], most)
        told += [f"  {_told(column)}" for column in found.columns]
    return told


def _few(told: Sequence[str], most: int) -> list[str]:
    more = [f"… and {len(told) - most:,} more"] if len(told) > most else []
    return [f"  {line}" for line in (*told[:most], *more)]


def _told(found: ColumnDifference) -> str:
    parts = [f"{found.column}: {found.rows:,} rows of {found.cells:,} cells"]
    if found.largest_absolute is not None and found.largest_relative is not None:
        parts.append(
            f"by up to {found.largest_absolute:.3g} (relative {found.largest_relative:.2g})"
        )
        if found.without_size:
            parts.append(f"{found.without_size:,} of them null, NaN or infinite on one side")
    example = found.example
    place = "" if example.place is None else f", place {example.place}"
    values = (_short(value) for value in (example.first, example.second))
    return f"{', '.join(parts)}; {' → '.join(values)} in {example.cell}, row {example.row}{place}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
