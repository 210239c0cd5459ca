"""pass@k: the chance that one of k tries is right, its uncertainty, and where two curves cross."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_PERCENTILES = (2.5, 97.5)
# Resamples that are averaged in one matrix product.
_BATCH = 1000


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Array:
    """Unbiased estimate of each problem's pass@k (Chen et al. 2021, eq. 1).

    1 − C(n−c, k)/C(n, k) = 1 − Π_{i=n−c+1}^{n} (1 − k/i), and exactly 1 where n − c < k.

    Args:
        n: Samples of each problem, or of all of them.
        c: Right ones among them, shape (problems,).
        k: How many tries, at least 1.

    Returns:
        Shape (problems,), in [0, 1].

    Raises:
        ValueError: A problem with n < k, or a count of right ones that isn't within 0 … n.
    """
    right = np.atleast_1d(np.asarray(c, dtype=np.int64))
    samples = np.broadcast_to(np.asarray(n, dtype=np.int64), right.shape)
    if k < 1 or np.any(samples < k):
        raise ValueError(f"pass@{k} needs 1 ≤ k ≤ n, and n is {min(samples.tolist(), default=0)}")
    if np.any(right < 0) or np.any(right > samples):
        raise ValueError(f"of n samples, 0 … n can be right, not {right.min()} … {right.max()}")
    return np.array(
        [
            1.0
            if all_of - good < k
            else 1 - np.prod(1 - k / np.arange(all_of - good + 1, all_of + 1))
            for all_of, good in zip(samples.tolist(), right.tolist(), strict=True)
        ],
        dtype=np.float64,
    )


def curves(n: ArrayLike, c: ArrayLike, k: Sequence[int]) -> Array:
    """Returns pass@k of each problem and each k, shape (problems, len(k)); see `pass_at_k`."""
    return np.stack([pass_at_k(n, c, each) for each in k], axis=1)


def guessing(share: ArrayLike, k: Sequence[int]) -> Array:
    """pass@k of independent guesses, mean over problems of 1 − (1 − pᵢ)^k.

    Args:
        share: The chance pᵢ that one guess is right, shape (problems,).
        k: How many guesses.

    Returns:
        Shape (len(k),).
    """
    wrong = 1 - np.asarray(share, dtype=np.float64)[:, None]
    return (1 - wrong ** np.asarray(k, dtype=np.float64)).mean(axis=0)


@dataclass(frozen=True)
class Means:
    """Means over problems, each of shape (len(k),).

    Attributes:
        mean: The mean.
        stderr: Its standard error, s/√problems with s² of ddof 1; NaN for a single problem.
        low: Lower end of the 95 % percentile bootstrap interval over problems.
        high: Its upper end.
    """

    mean: Array
    stderr: Array
    low: Array
    high: Array


def means(values: ArrayLike, seed: int, resamples: int = 10_000) -> Means:
    """Averages curves over problems, and tells how much another draw of problems would change.

    For two checkpoints on the same problems, give the difference of their curves: the bootstrap is
    paired then.

    Args:
        values: One curve of each problem, shape (problems, len(k)).
        seed: Seed of the bootstrap.
        resamples: Resamples of the bootstrap.
    """
    found = np.asarray(values, dtype=np.float64)
    problems = len(found)
    if problems > 1:
        stderr = found.std(axis=0, ddof=1) / np.sqrt(problems)
    else:
        stderr = np.full(found.shape[1:], np.nan)
    low, high = np.percentile(bootstrap(found, seed, resamples), _PERCENTILES, axis=0)
    return Means(found.mean(axis=0), stderr, low, high)


def bootstrap(values: Array, seed: int, resamples: int = 10_000) -> Array:
    """Means over problems that are drawn with replacement; one draw serves all of a curve.

    Args:
        values: One curve of each problem, shape (problems, len(k)).
        seed: Seed of the draws.
        resamples: How many.

    Returns:
        Shape (resamples, len(k)).
    """
    generator = np.random.default_rng(seed)
    problems = len(values)
    # How often each problem is drawn is all that a mean needs.
    chance = np.full(problems, 1 / problems)
    parts = [
        generator.multinomial(problems, chance, size=min(_BATCH, resamples - start)) @ values
        for start in range(0, resamples, _BATCH)
    ]
    return np.concatenate(parts) / problems


@dataclass(frozen=True)
class Crossover:
    """A place where one curve overtakes another.

    Attributes:
        k: Where, interpolated linearly in log k.
        rises: Whether the first curve is above the second beyond it.
        low: Lower end of the 95 % bootstrap interval of k, over the resamples that cross.
        high: Its upper end.
        share: Share of the resamples that cross in the same direction, anywhere.
    """

    k: float
    rises: bool
    low: float
    high: float
    share: float


def crossovers(
    k: Sequence[int], first: ArrayLike, second: ArrayLike, seed: int, resamples: int = 10_000
) -> list[Crossover]:
    """Finds where the difference of two curves changes its sign, by a paired bootstrap.

    Curves that meet without crossing, as at pass@k = 1, don't count. Of several crossings of a
    resample in the same direction, the one nearest in log k stands for it.

    Args:
        k: How many tries, rising.
        first: Curves of one checkpoint's problems, shape (problems, len(k)).
        second: Curves of another's, of the same problems in the same order.
        seed: Seed of the bootstrap.
        resamples: Resamples of the bootstrap.

    Returns:
        In the order of k; empty where the curves don't cross.

    Raises:
        ValueError: The curves are of other problems or another k.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.shape[1:] != (len(k),):
        raise ValueError(
            f"curves of the same problems and of {len(k)} values of k are needed, got shapes "
            f"{one.shape} and {other.shape}"
        )
    difference = one - other
    log_k = np.log(np.asarray(k, dtype=np.float64))
    found = _sign_changes(log_k, difference.mean(axis=0))
    if not found:
        return []
    drawn = [_sign_changes(log_k, curve) for curve in bootstrap(difference, seed, resamples)]
    told = []
    for place, rises in found:
        alike = [
            min(places, key=lambda other: abs(other - place))
            for changes in drawn
            if (places := [where for where, direction in changes if direction == rises])
        ]
        # There is none at all where few resamples are drawn of a crossing that hardly is one.
        low, high = np.exp(np.percentile(alike or [place], _PERCENTILES))
        told.append(
            Crossover(float(np.exp(place)), rises, float(low), float(high), len(alike) / resamples)
        )
    return told


def _sign_changes(x: Array, y: Array) -> list[tuple[float, bool]]:
    """Returns where a polyline changes its sign, and whether it rises there.

    Where it is 0 for a while, the middle of that counts.
    """
    # Sums of equal shares may differ in their last bits, which is no crossing.
    signs = np.where(np.abs(y) > 1e-12, np.sign(y), 0)
    there = np.flatnonzero(signs)
    found = []
    for left, right in zip(there[:-1].tolist(), there[1:].tolist(), strict=True):
        if signs[left] == signs[right]:
            continue
        if right == left + 1:
            place = x[left] + (x[right] - x[left]) * y[left] / (y[left] - y[right])
        else:
            place = (x[left + 1] + x[right - 1]) / 2
        found.append((float(place), bool(signs[right] > 0)))
    return found
