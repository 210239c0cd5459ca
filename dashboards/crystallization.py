"""Whether models of several sizes share one course of their overlaps, as the norm paper says."""

import math
from collections.abc import Sequence

import numpy as np

from dashboards.tables import Measured, by_series
from dashboards.turns import Array

_GRID = 50


def collapse(courses: Sequence[tuple[Array, Array]]) -> float:
    """Share of the variance of several courses that a common one explains.

    The courses are read off at the same places, evenly spaced on ln(tokens + 1) where all were
    measured: 1 − (mean variance between models) / (variance of all values). 1 if they coincide, 0
    if their mean doesn't move.

    Args:
        courses: Tokens, ascending, and values of each model, each of shape (n,).

    Returns:
        The share; NaN for fewer than two courses, without a common range, or where nothing varies.
    """
    if len(courses) < 2:
        return math.nan
    places = [(np.log1p(tokens), values) for tokens, values in courses]
    low, high = max(x[0] for x, _ in places), min(x[-1] for x, _ in places)
    if low >= high:
        return math.nan
    grid = np.linspace(low, high, _GRID)
    values = np.stack([np.interp(grid, x, y) for x, y in places])
    total = float(values.var())
    return math.nan if total == 0 else 1 - float(values.var(axis=0).mean()) / total


def crystallization_sentence(measured: Measured) -> str | None:
    """Tells how well the overlaps of models of several widths collapse, with √d and without.

    Args:
        measured: The rows of the results.

    Returns:
        One sentence; None where there are not two widths with a course over training.
    """
    known = [row for row in measured.head if row["tokens"] is not None]
    groups = [rows for rows in by_series(known).values() if len(rows) > 1]
    if len({rows[0]["d"] for rows in groups}) < 2:
        return None
    shares = []
    for column in ("overlap_mean_scaled", "overlap_mean"):
        courses = [
            (
                np.array([row["tokens"] for row in rows], dtype=np.float64),
                np.array([row[column] for row in rows], dtype=np.float64),
            )
            for rows in groups
        ]
        shares.append(collapse(courses))
    if not all(map(math.isfinite, shares)):
        return None
    return (
        f"Mean overlap of {len(groups)} models over the same tokens: a common course explains "
        f"{shares[0]:.0%} of its variance with √d, {shares[1]:.0%} without."
    )
