"""The figures' data as the page carries them: columns instead of rows, numbers to 6 digits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.tables import Row

_DIGITS = 6
"""Significant digits of a number that is no whole one; the tables of the results have all."""

_FEWEST = 4


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Packs rows for the page, which unpacks them.

    Args:
        rows: Rows of plain values, not all of which need the same keys.

    Returns:
        `n`, the number of rows, and `columns`. A column is one value that all rows have
        (`same`), distinct values and each row's place among them (`distinct`, `places`), or a
        list of values (`values`).
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {"n": len(rows), "columns": {n: _column([row.get(n) for row in rows]) for n in names}}


def unpacked(data: Mapping[str, Any]) -> list[Row]:
    """Returns the rows of packed ones, as the page's script does."""

    def value(column: Mapping[str, Any], place: int) -> Any:
        if "same" in column:
            return column["same"]
        if "places" in column:
            return column["distinct"][column["places"][place]]
        return column["values"][place]

    return [
        {name: value(column, place) for name, column in data["columns"].items()}
        for place in range(data["n"])
    ]


def _column(values: Sequence[Any]) -> dict[str, Any]:
    short = [_short(value) for value in values]
    # A whole number equals a truth value.
    distinct = list({(type(value), value): value for value in short}.values())
    if len(distinct) == 1:
        return {"same": distinct[0]}
    if all(isinstance(v, str | None) for v in distinct) and len(short) >= _FEWEST * len(distinct):
        places = {value: place for place, value in enumerate(distinct)}
        return {"distinct": distinct, "places": [places[value] for value in short]}
    return {"values": short}


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    # JSON has no other numbers, and Vega leaves a null out.
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
