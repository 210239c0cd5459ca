"""What happened, in words: a turn is claimed only where it exceeds its paired uncertainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from dashboards import query
from dashboards.numbers import with_error
from dashboards.tables import Measured, Row, by_series, last_layer

_LEVEL = 0.05
_SAME = 0.01

Influences = Mapping[tuple[str, str, int], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """How much rankme changed between two checkpoints.

    Attributes:
        value: The later value minus the earlier one.
        se: Its standard error; None where none is known.
        paired: Whether it comes from the influences of the same sequences on both.
    """

    value: float
    se: float | None
    paired: bool


def summary(measured: Measured) -> list[tuple[str, list[str]]]:
    """Says in words what happened to each model.

    Args:
        measured: The rows of the results.

    Returns:
        The name of each series and its sentences: rankme per text, norm CV per model.
    """
    influences = _influences(measured)
    told: dict[str, list[str]] = {}
    for name, rows in by_series(last_layer(measured)).items():
        finite = [row for row in rows if row["rankme"] is not None and math.isfinite(row["rankme"])]
        if finite:
            told[name] = rankme_sentences(finite, influences)
    for name, rows in by_series(measured.head).items():
        finite = [row for row in rows if row["norm_cv"] is not None]
        if finite:
            told.setdefault(name, []).append(norm_sentence(finite))
    return list(told.items())


def rankme_sentences(rows: Sequence[Row], influences: Influences) -> list[str]:
    """Tells the course of rankme, and claims a turn only where it exceeds its uncertainty.

    The lowest value was picked among n checkpoints, so its fall is judged at the level 0.05 divided
    by the number of later checkpoints (Bonferroni); the rise after it likewise.

    Args:
        rows: Rows of `geometry` of one series, by step, with finite rankme.
        influences: Influences of each sequence on rankme by cell, text and layer.

    Returns:
        Whole sentences.
    """
    first, last = rows[0], rows[-1]
    lowest = min(rows, key=lambda row: row["rankme"])
    start = f"RankMe is {_rankme(first)} at {_place(first)}"
    if len(rows) == 1:
        return [f"{start}, the only checkpoint that was measured: there is no trajectory to judge."]
    told = [
        f"{start}, its lowest value is {_rankme(lowest)} at {_place(lowest)}, and it ends at "
        f"{_rankme(last)} at {_place(last)}."
    ]
    beyond = NormalDist().inv_cdf(1 - _LEVEL / (2 * (len(rows) - 1)))
    fall = difference(first, lowest, influences)
    rise = difference(lowest, last, influences)
    fell, rose = (_exceeds(change, beyond) for change in (fall, rise))
    down = f"The fall from {_place(first)} to {_place(lowest)} ({_signed(fall)})"
    if lowest is first:
        told.append("It never falls below its first value: there is no early fall.")
    elif fall.se is None:
        told.append(f"{down} has no known standard error: whether it is more than noise is open.")
    elif not fell:
        told.append(f"{down} does not exceed its uncertainty: no early fall is shown.")
    elif lowest is last:
        told.append(f"{down} exceeds its uncertainty and lasts to the end: there is no recovery.")
    elif rose:
        told.append(
            f"{down} exceeds its uncertainty, and so does the rise after it ({_signed(rise)})."
        )
    else:
        told.append(
            f"{down} exceeds its uncertainty; the rise after it ({_signed(rise)}) does not, so no "
            "recovery is shown."
        )
    if lowest is first and lowest is not last and rise.se is not None:
        verdict = "exceeds" if rose else "does not exceed"
        told.append(f"The change to the end ({_signed(rise)}) {verdict} its uncertainty.")
    return told + _caveats(rows)


def norm_sentence(rows: Sequence[Row]) -> str:
    """Tells whether the norms of the head spread; exact numbers, so any change is a real one.

    Args:
        rows: Rows of `head` of one model, by step.

    Returns:
        One sentence.
    """
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return f"Norm CV of the LM head is {first['norm_cv']:.3g} at {_place(first)}."
    course = (
        f"from {first['norm_cv']:.3g} at {_place(first)} to {last['norm_cv']:.3g} at {_place(last)}"
    )
    if abs(last["norm_cv"] - first["norm_cv"]) <= _SAME * abs(first["norm_cv"]):
        return f"Norm CV of the LM head does not grow: {course}, the same within {_SAME:.0%}."
    if last["norm_cv"] < first["norm_cv"]:
        return f"Norm CV of the LM head does not grow, it falls {course}."
    times = f" (× {last['norm_cv'] / first['norm_cv']:.3g})" if first["norm_cv"] > 0 else ""
    return f"Norm CV of the LM head grows {course}{times}."


def difference(earlier: Row, later: Row, influences: Influences) -> Difference:
    """Compares rankme of two checkpoints.

    On the same sequences the standard error is √Σᵢ (uᵢ − vᵢ)² over the influences u, v of sequence
    i on both values (the infinitesimal jackknife of the difference): noise that both share cancels.
    Otherwise it is √(se² + se²).

    Args:
        earlier: A row of `geometry`.
        later: Another one.
        influences: Influences of each sequence on rankme by cell, text and layer.

    Returns:
        The change from the earlier to the later one.
    """
    change = later["rankme"] - earlier["rankme"]
    u, v = (influences.get(_influence_key(row)) for row in (earlier, later))
    same = earlier["sequences_fingerprint"] == later["sequences_fingerprint"] is not None
    if same and u is not None and v is not None and u.shape == v.shape:
        return Difference(change, float(np.sqrt(np.sum((u - v) ** 2))), paired=True)
    errors = (earlier["rankme_se"], later["rankme_se"])
    if any(error is None or not math.isfinite(error) for error in errors):
        return Difference(change, None, paired=False)
    return Difference(change, math.hypot(*errors), paired=False)


def _influences(measured: Measured) -> dict[tuple[str, str, int], np.ndarray[Any, Any]]:
    names = ["cell_id", "dataset", "layer", "influence_rankme"]
    table = query.load("influences", measured.results, columns=names)
    keys = zip(*(table.column(name).to_pylist() for name in names[:3]), strict=True)
    values = table.column("influence_rankme")
    return {
        key: value.values.to_numpy(zero_copy_only=False).astype(np.float64)
        for key, value in zip(keys, values, strict=True)
        if value.is_valid
    }


def _influence_key(row: Row) -> tuple[str, str, int]:
    return (row["cell_id"], row["dataset"], row["layer"])


def _exceeds(change: Difference, beyond: float) -> bool:
    return change.se is not None and abs(change.value) > beyond * change.se


def _caveats(rows: Sequence[Row]) -> list[str]:
    told = []
    if any(row["se_reliable"] is False for row in rows):
        told.append("M is below 10 d, where standard errors were not validated: take them lightly.")
    if (rows[0]["step"] or 0) > 0:
        told.append(f"The series starts at step {rows[0]['step']:,}: what came before is unseen.")
    return told


def _place(row: Row) -> str:
    return f"revision {row['revision']}" if row["step"] is None else f"step {row['step']:,}"


def _rankme(row: Row) -> str:
    return with_error(row["rankme"], row["rankme_se"])


def _signed(change: Difference) -> str:
    sign = "−" if change.value < 0 else "+"
    size = sign + with_error(abs(change.value), change.se)
    if change.se is None:
        return size
    return f"{size}, {'paired' if change.paired else 'separate errors'}"
