"""Paired comparison of two checkpoints' pass@k: bootstrap over problems, and crossovers."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dashboards.turns import Array

DRAWS = 2000
"""Bootstrap draws."""

_SEED = 0
_BATCH = 200
_NOTHING = 1e-12
"""Differences of pass@k below it are what rounding leaves of equal ones."""


@dataclass(frozen=True)
class Compared:
    """The later checkpoint's pass@k less the earlier one's.

    Attributes:
        k: How many tries, ascending.
        earlier: Mean pass@k of the earlier checkpoint over the problems, for each k.
        later: The same of the later one.
        low: Lower ends of the 95 % intervals of the difference, for each k.
        high: Upper ends.
        crossover: Where the difference turns negative for good; None where it doesn't.
        crossover_low: Lower end of the 95 % interval of it, over the draws that have one.
        crossover_high: Upper end.
        share: Share of the bootstrap draws that have a crossover.
        n: Problems.
    """

    k: tuple[int, ...]
    earlier: Array
    later: Array
    low: Array
    high: Array
    crossover: float | None
    crossover_low: float | None
    crossover_high: float | None
    share: float
    n: int

    @property
    def difference(self) -> Array:
        """The mean difference for each k."""
        found: Array = self.later - self.earlier
        return found


def compare(k: Sequence[int], earlier: Array, later: Array) -> Compared:
    """Compares pass@k of the same problems.

    Args:
        k: How many tries, ascending.
        earlier: Each problem's pass@k of the earlier checkpoint, shape (problems, k).
        later: The same of the later one, problems in the same order.

    Returns:
        The comparison; equal values give an equal one, since draws are seeded.
    """
    drawn = bootstrap_means(later - earlier)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    found = [at for means in drawn if (at := crossover(k, means)) is not None]
    ends = np.quantile(found, (0.025, 0.975)) if found else (None, None)
    first, second = earlier.mean(axis=0), later.mean(axis=0)
    return Compared(
        tuple(k),
        first,
        second,
        low,
        high,
        crossover(k, second - first),
        None if ends[0] is None else float(ends[0]),
        None if ends[1] is None else float(ends[1]),
        len(found) / len(drawn),
        len(earlier),
    )


@functools.lru_cache(maxsize=1)
def bootstrap_counts(n: int, draws: int = DRAWS) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Returns how often each of n problems is drawn in each bootstrap draw, shape (draws, n)."""
    return np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=draws)


def bootstrap_means(values: Array) -> Array:
    """Returns the means over resampled problems.

    Args:
        values: Shape (problems, k).

    Returns:
        Means, shape (draws, k). Problems are drawn whole, so all k share their draws.
    """
    counts = bootstrap_counts(len(values))
    parts = [counts[at : at + _BATCH] @ values for at in range(0, len(counts), _BATCH)]
    means: Array = np.vstack(parts) / len(values)
    return means


def crossover(k: Sequence[int], difference: Array) -> float | None:
    """Finds where a difference of pass@k turns negative for good.

    Equal values at the largest k say nothing: there both solve everything, or nothing.

    Args:
        k: How many tries, ascending.
        difference: For each k, later less earlier.

    Returns:
        k, interpolated on its logarithm; None where the difference isn't negative at the largest k
        with any, or wasn't positive before.
    """
    some = np.flatnonzero(np.abs(difference) > _NOTHING)
    if not len(some) or difference[some[-1]] > 0:
        return None
    ahead = np.flatnonzero(difference > _NOTHING)
    if not len(ahead):
        return None
    last = int(ahead[-1])
    share = difference[last] / (difference[last] - min(difference[last + 1], 0.0))
    left, right = np.log(k[last]), np.log(k[last + 1])
    return float(np.exp(left + share * (right - left)))
