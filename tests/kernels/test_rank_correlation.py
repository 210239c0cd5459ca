"""Rank correlations against scipy's, and partial ones against residuals of a regression."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests import references_infinigram as references
from workers.kernels.rank_correlation import partial_spearman, rank_correlation

SERIES = st.integers(3, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 9), min_size=n, max_size=n) for _ in range(3)))
)


@given(SERIES)
def test_rank_correlation_is_scipys(series: tuple[list[int], list[int], list[int]]) -> None:
    x, y, _ = series
    found = rank_correlation(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found.value)
        assert math.isnan(found.pvalue)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.spearmanr(x, y)
    assert found.value == pytest.approx(expected.statistic, abs=1e-12)
    assert found.pvalue == pytest.approx(expected.pvalue, abs=1e-7)


@given(SERIES)
def test_the_partial_one_is_that_of_residuals(
    series: tuple[list[int], list[int], list[int]],
) -> None:
    x, y, z = (np.array(each, dtype=float) for each in series)
    found = partial_spearman(x, y, z)
    assert math.isnan(found) or -1 <= found <= 1
    explained = [abs(rank_correlation(each, z).value) > 1 - 1e-9 for each in (x, y)]
    if np.ptp(x) == 0 or np.ptp(y) == 0 or any(explained):
        assert math.isnan(found)
    elif np.ptp(z) == 0:
        assert found == rank_correlation(x, y).value
    else:
        assert found == pytest.approx(references.partial(x, y, z), abs=1e-9)


def test_a_common_cause_is_taken_out() -> None:
    generator = np.random.default_rng(0)
    length = generator.integers(1, 9, 4000)
    x, y = (-length + 0.5 * generator.standard_normal(4000) for _ in range(2))
    assert rank_correlation(x, y).value > 0.9
    assert abs(partial_spearman(x, y, length)) < 0.05


def test_agreement_without_exception_has_no_chance() -> None:
    found = rank_correlation([1, 2, 3, 4], [2, 4, 8, 16])
    assert (found.value, found.pvalue) == (1.0, 0.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]).value == -1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_examples_have_no_correlation(count: int) -> None:
    assert math.isnan(rank_correlation(range(count), range(count)).value)
    assert math.isnan(partial_spearman(range(count), range(count), range(count)))


def test_series_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        rank_correlation([1, 2, math.nan], [1, 2, 3])
