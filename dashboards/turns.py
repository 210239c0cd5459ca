"""Where a series turns: an exact dynamic programme over the uncertainty of every difference.

Invariant: a turn lies between two swings that each exceed the uncertainty of their own difference,
so a series that only rises, or only falls, has none but by chance, at a stated level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.05
"""Chance that a swing anywhere in a series without any is taken for one."""

FLOOR = 0.01
"""Smallest change that counts, relative to the larger value, however certain it is."""

_DRAWS = 2000
_BATCH = 100


@dataclass(frozen=True)
class Swing:
    """A monotone stretch of a series, from one turn to the next.

    Attributes:
        first: Place of its first point: 0, or the turn before.
        last: Place of its last point: the turn after, or the last of the series.
        origin, extreme: Places of the two points between which it is judged, the earlier one first.
        sign: 1 rises, −1 falls, 0 where no change exceeds its uncertainty.
        confidence: 1 − the chance of so large a swing somewhere in a series without any; None
            where no uncertainty is known, 1 where values are exact.
        earliest, latest: Places between which `last` may lie: the points there don't differ from
            it by more than the 95 % interval of the difference.
    """

    first: int
    last: int
    origin: int
    extreme: int
    sign: int
    confidence: float | None
    earliest: int
    latest: int


def find_swings(values: Array, covariance: Array | None) -> tuple[Swing, ...]:
    """Parts a series into alternating swings.

    Of all alternating chains of points in which each change exceeds what it needs, the longest is
    taken, and among those the one with the largest total variation. A change needs to exceed
    `FLOOR`, and z times its standard error √(Cₛₛ + Cₜₜ − 2Cₛₜ). z is the 1 − `LEVEL` quantile of
    the largest standardized rise between any two points of a series N(0, C), by simulation: a
    flat series then shows a rise, and one that has risen shows a fall, with that chance.

    Args:
        values: The series, shape (n,), n ≥ 1, finite.
        covariance: C of its errors, shape (n, n); zeros where values are exact, None where no
            uncertainty is known.

    Returns:
        One swing at least; each begins where the one before ends, the first at 0, the last ends
        at n − 1.

    Raises:
        ValueError: The shapes don't fit, or values are not finite.
    """
    count = len(values)
    if count < 1 or not np.isfinite(values).all():
        raise ValueError("a series needs at least one value, and finite ones")
    if covariance is not None and covariance.shape != (count, count):
        raise ValueError(f"{count} values do not go with a covariance of {covariance.shape}")
    errors = _errors_of_differences(np.zeros((count, count)) if covariance is None else covariance)
    largest = _largest_rises(covariance) if covariance is not None and errors.any() else None
    beyond = 0.0 if largest is None else float(np.quantile(largest, 1 - LEVEL))
    magnitudes = np.maximum.outer(np.abs(values), np.abs(values))
    needed = np.maximum(beyond * errors, FLOOR * magnitudes)
    chain = _longest_chain(values, needed)
    if len(chain) < 2:
        sure = None if covariance is None else 1.0
        return (Swing(0, count - 1, 0, count - 1, 0, sure, 0, count - 1),)
    bounds = [0, *chain[1:-1], count - 1]
    return tuple(
        Swing(
            first=bounds[place],
            last=bounds[place + 1],
            origin=origin,
            extreme=extreme,
            sign=int(np.sign(values[extreme] - values[origin])),
            confidence=_confidence(
                abs(values[extreme] - values[origin]), errors[origin, extreme], largest
            )
            if covariance is not None
            else None,
            **_range_of_turn(values, errors, bounds, place),
        )
        for place, (origin, extreme) in enumerate(pairwise(chain))
    )


def _errors_of_differences(covariance: Array) -> Array:
    variances = np.diag(covariance)
    squares = variances[:, None] + variances[None, :] - 2 * covariance
    # Paired differences may cancel to less than rounding leaves.
    return np.sqrt(np.maximum(squares, 0.0))


def _largest_rises(covariance: Array) -> Array:
    """Draws the largest standardized rise of series N(0, C); the seed is fixed: equal results."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    errors = _errors_of_differences(covariance)
    # A difference without an error is no rise, however large.
    usable = np.greater(errors, 0)
    weights = np.divide(1.0, errors, out=np.zeros_like(errors), where=usable)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS // _BATCH):
        # One row for each point: a pass over pairs then stays within the processor's cache.
        drawn = root @ generator.standard_normal((_BATCH, len(root))).T
        largest = np.full(_BATCH, -np.inf)
        for later in range(1, len(root)):
            rises = drawn[later] - drawn[:later]
            rises *= weights[later, :later, None]
            if not usable[later, :later].all():
                rises[~usable[later, :later]] = -np.inf
            np.maximum(largest, rises.max(axis=0), out=largest)
        found.append(largest)
    return np.concatenate(found)


def _longest_chain(values: Array, needed: Array) -> list[int]:
    """Returns the places of the longest alternating chain; empty where no change is enough.

    best[t, s] is (swings, variation) of the best chain that ends at place t with a rise (s = 0) or
    a fall (s = 1), as one number: swings weigh more than any variation.
    """
    count = len(values)
    span = float(np.ptp(values))
    if span == 0:
        return []
    weight = 2.0 * count  # No chain's variation exceeds (count − 1) spans.
    best = np.full((count, 2), -np.inf)
    before = np.full((count, 2), -1)
    for place in range(1, count):
        changes = (values[place] - values[:place]) / span
        enough = needed[:place, place] / span
        for sign, side in ((1, 0), (-1, 1)):
            score = np.where(
                (sign * changes > enough) & (sign * changes > 0),
                weight + sign * changes + np.maximum(best[:place, 1 - side], 0.0),
                -np.inf,
            )
            best[place, side] = score.max()
            before[place, side] = score.argmax()
    place, side = (int(i) for i in np.unravel_index(best.argmax(), best.shape))
    if best[place, side] == -np.inf:
        return []
    chain = [place]
    while best[place, side] > 0:
        place, side = int(before[place, side]), 1 - side
        chain.append(place)
    return chain[::-1]


def _range_of_turn(
    values: Array, errors: Array, bounds: Sequence[int], place: int
) -> dict[str, Any]:
    """Returns the points around a swing's end that cannot be told from it."""
    turn = bounds[place + 1]
    if place + 2 == len(bounds):
        return {"earliest": turn, "latest": turn}
    alike = np.abs(values - values[turn]) <= 1.96 * errors[turn]
    inside = [i for i in range(bounds[place] + 1, bounds[place + 2]) if alike[i]]
    return {"earliest": min([*inside, turn]), "latest": max([*inside, turn])}


def _confidence(change: float, error: float, largest: Array | None) -> float:
    if largest is None or error == 0:
        return 1.0
    return float(np.mean(largest < change / error))
