"""Statistics of few points against slow references and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dashboards import correlation_statistics as ours
from dashboards.series_correlations import correlate
from dashboards.turns import Array

_values = st.integers(-50, 50)


def _pairs(least: int, most: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(_values, _values), min_size=least, max_size=most)


def _columns(pairs: list[tuple[int, int]]) -> tuple[Array, Array]:
    x, y = np.array(pairs, dtype=np.float64).T
    return x, y


def _slow_pvalue(x: Array, y: Array) -> float:
    seen = abs(stats.pearsonr(x, y).statistic)
    orders = list(itertools.permutations(y))
    hits = sum(abs(stats.pearsonr(x, order).statistic) >= seen - 1e-9 for order in orders)
    return hits / len(orders)


@given(_pairs(3, 12))
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = _columns(pairs)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert ours.pearson(x, y) is None
        assert ours.spearman(x, y) is None
        return
    assert ours.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert ours.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@given(st.lists(_values, min_size=1, max_size=20))
def test_ranks_are_scipys(values: list[int]) -> None:
    np.testing.assert_array_equal(
        ours.ranks(np.array(values, dtype=np.float64)), stats.rankdata(values)
    )


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("tied", [False, True])
def test_exact_pvalues_count_all_orders(n: int, tied: bool) -> None:
    drawn = np.random.default_rng(n)
    for _ in range(5):
        x = drawn.integers(0, 3, n).astype(float) if tied else drawn.standard_normal(n)
        y = drawn.integers(0, 3, n).astype(float) if tied else drawn.standard_normal(n)
        if len(set(x)) == 1 or len(set(y)) == 1:
            continue
        (row,) = correlate(list(range(n)), list(y), [list(x)])
        assert row["pvalue_kind"] == "permutation"
        assert row["pearson_pvalue"] == pytest.approx(_slow_pvalue(x, y))
        slow = _slow_pvalue(stats.rankdata(x), stats.rankdata(y))
        assert row["spearman_pvalue"] == pytest.approx(slow)


def test_exact_pvalues_of_seven_points() -> None:
    drawn = np.random.default_rng(7)
    x, y = drawn.standard_normal((2, 7))
    u, v = ours.standardized(x), ours.standardized(y)
    assert u is not None
    assert v is not None
    orders = np.array(list(itertools.permutations(v)))
    expected = np.mean(np.abs(orders @ u) >= abs(u @ v) - 1e-12)
    (found,) = ours.permutation_pvalues(u[:, None], v)
    assert found == pytest.approx(expected)


def test_permutations_are_all_different_and_all_there() -> None:
    order = ours.permutations(6)
    assert {tuple(row) for row in order.T.tolist()} == set(itertools.permutations(range(6)))
    assert ours.permutations(9).shape == (9, math.factorial(9))


def test_nine_points_in_order_have_two_orders_as_large() -> None:
    (row,) = correlate(list(range(9)), list(range(9)), [[float(i) for i in range(9)]])
    assert row["pearson_pvalue"] == 2 / math.factorial(9)
    assert row["spearman_pvalue"] == 2 / math.factorial(9)


def test_many_points_have_the_t_tests_pvalue() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 15))
    (row,) = correlate(list(range(15)), list(y), [list(x)])
    assert row["pvalue_kind"] == "t"
    assert row["pearson_pvalue"] == pytest.approx(stats.pearsonr(x, y).pvalue)
    assert row["spearman_pvalue"] == pytest.approx(stats.spearmanr(x, y).pvalue)
    interval = stats.pearsonr(x, y).confidence_interval(0.95)
    assert (row["pearson_low"], row["pearson_high"]) == pytest.approx(tuple(interval))


def test_intervals_need_four_points_and_one_more_for_each_variable_held() -> None:
    assert ours.fisher_interval(0.5, 3) == (None, None)
    assert ours.fisher_interval(0.5, 4, controlled=1) == (None, None)
    assert ours.fisher_interval(None, 9) == (None, None)
    assert ours.fisher_interval(-1.0, 9) == (-1.0, -1.0)
    low, high = ours.fisher_interval(0.5, 5, controlled=1)
    assert (low, high) == ours.fisher_interval(0.5, 4)
    assert low == pytest.approx(math.tanh(math.atanh(0.5) - 1.959964), abs=1e-6)


@given(st.lists(st.tuples(_values, _values, _values), min_size=4, max_size=12))
def test_partial_correlation_is_that_of_residuals(rows: list[tuple[int, int, int]]) -> None:
    x, y, z = np.array(rows, dtype=np.float64).T
    left = ours.partial(ours.pearson(x, y), ours.pearson(x, z), ours.pearson(y, z))
    design = np.stack([np.ones_like(z), z], axis=1)
    residuals = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    if left is not None:
        assert left == pytest.approx(stats.pearsonr(*residuals).statistic, abs=1e-6)
    elif len(set(z)) > 1:
        assert min(np.abs(r).max() for r in residuals) < 1e-3


@settings(max_examples=40)
@given(
    _pairs(5, 8),
    st.sampled_from([-3.0, 0.5, 7.0]),
    st.sampled_from([-100.0, 0.0, 2.5]),
    st.randoms(use_true_random=False),
)
def test_statistics_are_invariant(
    pairs: list[tuple[int, int]], factor: float, shift: float, random: object
) -> None:
    x, y = _columns(pairs)
    steps = list(range(len(x)))
    (first,) = correlate(steps, list(y), [list(x)])
    (second,) = correlate(steps, list(y * 2 + 1), [list(x * factor + shift)])
    sign = math.copysign(1, factor)
    for name in ("pearson", "spearman", "partial_given_log_step", "differences_pearson"):
        if first[name] is None:
            assert second[name] is None
        else:
            assert second[name] == pytest.approx(sign * first[name], abs=1e-9)
    for name in ("pearson_pvalue", "spearman_pvalue"):
        assert second[name] == pytest.approx(first[name])
    # The order of the checkpoints matters to differences and trends alone.
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]
    (third,) = correlate(steps, list(y[order]), [list(x[order])])
    for name in ("pearson", "spearman", "pearson_pvalue", "spearman_pvalue"):
        assert third[name] == pytest.approx(first[name], abs=1e-9)


@given(st.lists(_values, min_size=2, max_size=12))
def test_estimates_are_scipys(values: list[int]) -> None:
    found = ours.estimate([float(value) for value in values])
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert found.low == found.high == found.mean
        assert found.pvalue == float(values[0] == 0)
        return
    expected = stats.ttest_1samp(values, 0)
    assert found.pvalue == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_estimates_of_one_value_and_of_none() -> None:
    assert ours.estimate([]) is None
    assert ours.estimate([2.0]) == ours.Estimate(2.0, None, None, None, 1)


def test_slope_is_scipys() -> None:
    x, y = np.random.default_rng(1).standard_normal((2, 9))
    assert ours.slope(x, y) == pytest.approx(stats.linregress(x, y).slope)
    assert ours.slope(np.ones(9), y) is None


def test_a_constant_has_no_correlation_whatever_rounding_leaves() -> None:
    (row,) = correlate([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3], [[0.1 + 0.2] * 4])
    assert row["pearson"] is None
    assert row["pearson_pvalue"] is None
    assert row["spearman"] is None
    assert row["pearson_low"] is None
