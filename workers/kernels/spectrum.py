"""Spectra of feature matrices and the numbers drawn from them.

Invariant: a number depends on the eigenvalues (or singular values) alone, in float64, and none is
truncated; `numerical_null` is the only tolerance and only the alpha_req fit uses it.

Throughout, F is the feature matrix (M, d), one row per sequence; μ its mean row; λ the eigenvalues
of Σ = (F−μ)ᵀ(F−μ)/M, descending. Features have the units of the model's activations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.kernels.moments import MomentAccumulator

GARRIDO_EPSILON = 1e-7
"""What Garrido et al. (2023) add to every singular value's share; part of rankme_sv's meaning."""

_FLOAT64_EPSILON = torch.finfo(torch.float64).eps
_FLOAT32_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigendecomposition of the covariance of M features of width d.

    Attributes:
        eigenvalues: λ, shape (d,), float64, descending, clamped at 0.
        eigenvectors: Shape (d, d), float64; column i belongs to eigenvalue i.
        mean: μ, shape (d,), float64.
        count: M.
        singular_values: Singular values of the uncentred F, shape (min(M, d),), descending.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    mean: Tensor
    count: int
    singular_values: Tensor


@dataclass(frozen=True, eq=False)
class AlphaFit:
    """Weighted least-squares line through ln λ against ln rank.

    Attributes:
        value: alpha_req, minus the slope; NaN with fewer than two usable ranks.
        r2: Weighted R² of the line; NaN also where all eigenvalues of the range are equal.
        first_rank: First rank of the range, 1-based.
        last_rank: Last usable rank, inclusive; below first_rank where none is usable.
        coefficients: ∂alpha_req/∂ln λ at ranks first_rank … last_rank, float64; empty with NaN.
    """

    value: float
    r2: float
    first_rank: int
    last_rank: int
    coefficients: Tensor


def spectrum(accumulator: MomentAccumulator) -> Spectrum:
    """Decomposes what an accumulator has seen.

    The singular values of F are those of (Λ^½Vᵀ over μᵀ)·√M, since FᵀF = M·(Σ + μμᵀ). Roots of the
    eigenvalues of FᵀF would lose every direction below 1e-8 of the mean's. For the same reason the
    eigenvalues of Σ below the solver's own error, d·eps·λ₁, count as zero before the root.

    Args:
        accumulator: At least one row of features.

    Returns:
        The spectrum, on the accumulator's device.

    Raises:
        ValueError: There are no features, or some are not finite.
    """
    # At a large d, each matrix counts: no covariance is made beside the scatter.
    ascending, vectors = torch.linalg.eigh(_finite_scatter(accumulator))
    count, mean, width = accumulator.count, accumulator.mean.clone(), len(ascending)
    eigenvalues, eigenvectors = _descending(ascending, count), vectors.flip(1)
    del vectors
    certain = eigenvalues > eigenvalues[0] * (width * _FLOAT64_EPSILON)
    stacked = torch.cat(
        [torch.where(certain, eigenvalues, 0.0).sqrt().diag(), (mean @ eigenvectors).unsqueeze(0)]
    )
    return Spectrum(
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        mean=mean,
        count=count,
        singular_values=torch.linalg.svdvals(stacked)[: min(count, width)] * count**0.5,
    )


def eigenvalues_of(accumulator: MomentAccumulator) -> Tensor:
    """Returns the eigenvalues of `spectrum` alone, for a fraction of its time.

    Args:
        accumulator: At least one row of features.

    Returns:
        λ, shape (d,), float64, descending, clamped at 0, on the accumulator's device.

    Raises:
        ValueError: There are no features, or some are not finite.
    """
    return _descending(torch.linalg.eigvalsh(_finite_scatter(accumulator)), accumulator.count)


def numerical_null(eigenvalues: Tensor) -> float:
    """Largest eigenvalue that cannot be told from zero: λ₁ · max((8·eps₃₂)², d·eps₆₄).

    Features are read from float32 at best, so a direction whose standard deviation is below eight
    float32 roundings of the leading one (2⁻⁴⁰ ≈ 1e-12 of λ₁) holds rounding only, such as the null
    direction that a LayerNorm leaves. The second bound is the backward error of the symmetric
    eigensolver; it takes over above d = 4096.

    Args:
        eigenvalues: λ, shape (d,), in any order.

    Returns:
        The tolerance, in units of λ.
    """
    relative = max((8 * _FLOAT32_EPSILON) ** 2, eigenvalues.numel() * _FLOAT64_EPSILON)
    return float(eigenvalues.max()) * relative


def rankme(eigenvalues: Tensor) -> float:
    """Effective rank (Roy and Vetterli 2007): exp of the entropy of the eigenvalues' shares.

    Args:
        eigenvalues: λ ≥ 0, shape (d,); zeros contribute nothing.

    Returns:
        A number between 1 and the count of eigenvalues above zero.

    Raises:
        ValueError: The eigenvalues sum to zero, are negative or not finite.
    """
    return float(torch.special.entr(_shares(eigenvalues)).sum().exp())


def rankme_singular(singular_values: Tensor) -> float:
    """RankMe as in Garrido et al. (2023): entropy over singular values of the uncentred F.

    Args:
        singular_values: s ≥ 0, shape (min(M, d),); p = s/Σs + 1e-7.

    Returns:
        exp(−Σ p ln p). The shares sum to a little more than 1, as in the paper.

    Raises:
        ValueError: The singular values sum to zero, are negative or not finite.
    """
    shares = _shares(singular_values) + GARRIDO_EPSILON
    return float(torch.special.entr(shares).sum().exp())


def alpha_rank_range(dimension: int, count: int) -> tuple[int, int]:
    """Ranks over which alpha_req is fitted, 1-based and inclusive.

    With r = min(d, M) − 1: 12 … 100 where r ≥ 200, as in the papers' code, otherwise
    max(2, ⌈r/16⌉) … ⌊r/2⌋, which is empty for very small r.

    Args:
        dimension: d.
        count: M.

    Returns:
        First and last rank.
    """
    largest = min(dimension, count) - 1
    if largest >= 200:
        return 12, 100
    return max(2, -(-largest // 16)), largest // 2


def fit_alpha_req(eigenvalues: Tensor, count: int) -> AlphaFit:
    """Decay exponent of the spectrum (α-ReQ, Agrawal et al. 2022): λ ∝ rank^−alpha_req.

    Weighted least squares of ln λ on ln rank with weights 1/rank, over `alpha_rank_range`, cut
    where the eigenvalues fall to `numerical_null`.

    Args:
        eigenvalues: λ, shape (d,), descending.
        count: M, the rows behind the spectrum.

    Returns:
        The fit; its value and R² are NaN where fewer than two ranks are usable.
    """
    values = eigenvalues.to(torch.float64)
    first, last = alpha_rank_range(values.numel(), count)
    last = min(last, int((values > numerical_null(values)).sum()))
    if last - first < 1:
        return AlphaFit(float("nan"), float("nan"), first, last, values.new_empty(0))
    ranks = torch.arange(first, last + 1, dtype=torch.float64, device=values.device)
    weights = ranks.reciprocal() / ranks.reciprocal().sum()
    position = ranks.log() - (weights * ranks.log()).sum()
    height = values[first - 1 : last].log()
    height = height - (weights * height).sum()
    coefficients = -weights * position / (weights * position.square()).sum()
    value = float((coefficients * height).sum())
    total = float((weights * height.square()).sum())
    residual = float((weights * (height + value * position).square()).sum())
    r2 = 1 - residual / total if total > 0 else float("nan")
    return AlphaFit(value, r2, first, last, coefficients)


def participation_ratio(eigenvalues: Tensor) -> float:
    """(Σλ)²/Σλ²: the number of directions that share the variance, weighted towards large ones.

    Args:
        eigenvalues: λ ≥ 0, shape (d,).

    Returns:
        A number between 1 and d.

    Raises:
        ValueError: The eigenvalues sum to zero, are negative or not finite.
    """
    return float(_shares(eigenvalues).square().sum().reciprocal())


def stable_rank(eigenvalues: Tensor) -> float:
    """Σλ/λ₁ (Rudelson and Vershynin 2007, for the centred F).

    Args:
        eigenvalues: λ ≥ 0, shape (d,).

    Returns:
        A number between 1 and d.

    Raises:
        ValueError: The eigenvalues sum to zero, are negative or not finite.
    """
    return float(_shares(eigenvalues).max().reciprocal())


def top_share(eigenvalues: Tensor, k: int) -> float:
    """Share of the variance in the k leading directions.

    Args:
        eigenvalues: λ ≥ 0, shape (d,), descending.
        k: How many, at least 1; 1 is the answer for k ≥ d.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: k < 1, or the eigenvalues sum to zero, are negative or not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return min(float(_shares(eigenvalues)[:k].sum()), 1.0)


def _finite_scatter(accumulator: MomentAccumulator) -> Tensor:
    scatter = accumulator.scatter
    if not bool(torch.isfinite(scatter).all()):
        raise ValueError("the features hold values that are not finite")
    return scatter


def _descending(ascending: Tensor, count: int) -> Tensor:
    """Returns the eigenvalues of Σ from those of the scatter, M·Σ."""
    return ascending.flip(0).clamp_min(0) / count


def _shares(values: Tensor) -> Tensor:
    exact = values.to(torch.float64)
    total = float(exact.sum())
    if not 0 < total < float("inf") or float(exact.min()) < 0:
        raise ValueError(
            f"a spectrum must be non-negative with a positive finite sum, got sum {total:g}: "
            "the features have no variance, or are not finite"
        )
    return exact / total
