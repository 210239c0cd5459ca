"""Win rates from preferences: raw, and at equal lengths of the answers.

A preference is a number from 1 (the baseline's answer) to 2 (the other one); 0 and 1.5 are draws
and NaN is none at all, as in AlpacaEval's annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Array = NDArray[np.float64]

# C = 100, AlpacaEval's own where it doesn't cross-validate: just enough that a judge that always
# prefers the longer answer has finite coefficients.
_PENALTY = 1 / 100


@dataclass(frozen=True)
class WinRate:
    """A win rate and what it counts.

    Attributes:
        rate: 100 × mean(preference − 1); NaN without preferences.
        stderr: Its standard error over instructions; NaN for fewer than two.
        n: Preferences.
        n_null: Missing ones.
        wins: Those above one half.
        losses: Those below.
        draws: The rest.
    """

    rate: float
    stderr: float
    n: int
    n_null: int
    wins: int
    losses: int
    draws: int


def scores(preferences: Sequence[float | None]) -> Array:
    """Returns preferences as 0 … 1, draws as 0.5, and NaN for what is none."""
    given = np.array([np.nan if p is None else p for p in preferences], dtype=np.float64)
    given = np.where(given == 0, 1.5, given) - 1
    return np.where((given >= 0) & (given <= 1), given, np.nan)


def win_rate(preferences: Sequence[float | None]) -> WinRate:
    """Returns the win rate of preferences (AlpacaEval's `AbsoluteScoringRule`)."""
    every = scores(preferences)
    found = every[~np.isnan(every)]
    n = len(found)
    wins, losses = int((found > 0.5).sum()), int((found < 0.5).sum())
    return WinRate(
        rate=100 * float(found.mean()) if n else float("nan"),
        stderr=100 * float(found.std(ddof=1)) / n**0.5 if n > 1 else float("nan"),
        n=n,
        n_null=len(every) - n,
        wins=wins,
        losses=losses,
        draws=n - wins - losses,
    )


def length_controlled(
    preferences: Sequence[float | None],
    length_differences: Sequence[float],
    difficulties: Sequence[float] | None = None,
) -> float | None:
    """Returns the win rate had all answers been as long as the baseline's.

    The generalized linear model of Dubois et al. 2024 (arXiv:2404.04475), for one pair of models:
    logit P(preferred) = θ + φ·tanh(Δ / sd Δ) + ψ·γ, with Δ the baseline's length less the other's
    and γ the difficulty of the instruction; the rate is the mean over instructions with φ = 0.
    Without γ it is AlpacaEval's `length_controlled_minimal`. AlpacaEval chooses an L1 penalty by
    cross-validation, and pulls towards two baselines of manipulated length; here a weak L2 penalty
    does, so the rates are not those of its leaderboard to the digit.

    Args:
        preferences: The preferences.
        length_differences: Δ of each, in characters; NaN where there is no answer.
        difficulties: γ of each.

    Returns:
        The rate in percent; None without preferences.
    """
    wanted = scores(preferences)
    delta = np.asarray(length_differences, dtype=np.float64)
    known = ~(np.isnan(wanted) | np.isnan(delta))
    if not known.any():
        return None
    measured = delta[~np.isnan(delta)]
    spread = float(measured.std(ddof=1)) if len(measured) > 1 else 0.0
    length = np.tanh(delta[known] / spread) if spread > 0 else np.zeros(int(known.sum()))
    hardness = None if difficulties is None else np.asarray(difficulties, dtype=np.float64)[known]
    columns = [length, np.ones_like(length), *([] if hardness is None else [hardness])]
    _, identity, *slope = _fit(np.stack(columns, axis=1), wanted[known])
    if hardness is None:
        return equal_length_rate(identity, 0.0, np.zeros(1))
    return equal_length_rate(identity, slope[0], hardness)


def equal_length_rate(identity: float, slope: float, difficulties: Array) -> float:
    """Returns 100 × mean σ(θ + ψ·γ): the model's rate without its length term.

    Args:
        identity: θ, `not_gamed_baseline` in AlpacaEval's weights.
        slope: ψ, `instruction_difficulty` there.
        difficulties: γ of every instruction.
    """
    return 100 * float(expit(identity + slope * difficulties).mean())


def _fit(features: Array, wanted: Array) -> list[float]:
    """Returns the coefficients of a logistic regression on targets from 0 to 1."""

    def loss(weights: Array) -> tuple[float, Array]:
        logits = features @ weights
        # −y·log σ(z) − (1 − y)·log(1 − σ(z)) = log(1 + e^z) − y·z
        value = np.logaddexp(0, logits).sum() - wanted @ logits + _PENALTY * weights @ weights / 2
        return float(value), features.T @ (expit(logits) - wanted) + _PENALTY * weights

    found = minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", tol=1e-12)
    return [float(weight) for weight in found.x]
