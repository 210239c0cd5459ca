"""Statistics that several measurements share: correlations that say NaN where they don't exist."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Correlation:
    """Correlation of two series, without unit.

    Attributes:
        pearson: Pearson's r; NaN where a series is constant.
        spearman: Spearman's r, ties sharing their mean rank; NaN where a series is constant.
    """

    pearson: float
    spearman: float


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation coefficient.

    Args:
        x: Shape (n,), n ≥ 2.
        y: Shape (n,).

    Returns:
        r in [−1, 1]; NaN where a series is constant.

    Raises:
        ValueError: The shapes differ or n < 2.
    """
    first, second = _series(x, y)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.pearsonr(first, second).statistic)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's r of the ranks, ties sharing their mean rank.

    Args:
        x: Shape (n,), n ≥ 2.
        y: Shape (n,).

    Returns:
        r in [−1, 1]; NaN where a series is constant.

    Raises:
        ValueError: The shapes differ or n < 2.
    """
    first, second = _series(x, y)
    return pearson(stats.rankdata(first), stats.rankdata(second))


def _series(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or first.size < 2:
        raise ValueError(
            "a correlation needs two series of the same length of at least 2, "
            f"got shapes {first.shape} and {second.shape}"
        )
    return first, second
