"""Predicting a checkpoint that was held out, by a line on one predictor that is chosen without it.

Invariant: nothing that a prediction is made of has seen the outcome that it is compared with, the
choice of its predictor included: that is made by leaving out each of the others in turn.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from dashboards.correlation_statistics import EXACT_BELOW, LEVEL, permutations
from dashboards.distances import Places
from dashboards.turns import Array

FEWEST_TO_JUDGE = 5
"""Below, a line through the checkpoints that are left of the left ones fits whatever they are."""

_BLOCK = 1 << 13
_DRAWS = 10_000
_TOLERANCE = 1e-9
"""What rounding leaves of equal errors, or of a leverage of 1."""


@dataclass(frozen=True)
class Line:
    """A line through all checkpoints, to predict others by.

    Attributes:
        x: Predictor at the checkpoints.
        y: Their outcome.
        error: Root mean square of the errors that leaving each of them out gave.
    """

    x: Array
    y: Array
    error: float

    def predict(self, at: float) -> tuple[float, float, float]:
        """Returns a prediction and its 95 % interval.

        Half its width is t(n − 2)·error·√(1 + (x − x̄)²/Σ(x − x̄)²). The error is that of nested
        leave-one-out, which the estimate of the line and the choice of the predictor are part of.
        """
        centred = self.x - self.x.mean()
        spread = float(centred @ centred)
        away = (at - float(self.x.mean())) ** 2 / spread if spread > 0 else 0.0
        middle = float(_predicted(self.x[None], self.y[:, None], np.array([at]))[0, 0])
        times = float(special.stdtrit(len(self.y) - 2, 1 - LEVEL / 2))
        half = times * self.error * math.sqrt(1 + away)
        return middle, middle - half, middle + half


def held_out(predictors: Array, outcomes: Array) -> Array:
    """Predicts each checkpoint's outcome from those of the others.

    Args:
        predictors: Shape (k, n).
        outcomes: Series of outcomes, shape (n, b); each is predicted by itself.

    Returns:
        The predictions, shape (n, b).
    """
    places = np.arange(outcomes.shape[0])
    found = np.empty_like(outcomes)
    for place in places:
        left = places != place
        known = outcomes[left]
        chosen = chosen_predictor(predictors[:, left], known)
        each = _predicted(predictors[:, left], known, predictors[:, place])
        found[place] = np.take_along_axis(each, chosen[None], axis=0)[0]
    return found


def chosen_predictor(predictors: Array, outcomes: Array) -> Places:
    """Returns which predictor's line errs least on checkpoints that were left out of it.

    Args:
        predictors: Shape (k, n), n at least 3.
        outcomes: Shape (n, b).

    Returns:
        Places of predictors, shape (b,); the first of equally good ones.
    """
    centred = outcomes - outcomes.mean(axis=0)
    errors = _left_out(predictors, centred)
    # What rounding makes of equal errors must not choose.
    equal = _TOLERANCE * (errors.min(axis=0) + _TOLERANCE * (centred**2).sum(axis=0))
    first: Places = np.argmax(errors <= errors.min(axis=0) + equal, axis=0)
    return first


def skill(outcome: Array, predictions: Array) -> float | None:
    """Returns 1 − MSE of predictions / MSE of the mean of the others; None for equal outcomes."""
    base = float(mean_errors(outcome) @ mean_errors(outcome))
    if base <= _TOLERANCE**2 * float(outcome @ outcome):
        return None
    errors = outcome - predictions
    return 1 - float(errors @ errors) / base


def mean_errors(outcome: Array) -> Array:
    """Returns each outcome less the mean of the others, shape (n,)."""
    n = len(outcome)
    errors: Array = (outcome - outcome.mean()) * n / (n - 1)
    return errors


def skill_pvalue(predictors: Array, outcome: Array) -> float | None:
    """Returns the share of all orders of the outcomes that are predicted as well or better.

    Every choice is made anew for every order. None from `EXACT_BELOW` checkpoints on.

    Args:
        predictors: Shape (k, n).
        outcome: Shape (n,).
    """
    if len(outcome) >= EXACT_BELOW:
        return None
    order = permutations(len(outcome))
    most = float(((outcome - held_out(predictors, outcome[:, None])[:, 0]) ** 2).sum())
    hits = 0
    for start in range(0, order.shape[1], _BLOCK):
        shuffled = outcome[order[:, start : start + _BLOCK]]
        errors = ((shuffled - held_out(predictors, shuffled)) ** 2).sum(axis=0)
        hits += int(np.count_nonzero(errors <= most * (1 + _TOLERANCE)))
    return hits / order.shape[1]


def skill_interval(outcome: Array, predictions: Array) -> tuple[float | None, float | None]:
    """Returns the 95 % percentile interval of the skill by a bootstrap over checkpoints.

    Checkpoints are drawn with both of their errors, so none is ever predicted from its own copy.
    None below `EXACT_BELOW` checkpoints.
    """
    n = len(outcome)
    if n < EXACT_BELOW:
        return None, None
    drawn = np.random.default_rng(0).integers(0, n, (_DRAWS, n))
    ours = ((outcome - predictions) ** 2)[drawn].sum(axis=1)
    base = (mean_errors(outcome) ** 2)[drawn].sum(axis=1)
    low, high = np.quantile(1 - ours[base > 0] / base[base > 0], [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def regret(outcome: Array, predictions: Array) -> float:
    """Returns the best outcome less that of the checkpoint with the highest prediction."""
    return float(outcome.max() - outcome[int(np.argmax(predictions))])


def _predicted(x: Array, y: Array, at: Array) -> Array:
    """Returns the values of lines through (x, y) at a point of each predictor.

    Args:
        x: Shape (k, n).
        y: Shape (n, b).
        at: Shape (k,).

    Returns:
        Shape (k, b).
    """
    unit, norm = _units(x)
    weights = unit * ((at - x.mean(axis=1)) / norm)[:, None] + 1 / x.shape[1]
    return _product(weights, y)


def _left_out(x: Array, centred: Array) -> Array:
    """Returns the squared errors of lines through all points but one, summed over those.

    A line's error at a point that it was fitted to, over 1 − the point's leverage, is its error
    without the point. With c the outcomes less their mean, u the predictor likewise but of length
    1, s = u·c and v = 1 − 1/n − u², it is (c − u s)/v.

    Args:
        x: Shape (k, n).
        centred: c, shape (n, b).

    Returns:
        Shape (k, b).
    """
    unit, _ = _units(x)
    rest = 1 - 1 / x.shape[1] - unit**2
    # Without a point whose leverage is 1 the others share one x: their mean is all there is.
    alone = rest < _TOLERANCE
    slope = _product(unit, centred)
    tilt = np.where(alone, 0.0, unit)
    weights = np.where(alone, 1 - 1 / x.shape[1], rest) ** -2.0
    squares = _product(weights, centred**2) - 2 * slope * _product(weights * tilt, centred)
    squares += slope**2 * (weights * tilt**2).sum(axis=1)[:, None]
    # Less than 0 is what rounding leaves of lines without errors.
    least: Array = np.maximum(squares, 0.0)
    return least


def _units(x: Array) -> tuple[Array, Array]:
    """Returns predictors less their mean, of length 1 (0 if they don't vary), and their lengths."""
    centred = x - x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    varies = norm > 1e-12 * np.linalg.norm(x, axis=1)
    norm = np.where(varies, norm, 1.0)
    return np.where(varies[:, None], centred / norm[:, None], 0.0), norm


def _product(a: Array, b: Array) -> Array:
    # BLAS would share out so small a product to threads, and wait for them on a busy machine.
    found: Array = np.einsum("kn,nb->kb", a, b)
    return found
