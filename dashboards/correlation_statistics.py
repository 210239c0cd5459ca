"""Statistics of a handful of checkpoints or seeds: exact where they can be, with intervals.

No bootstrap: with fewer than ten points its resamples are too few and too alike to mean anything.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from dashboards.turns import Array

LEVEL = 0.05
"""Intervals cover 1 − LEVEL."""

EXACT_BELOW = 10
"""Below so many points p counts all permutations: 9! = 362,880 of them at most."""

_BLOCK = 1 << 14
_TOLERANCE = 1e-12
"""Correlations of permutations that differ by less are ties that rounding broke."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        mean: The mean.
        low: Lower end of its 95 % t-interval; None for fewer than two values.
        high: Upper end.
        pvalue: Two-sided p that the true mean is 0, by a t-test; None likewise.
        n: Number of values.
    """

    mean: float
    low: float | None
    high: float | None
    pvalue: float | None
    n: int


def standardized(values: Array) -> Array | None:
    """Returns values less their mean, divided by their Euclidean norm; None if they don't vary."""
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    # What rounding leaves of a constant is no variation.
    if not math.isfinite(norm) or norm <= 1e-12 * float(np.linalg.norm(values)):
        return None
    scaled: Array = centred / norm
    return scaled


def pearson(x: Array, y: Array) -> float | None:
    """Returns Pearson's r, or None where one of the two doesn't vary."""
    u, v = standardized(x), standardized(y)
    return None if u is None or v is None else _clip(float(u @ v))


def ranks(values: Array) -> Array:
    """Returns ranks from 1 on; ties share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Array = (ends - (counts - 1) / 2)[places]
    return shared


def spearman(x: Array, y: Array) -> float | None:
    """Returns Spearman's rank correlation, or None where one of the two doesn't vary."""
    return pearson(ranks(x), ranks(y))


def fisher_interval(
    r: float | None, n: int, controlled: int = 0
) -> tuple[float | None, float | None]:
    """Returns the 95 % interval of a correlation by Fisher's z = artanh r.

    Its standard error is 1/√(n − 3 − k) with k variables held constant (Fisher 1924).

    Args:
        r: The correlation.
        n: Points.
        controlled: Variables that are held constant, k.

    Returns:
        Lower and upper end; None for fewer than 4 + k points.
    """
    if r is None or n < 4 + controlled:
        return None, None
    if abs(r) >= 1:
        return r, r
    half = float(special.ndtri(1 - LEVEL / 2)) / math.sqrt(n - 3 - controlled)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def partial(xy: float | None, xz: float | None, yz: float | None) -> float | None:
    """Returns the correlation of x and y that is left when z is held constant.

    (r_xy − r_xz r_yz)/√((1 − r_xz²)(1 − r_yz²)), which is the correlation of the residuals of two
    regressions on z; None where z leaves nothing of one of them.

    Args:
        xy: r of x and y.
        xz: r of x and z.
        yz: r of y and z.
    """
    if xy is None or xz is None or yz is None:
        return None
    left = (1 - xz**2, 1 - yz**2)
    # Less is what rounding leaves of a correlation of 1.
    return None if min(left) < 1e-10 else _clip((xy - xz * yz) / math.sqrt(left[0] * left[1]))


def t_pvalue(r: float, n: int) -> float:
    """Returns the two-sided p of a correlation by t = r √((n − 2)/(1 − r²)), n − 2 degrees."""
    if abs(r) >= 1:
        return 0.0
    t = abs(r) * math.sqrt((n - 2) / (1 - r * r))
    return float(2 * special.stdtr(n - 2, -t))


def permutation_pvalues(x: Array, y: Array) -> Array:
    """Returns exact two-sided p of Pearson's r: the share of permutations with as large an |r|.

    Args:
        x: Standardized columns, shape (n, k).
        y: A standardized column, shape (n,).

    Returns:
        One p for each column of x, shape (k,); at least 1/n!.
    """
    order = permutations(len(y))
    least = np.abs(y @ x)[:, None] - _TOLERANCE
    hits = np.zeros(x.shape[1], dtype=np.int64)
    # Columns of x come first throughout, so that each is counted over adjacent numbers.
    for start in range(0, order.shape[1], _BLOCK):
        # BLAS would share out so small a product to threads, and wait for them on a busy machine.
        found = np.einsum("nk,nb->kb", x, y[order[:, start : start + _BLOCK]])
        hits += np.count_nonzero(np.abs(found, out=found) >= least, axis=1)
    share: Array = hits / order.shape[1]
    return share


def rank_pvalues(x: Array, y: Array) -> Array:
    """Returns what `permutation_pvalues` does, faster for columns of ranks without ties.

    Args:
        x: Standardized ranks, shape (n, k).
        y: Standardized ranks, shape (n,).

    Returns:
        One p for each column of x, shape (k,).
    """
    n, found = len(y), np.empty(x.shape[1])
    untied = np.array([len(np.unique(column)) == n for column in x.T], dtype=bool)
    untied &= len(np.unique(y)) == n
    if untied.any():
        # Without ties all pairs of rankings have the same distribution.
        known = _untied_correlations(n)
        least = np.abs(y @ x[:, untied]) - _TOLERANCE
        found[untied] = (len(known) - np.searchsorted(known, least)) / len(known)
    if not untied.all():
        found[~untied] = permutation_pvalues(x[:, ~untied], y)
    return found


def estimate(values: Sequence[float]) -> Estimate | None:
    """Returns the mean of independent values with its t-interval and p; None without values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(special.stdtrit(n - 1, 1 - LEVEL / 2)) * error
    if error == 0:
        pvalue = 1.0 if mean == 0 else 0.0
    else:
        pvalue = float(2 * special.stdtr(n - 1, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, pvalue, n)


def slope(x: Array, y: Array) -> float | None:
    """Returns the least-squares slope of y on x, or None where x doesn't vary."""
    if standardized(x) is None:
        return None
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


@functools.lru_cache(maxsize=EXACT_BELOW)
def permutations(n: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Returns all permutations of 0 … n − 1, one in each column, shape (n, n!)."""
    order = np.zeros((1, 1), dtype=np.uint8)
    for size in range(1, n):
        # The new element goes to each place in turn, the others keep their order.
        new = np.full((1, order.shape[1]), size, dtype=np.uint8)
        parts = [np.vstack([order[:at], new, order[at:]]) for at in range(size + 1)]
        order = np.hstack(parts)
    return order


@functools.lru_cache(maxsize=EXACT_BELOW)
def _untied_correlations(n: int) -> Array:
    """Returns |Spearman| of all permutations of n ranks, ascending."""
    unit = standardized(np.arange(n, dtype=np.float64))
    if unit is None:
        raise ValueError("one rank has no correlation")
    found: Array = np.sort(np.abs(unit @ unit[permutations(n)]))
    return found


def _clip(r: float) -> float:
    return max(-1.0, min(1.0, r))
