"""Rows of the table of conflicts about values: what differs, where most, and who says what."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dashboards.atlas_labels import LABEL, label_keys, name
from dashboards.atlas_tables import MORE_THAN_PARAMETERS, NAMES, PARAMETERS
from dashboards.distances import Places, distances, within_lists
from jobs.columns import KEYS
from jobs.records import TABLES

Mask = npt.NDArray[np.bool_]

_KEYS = frozenset(column.name for column in KEYS)
_SHOWN_CHARACTERS = 200


def differences(
    table: str,
    rows: pa.Table,
    ours: Places,
    theirs: Places,
    tolerances: tuple[float, float],
    only: pa.DataType | None = None,
) -> Iterator[tuple[str, Mask, npt.NDArray[np.float64]]]:
    """Compares pairs of rows, column by column.

    Args:
        table: Name of the table.
        rows: Its rows.
        ours: Places of some.
        theirs: Places of their partners.
        tolerances: Relative and absolute difference up to which numbers are equal.
        only: Compare columns of this type alone, and none that parameters don't decide.

    Yields:
        Columns that differ; which pairs do; and by how much those that contradict each other, as
        a share of the larger value: 0 where they don't, infinity where there is no such share. A
        value that one of them lacks is no contradiction.
    """
    if not len(ours):
        return
    aside = _KEYS | NAMES
    if only is not None:
        aside |= MORE_THAN_PARAMETERS | set(PARAMETERS[table])
    relative, absolute = tolerances
    for field in TABLES[table]:
        if field.name in aside or (only is not None and field.type != only):
            continue
        column = rows[field.name]
        found = distances(column, column, ours, theirs, relative)
        different = ~(found.absolute <= absolute)
        if different.any():
            missing = np.asarray(pc.is_null(column), bool)
            lonely = missing[ours] != missing[theirs]
            sizes = np.nan_to_num(found.relative, nan=np.inf)
            yield field.name, different, np.where(different & ~lonely, sizes, 0.0)


def largest(sizes: npt.NDArray[np.float64], cells: Places) -> list[tuple[int, int]]:
    """Returns, for each cell with contradictions, where the largest is, and how many there are.

    Args:
        sizes: Of each pair of rows, as `differences` gives it.
        cells: A number for the cells of each pair.
    """
    wrong = np.flatnonzero(sizes)
    order = wrong[np.lexsort((-sizes[wrong], cells[wrong]))]
    _, first, counts = np.unique(cells[order], return_index=True, return_counts=True)
    return list(zip(order[first].tolist(), counts.tolist(), strict=True))


def conflict(
    table: str,
    rows: pa.Table,
    weights: Any,
    column: str,
    pair: tuple[int, int],
    holders: Sequence[str],
    count: int,
) -> dict[str, Any]:
    """Returns a row of conflicts.

    Args:
        table: Name of the table.
        rows: Its rows.
        weights: Fingerprint of each.
        column: The column that differs.
        pair: Places of the rows that differ most.
        holders: Whose they are.
        count: How many rows of their cells differ.
    """
    values, at = [rows[column][place] for place in pair], ""
    if pa.types.is_list(values[0].type):
        elements = within_lists(values[0], values[1], 0.0)
        if elements is not None and len(elements.relative):
            place = int(np.argmax(elements.relative))
            values, at = [value.values[place] for value in values], f"[{place}]"
    keys = label_keys(rows.select(LABEL).take(pa.array(pair))).to_pylist()
    named = [n for n in ("dataset", *PARAMETERS.get(table, ("row",))) if n in rows.column_names]
    told = {parameter: rows[parameter][pair[0]].as_py() for parameter in named}
    return {
        "kind": "values",
        "table": table,
        "fingerprint": weights[pair[0]].as_py(),
        "labels": [name(key) for key in keys],
        "cells": [rows["cell_id"][place].as_py() for place in pair],
        "parameters": ", ".join(f"{k}={v}" for k, v in told.items() if v is not None),
        "column": f"{column}{at}",
        "values": [_shown(value) for value in values],
        "sources": list(holders),
        "rows": count,
    }


def _shown(value: pa.Scalar) -> str:
    plain = value.as_py()
    if isinstance(plain, list):
        return f"a list of {len(plain)}"
    return json.dumps(plain, ensure_ascii=False)[:_SHOWN_CHARACTERS]
