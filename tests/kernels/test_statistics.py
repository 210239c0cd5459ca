"""Correlations against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.statistics import pearson, spearman


@settings(max_examples=30, derandomize=True, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(3, 60))
def test_coefficients_match_their_definitions(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((2, count))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    ranks = [[sum(other < value for other in series) for value in series] for series in (x, y)]
    assert spearman(x, y) == pytest.approx(np.corrcoef(np.array(ranks))[0, 1], abs=1e-12)
    assert spearman(np.exp(x), y) == pytest.approx(spearman(x, y), abs=1e-12)


def test_ties_share_their_mean_rank() -> None:
    expected = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1]
    assert spearman([5, 5, 6, 7], [1, 2, 3, 4]) == pytest.approx(expected, rel=1e-12)


def test_a_constant_series_has_no_correlation() -> None:
    assert math.isnan(pearson([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1, 2, 3], [0, 0, 0]))


def test_series_that_do_not_pair_are_refused() -> None:
    for x, y in (([1, 2], [1, 2, 3]), ([1], [1])):
        with pytest.raises(ValueError, match="same length of at least 2"):
            pearson(x, y)
