"""Paired bootstrap and crossovers of pass@k, against slow references and known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dashboards.passk_statistics import (
    DRAWS,
    bootstrap_counts,
    bootstrap_means,
    compare,
    crossover,
)
from dashboards.turns import Array

K = (1, 4, 16, 64)


def test_bootstrap_is_that_of_a_slow_reference() -> None:
    rng = np.random.default_rng(4)
    earlier, later = rng.random((2, 23, 4))
    counts = bootstrap_counts(23)
    slow = [
        [
            sum(times * (later[p, k] - earlier[p, k]) for p, times in enumerate(draw)) / 23
            for k in range(4)
        ]
        for draw in counts
    ]
    np.testing.assert_allclose(bootstrap_means(later - earlier), slow, atol=1e-12)
    told = compare(K, earlier, later)
    ends = np.quantile(np.array(slow), (0.025, 0.975), axis=0)
    np.testing.assert_allclose((told.low, told.high), ends, atol=1e-12)
    crossing = [at for draw in slow if (at := crossover(K, np.array(draw))) is not None]
    assert told.share == len(crossing) / DRAWS
    assert told.n == 23


def test_draws_are_resamples_of_all_problems() -> None:
    counts = bootstrap_counts(50)
    assert counts.shape == (DRAWS, 50)
    assert (counts.sum(axis=1) == 50).all()
    # Multinomial: each count has mean 1 and variance 1 − 1/n.
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.05)


def test_the_interval_is_that_of_an_independent_bootstrap() -> None:
    rng = np.random.default_rng(8)
    difference = rng.normal(0.1, 0.3, (60, 1))
    told = compare((1,), np.zeros((60, 1)), difference)
    drawn = [difference[rng.integers(0, 60, 60)].mean() for _ in range(4000)]
    assert told.low[0] == pytest.approx(np.quantile(drawn, 0.025), abs=0.01)
    assert told.high[0] == pytest.approx(np.quantile(drawn, 0.975), abs=0.01)


def test_what_problems_share_cancels() -> None:
    hard = np.random.default_rng(1).random((40, 1))
    told = compare((1,), 0.5 * hard, 0.5 * hard + 0.01)
    assert told.low[0] == pytest.approx(0.01)
    assert told.high[0] == pytest.approx(0.01)


def test_a_comparison_is_the_same_twice() -> None:
    earlier, later = np.random.default_rng(2).random((2, 30, 4))
    first, second = compare(K, earlier, later), compare(K, earlier, later)
    assert (first.low == second.low).all()
    assert (first.high == second.high).all()
    assert (first.crossover, first.share) == (second.crossover, second.share)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ((0.3, 0.1, -0.1, -0.2), 8.0),
        ((0.3, 0.2, 0.1, -0.3), math.exp(math.log(16) + math.log(4) / 4)),
        ((0.3, 0.1, -0.1, 0.0), 8.0),
        ((0.3, 0.0, 0.0, -0.1), 4.0),
        ((0.1, -0.1, 0.1, -0.1), 32.0),
        ((-0.1, 0.1, -0.1, -0.1), 8.0),
        ((0.3, 0.2, 0.1, 0.1), None),
        ((0.3, 0.2, 0.1, 0.0), None),
        ((-0.3, -0.2, -0.1, -0.1), None),
        ((0.1, -0.1, -0.1, 0.1), None),
        ((0.0, 0.0, 0.0, 0.0), None),
        ((1e-16, 1e-16, -1e-16, -1e-16), None),
    ],
)
def test_crossovers(difference: tuple[float, ...], expected: float | None) -> None:
    found = crossover(K, np.array(difference))
    assert found == (None if expected is None else pytest.approx(expected))


@given(arrays.arrays(np.float64, 4, elements=st.floats(-1, 1)))
def test_a_crossover_lies_between_a_lead_and_a_lag(difference: Array) -> None:
    found = crossover(K, difference)
    if found is None:
        return
    assert K[0] <= found <= K[-1] * (1 + 1e-12)
    assert any(d > 0 for k, d in zip(K, difference, strict=True) if k <= found * (1 + 1e-12))
    after = [d for k, d in zip(K, difference, strict=True) if k > found * (1 + 1e-12)]
    assert all(d <= 1e-12 for d in after)
