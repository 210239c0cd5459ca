"""How far fine-tuning moves the rows of an LM head, by their norm.

To first order the gradient of a row doesn't depend on its norm, so that ‖Δw‖ shouldn't either:
β, the slope of ln‖Δw‖ on ln‖w‖, is 0 then. The slope of the relative update ρ = ‖Δw‖/‖w‖ is β − 1
identically, so that a falling ρ alone proves nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from workers.kernels.head import row_norms

DECILES = 10
_LEAST = 3
# Norms stored in float32 that are meant to be equal differ by less.
_NO_VARIATION = 1e-6
# Below that share of a sum of squares, what is left of it is rounding.
_ROUNDING = 1e-12

TokensOf = Literal["all", "seen", "unseen"]
_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class DecileUpdates:
    """Updates of the tokens of a tenth of the head.

    Attributes:
        decile: Tenth of all tokens by norm, 1 the smallest … 10 the largest.
        tokens_of: All tokens in it, those seen in training, or the others.
        n: So many there are, at least one.
        norm_mean: Mean ‖w‖.
        update_mean: Mean ‖Δw‖.
        relative_update_mean: Mean ρ = ‖Δw‖/‖w‖.
    """

    decile: int
    tokens_of: TokensOf
    n: int
    norm_mean: float
    update_mean: float
    relative_update_mean: float


@dataclass(frozen=True)
class Slope:
    """Slope of a linear regression with an intercept, by ordinary least squares.

    Attributes:
        value: The slope, a pure number.
        stderr: Its standard error, the residuals taken to be independent and of equal variance.
        n: Tokens.
    """

    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class UpdateSizes:
    """What training did to the rows.

    Attributes:
        deciles: By decile, then all, seen, unseen; those without tokens are left out.
        beta: Slope of ln‖Δw‖ on ln‖w‖ over all tokens.
        beta_seen: Over those seen in training.
        beta_unseen: Over the others.
        beta_given_count: Over those seen, ln of their count as a second regressor.
        n_unmoved: Tokens with ‖Δw‖ = 0, which have no logarithm: in the deciles, in no slope.
        n_zero: Tokens with ‖w‖ = 0, which have no relative update: in nothing.
    """

    deciles: tuple[DecileUpdates, ...]
    beta: Slope | None
    beta_seen: Slope | None
    beta_unseen: Slope | None
    beta_given_count: Slope | None
    n_unmoved: int
    n_zero: int


def update_sizes(weight: Tensor, update: Tensor, counts: ArrayLike) -> UpdateSizes:
    """Sizes of updates by decile of the norm, and their slopes.

    Tokens of equal norm are ordered by their id.

    Args:
        weight: Rows before training, shape (V, d).
        update: What training adds to them, shape (V, d).
        counts: How often each token occurs in the training text, shape (V,).

    Returns:
        Norms in the unit of the weights; computed in float64.

    Raises:
        ValueError: Shapes that don't fit, numbers that are not finite, counts below 0.
    """
    occurring = np.asarray(counts, dtype=np.float64)
    if weight.shape != update.shape or occurring.shape != weight.shape[:1]:
        raise ValueError(
            f"one update and one count for each row, got {tuple(weight.shape)}, "
            f"{tuple(update.shape)} and {occurring.shape}"
        )
    norms, sizes = (_norms(rows) for rows in (weight, update))
    if not np.isfinite([norms, sizes, occurring]).all() or (occurring < 0).any():
        raise ValueError("update sizes need finite numbers, and counts of at least 0")
    kept = norms > 0
    norms, sizes, occurring = norms[kept], sizes[kept], occurring[kept]
    order = np.argsort(norms, kind="stable")
    deciles = np.empty(len(norms), dtype=np.int64)
    deciles[order] = 1 + np.arange(len(norms)) * DECILES // max(1, len(norms))
    seen = occurring > 0
    groups: dict[TokensOf, NDArray[np.bool_]] = {
        "all": np.ones_like(seen),
        "seen": seen,
        "unseen": ~seen,
    }
    moved = sizes > 0
    x, y = np.log(norms), np.log(np.where(moved, sizes, 1))
    found = seen & moved
    return UpdateSizes(
        deciles=tuple(
            DecileUpdates(
                decile,
                name,
                int(members.sum()),
                float(norms[members].mean()),
                float(sizes[members].mean()),
                float((sizes[members] / norms[members]).mean()),
            )
            for decile in range(1, DECILES + 1)
            for name, group in groups.items()
            if (members := group & (deciles == decile)).any()
        ),
        beta=slope(x[moved], y[moved]),
        beta_seen=slope(x[found], y[found]),
        beta_unseen=slope(x[moved & ~seen], y[moved & ~seen]),
        beta_given_count=slope(x[found], y[found], np.log(occurring[found])),
        n_unmoved=int((~moved).sum()),
        n_zero=int((~kept).sum()),
    )


def slope(x: ArrayLike, y: ArrayLike, given: ArrayLike | None = None) -> Slope | None:
    """Slope of y on x, by ordinary least squares with an intercept.

    A constant second regressor explains nothing: then it is the slope without one.

    Source: Frisch & Waugh, Partial time regressions, Econometrica 1 (1933): what the second
    regressor explains is taken from both.

    Args:
        x: Shape (n,), natural logarithms.
        y: Shape (n,).
        given: A second regressor, shape (n,).

    Returns:
        None below three examples (four with a second regressor), or where x doesn't vary, or not
        beside the second regressor.
    """
    first, second = (_centred(np.asarray(series, dtype=np.float64)) for series in (x, y))
    freedom = len(first) - 2
    if len(first) < _LEAST or np.ptp(first) < _NO_VARIATION:
        return None
    variation = float(first @ first)
    if given is not None and np.ptp(third := np.asarray(given, dtype=np.float64)) > 0:
        third = _centred(third)
        freedom -= 1
        first = first - third * (third @ first) / (third @ third)
        second = second - third * (third @ second) / (third @ third)
    left = float(first @ first)
    if freedom < 1 or left <= _ROUNDING * variation:
        return None
    value = float(first @ second) / left
    residuals = second - value * first
    stderr = math.sqrt(float(residuals @ residuals) / freedom / left)
    return Slope(value, stderr, len(first))


def _norms(rows: Tensor) -> _Numbers:
    norms: _Numbers = row_norms(rows).to(torch.float64).cpu().numpy()
    return norms


def _centred(series: _Numbers) -> _Numbers:
    centred: _Numbers = series - (series.mean() if len(series) else 0)
    return centred
