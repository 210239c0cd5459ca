"""What survives null models, and what doesn't."""

from typing import Any

import numpy as np
import pytest

from dashboards.correlation_statistics import pearson
from dashboards.null_models import beside_nulls, walk_correlations, walk_pvalue
from dashboards.series_correlations import correlate

STEPS = [2**power for power in range(4, 16)]


def judged(outcome: list[float], series: list[float], loss: list[float] | None = None) -> Any:
    log_step = [float(np.log1p(step)) for step in STEPS]
    nulls = {"log_step": log_step} | ({} if loss is None else {"loss": loss})
    (row,) = beside_nulls(correlate(STEPS, outcome, [series]), outcome, nulls)
    return row


def test_walks_are_what_a_slow_oracle_finds() -> None:
    outcome = [float(value) for value in np.random.default_rng(5).standard_normal(9)]
    walks = walk_correlations(outcome)
    assert walks is not None
    assert len(walks) == 2000
    steps = np.random.default_rng(0).standard_normal((9, 2000))
    slow = [abs(pearson(np.cumsum(steps[:, n]), np.array(outcome)) or 0.0) for n in range(2000)]
    assert walks == pytest.approx(sorted(slow))
    assert walk_pvalue(-0.5, walks) == np.mean(np.array(slow) >= 0.5)


def test_walks_correlate_with_a_trend_more_than_with_noise() -> None:
    trend, noise = np.arange(40.0), np.random.default_rng(1).standard_normal(40)
    shares = [walk_pvalue(0.8, walk_correlations(list(series))) for series in (trend, noise)]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[0] > 0.2
    assert shares[1] < 0.01


def test_a_constant_outcome_has_no_walks() -> None:
    assert walk_correlations([1.0, 1.0, 1.0]) is None
    row = judged([1.0] * 12, [float(n) for n in range(12)])
    assert (row["walk_pvalue"], row["null_log_step"], row["survives"]) == (None, None, None)


def test_what_moves_with_the_outcome_beyond_the_trend_survives() -> None:
    series = [float(value) for value in np.random.default_rng(2).standard_normal(12)]
    row = judged([2 * value for value in series], series)
    assert row["survives"]
    assert abs(row["null_log_step"]) < 0.9
    assert row["null_learning_rate"] is None


def test_what_only_trends_does_not_survive() -> None:
    rng = np.random.default_rng(3)
    trend = np.log1p(STEPS)
    outcome = [float(value) for value in trend + 0.3 * rng.standard_normal(12)]
    series = [float(value) for value in trend + 0.3 * rng.standard_normal(12)]
    row = judged(outcome, series)
    assert row["pearson"] > 0.8
    assert row["survives"] is False


def test_a_loss_that_says_more_is_enough_to_fall() -> None:
    series = [float(value) for value in np.random.default_rng(2).standard_normal(12)]
    noisy = [value + 0.1 * (-1) ** place for place, value in enumerate(series)]
    assert judged(series, noisy)["survives"]
    assert judged(series, noisy, loss=[-value for value in series])["survives"] is False


def test_a_null_model_counts_where_it_is_known() -> None:
    series = [float(value) for value in np.random.default_rng(2).standard_normal(12)]
    rate = [None, *(2 * value for value in series[1:])]
    (row,) = beside_nulls(correlate(STEPS, series, [series]), series, {"learning_rate": rate})
    assert row["null_learning_rate"] == pytest.approx(1)
    few = {"learning_rate": [*[None] * 10, 1.0, 2.0]}
    (row,) = beside_nulls(correlate(STEPS, series, [series]), series, few)
    assert row["null_learning_rate"] is None


def test_too_few_checkpoints_give_no_verdict() -> None:
    outcome, series = [1.0, 2.0, 4.0, 3.0], [2.0, 1.0, 4.0, 3.0]
    (row,) = beside_nulls(correlate(STEPS[:4], outcome, [series]), outcome, {})
    assert row["survives"] is None
