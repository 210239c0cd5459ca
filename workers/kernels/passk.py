"""pass@k: the chance that one of k tries is right, and its uncertainty."""

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
