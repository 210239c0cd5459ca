"""Held-out prediction: against loops that do it literally, and that nothing held out is seen."""

import itertools

import numpy as np
import pytest

from dashboards import advisor_statistics as ours
from dashboards.turns import Array


def fitted(x: Array, y: Array, at: float) -> float:
    if np.ptp(x) == 0:
        return float(y.mean())
    return float(np.polyval(np.polyfit(x, y, 1), at))


def literally(predictors: Array, y: Array) -> list[float]:
    """Leaves out one, chooses by leaving out another, fits, predicts."""
    found = []
    for i in range(len(y)):
        left = [j for j in range(len(y)) if j != i]
        errors = []
        for x in predictors:
            inner = [[k for k in left if k != j] for j in left]
            errors.append(
                sum(
                    (y[j] - fitted(x[rest], y[rest], x[j])) ** 2
                    for j, rest in zip(left, inner, strict=True)
                )
            )
        best = predictors[int(np.argmin(errors))]
        found.append(fitted(best[left], y[left], best[i]))
    return found


@pytest.mark.parametrize(("k", "n"), [(1, 4), (3, 5), (5, 9), (4, 14)])
def test_held_out_is_what_loops_give(k: int, n: int) -> None:
    rng = np.random.default_rng(k * n)
    x, y = rng.standard_normal((k, n)) * 10 + 3, rng.standard_normal((n, 6))
    found = ours.held_out(x, y)
    for series in range(6):
        assert found[:, series] == pytest.approx(literally(x, y[:, series]), abs=1e-9)


def test_predictors_that_hardly_vary_fall_back_on_the_mean() -> None:
    y = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    constant, single = np.full((1, 5), 2.5), np.array([[1.0, 1.0, 1.0, 1.0, 7.0]])
    for x in (constant, single):
        assert ours.held_out(x, y[:, None])[:, 0] == pytest.approx(literally(x, y))
    means = (y.sum() - y) / 4
    assert ours.held_out(constant, y[:, None])[:, 0] == pytest.approx(means)


def test_no_prediction_depends_on_the_outcome_that_it_predicts() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 8)), rng.standard_normal(8)
    before = ours.held_out(x, y[:, None])[:, 0]
    for place in range(8):
        changed = y.copy()
        changed[place] += 100
        assert ours.held_out(x, changed[:, None])[place, 0] == pytest.approx(before[place])


def test_choosing_among_noise_gives_no_skill() -> None:
    rng = np.random.default_rng(2)
    nested, seen = [], []
    for _ in range(100):
        x, y = rng.standard_normal((5, 8)), rng.standard_normal(8)
        nested.append(ours.skill(y, ours.held_out(x, y[:, None])[:, 0]))
        # What a choice gives that has seen every outcome.
        each = [ours.held_out(one[None], y[:, None])[:, 0] for one in x]
        seen.append(max(ours.skill(y, one) or 0.0 for one in each))
    assert np.median([value for value in nested if value is not None]) < -0.2
    assert np.median(seen) > 0


def test_skill_is_1_for_the_truth_and_0_for_the_mean_of_the_others() -> None:
    y = np.array([0.3, 0.1, 0.5, 0.2])
    assert ours.skill(y, y) == 1
    assert ours.skill(y, (y.sum() - y) / 3) == pytest.approx(0)
    worse = ((y - y[::-1]) ** 2).sum() / ((y - (y.sum() - y) / 3) ** 2).sum()
    assert ours.skill(y, y[::-1]) == pytest.approx(1 - worse)
    assert ours.skill(np.full(4, 0.3), y) is None


def test_p_counts_orders_with_every_choice_made_anew() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 5)), rng.standard_normal(5)
    error = [
        float(((p - np.array(literally(x, p))) ** 2).sum())
        for p in map(np.array, itertools.permutations(y))
    ]
    expected = np.mean([e <= error[0] * (1 + 1e-9) for e in error])
    assert ours.skill_pvalue(x, y) == pytest.approx(expected)
    assert ours.skill_pvalue(rng.standard_normal((2, 10)), rng.standard_normal(10)) is None


def test_p_keeps_its_level_where_there_is_nothing() -> None:
    rng = np.random.default_rng(4)
    small = sum(
        (ours.skill_pvalue(rng.standard_normal((4, 6)), rng.standard_normal(6)) or 0) <= 0.05
        for _ in range(200)
    )
    assert small <= 20


def test_bootstrap_begins_at_ten_checkpoints() -> None:
    rng = np.random.default_rng(5)
    y = rng.standard_normal(20)
    predictions = y + 0.3 * rng.standard_normal(20)
    low, high = ours.skill_interval(y, predictions)
    skill = ours.skill(y, predictions)
    assert low is not None
    assert high is not None
    assert skill is not None
    assert 0 < low < skill < high < 1
    assert ours.skill_interval(y, predictions) == (low, high)
    assert ours.skill_interval(y[:9], predictions[:9]) == (None, None)


def test_intervals_cover_checkpoints_that_were_not_tried() -> None:
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(300):
        x = rng.standard_normal(8)
        y: Array = 2 * x + rng.standard_normal(8)
        left = ours.held_out(x[None], y[:, None])[:, 0]
        line = ours.Line(x, y, float(np.sqrt(np.mean((y - left) ** 2))))
        at = float(rng.standard_normal())
        middle, low, high = line.predict(at)
        assert middle == pytest.approx(fitted(x, y, at))
        covered.append(low <= 2 * at + rng.standard_normal() <= high)
    assert 0.93 < np.mean(covered) < 0.995


def test_extrapolation_widens_the_interval() -> None:
    x: Array = np.arange(6, dtype=np.float64)
    y = np.array([0.1, 0.2, 0.2, 0.4, 0.4, 0.5])
    line = ours.Line(x, y, 0.05)
    widths = [line.predict(at)[2] - line.predict(at)[1] for at in (2.5, 5.0, 20.0)]
    assert widths == sorted(widths)
    assert widths[2] > 2 * widths[0]
    assert ours.Line(np.ones(6), y, 0.05).predict(1.0)[0] == pytest.approx(y.mean())


def test_regret_is_what_the_choice_misses() -> None:
    y = np.array([0.3, 0.1, 0.5])
    assert ours.regret(y, np.array([1.0, 3.0, 2.0])) == pytest.approx(0.4)
    assert ours.regret(y, y) == 0
