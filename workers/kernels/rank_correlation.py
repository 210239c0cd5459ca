"""Rank correlations of many examples, of which some explain nothing but their length."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workers.kernels.statistics import spearman

_LEAST = 3
# Below that share of a variance, what is left of it is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of two series.

    Attributes:
        value: r in [−1, 1]; NaN below three examples or where a series is constant.
        pvalue: Two-sided p-value of that r if there were none: r √((n−2)/(1−r²)) has Student's t
            distribution of n − 2 degrees, approximately; NaN where r is.
    """

    value: float
    pvalue: float


def rank_correlation(x: ArrayLike, y: ArrayLike) -> RankCorrelation:
    """Spearman's r, ties sharing their mean rank, and its p-value.

    Source of the p-value: Kendall & Stuart, The Advanced Theory of Statistics, vol. 2, 31.19.

    Args:
        x: Shape (n,), finite.
        y: Shape (n,), finite.

    Returns:
        Without unit.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = _finite(x), _finite(y)
    if first.shape != second.shape:
        raise ValueError(f"two series of the same length, got {first.shape} and {second.shape}")
    if first.size < _LEAST:
        return RankCorrelation(math.nan, math.nan)
    value = spearman(first, second)
    freedom = first.size - 2
    if math.isnan(value):
        return RankCorrelation(value, math.nan)
    left = max(0.0, (1 + value) * (1 - value))
    t = math.copysign(math.inf, value) if left == 0 else value * math.sqrt(freedom / left)
    return RankCorrelation(value, float(2 * stats.t.sf(abs(t), freedom)))


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Spearman's r of two series with what a third one explains taken from both.

    r_xy·z = (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²)) of the ranks, ties sharing their mean
    rank. A constant third series explains nothing: then it is r_xy.

    Source: Kendall, Partial rank correlation, Biometrika 32 (1942), with Pearson's formula for
    partial correlation applied to ranks, as in Conover, Practical Nonparametric Statistics, 5.4.

    Args:
        x: Shape (n,), finite.
        y: Shape (n,), finite.
        given: Shape (n,), finite.

    Returns:
        r in [−1, 1], without unit; NaN below three examples, where x or y is constant, or where
        the third series explains one of them wholly.

    Raises:
        ValueError: The shapes differ.
    """
    value = rank_correlation(x, y).value
    third = _finite(given)
    by_first = rank_correlation(x, third).value
    by_second = rank_correlation(y, third).value
    if math.isnan(value) or np.ptp(third) == 0:
        return value
    left = (1 - by_first**2) * (1 - by_second**2)
    if min(1 - by_first**2, 1 - by_second**2) < _ROUNDING:
        return math.nan
    return float(np.clip((value - by_first * by_second) / math.sqrt(left), -1, 1))


def _finite(series: ArrayLike) -> np.ndarray:
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("a rank correlation needs series of finite numbers")
    return values
