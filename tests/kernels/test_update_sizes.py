"""Sizes of updates against plain loops, their slopes against numpy's least squares."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.kernels.update_sizes import Slope, UpdateSizes, slope, update_sizes

SERIES = st.integers(3, 40).flatmap(
    lambda n: st.tuples(
        *(st.lists(st.floats(-5, 5), min_size=n, max_size=n) for _ in range(2)),
        st.lists(st.integers(1, 9), min_size=n, max_size=n),
    )
)


def drawn(seed: int, tokens: int = 57, width: int = 6) -> tuple[torch.Tensor, Any, Any]:
    """Rows of various norms, updates without zeros, and counts of which some are 0."""
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.normal(size=(tokens, 1)))
    weight = torch.from_numpy(scale * generator.normal(size=(tokens, width)))
    update = torch.from_numpy(generator.normal(size=(tokens, width)))
    return weight, update, generator.integers(0, 4, tokens)


def values(found: UpdateSizes) -> list[float]:
    slopes = (found.beta, found.beta_seen, found.beta_unseen, found.beta_given_count)
    return [each.value for each in slopes if each is not None]


def least_squares(y: Any, *regressors: Any) -> Slope | None:
    """The first regressor's slope by numpy's solver and the textbook's covariance."""
    design = np.column_stack([*regressors, np.ones(len(y))])
    freedom = len(y) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fitted, *_ = np.linalg.lstsq(design, y, rcond=None)
    residuals = y - design @ fitted
    covariance = np.linalg.inv(design.T @ design) * (residuals @ residuals) / freedom
    return Slope(float(fitted[0]), math.sqrt(max(0, covariance[0, 0])), len(y))


@given(SERIES)
def test_slopes_are_those_of_least_squares(
    series: tuple[list[float], list[float], list[int]],
) -> None:
    x, y = (np.array(each) for each in series[:2])
    given_too = np.log(series[2])
    assume(np.ptp(x) == 0 or np.ptp(x) > 1e-3)
    for regressors in ([x], [x, given_too] if np.ptp(given_too) else [x]):
        expected = least_squares(y, *regressors)
        found = slope(x, y, *regressors[1:])
        if expected is None:
            assert found is None
            continue
        parts = [regressors[-1] - np.mean(regressors[-1]), x - x.mean()]
        alike = parts[0] @ parts[1] / math.sqrt((parts[0] @ parts[0]) * (parts[1] @ parts[1]))
        assume(len(regressors) == 1 or abs(alike) < 1 - 1e-4)
        assert found is not None
        assert found.n == expected.n
        assert found.value == pytest.approx(expected.value, rel=1e-6, abs=1e-6)
        assert found.stderr == pytest.approx(expected.stderr, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_deciles_are_those_of_a_loop(seed: int) -> None:
    weight, update, counts = drawn(seed)
    norms, sizes = (rows.square().sum(1).sqrt().numpy() for rows in (weight, update))
    ranked = sorted(range(len(norms)), key=lambda token: norms[token])
    rows = {
        (row.decile, row.tokens_of): row for row in update_sizes(weight, update, counts).deciles
    }
    for name, wanted in (("all", {0, 1, 2, 3}), ("seen", {1, 2, 3}), ("unseen", {0})):
        for decile in range(1, 11):
            members = [
                token
                for rank, token in enumerate(ranked)
                if 1 + 10 * rank // len(ranked) == decile and counts[token] in wanted
            ]
            if not members:
                assert (decile, name) not in rows
                continue
            row = rows.pop((decile, name))  # type: ignore[arg-type]
            assert row.n == len(members)
            assert row.norm_mean == pytest.approx(np.mean(norms[members]), rel=1e-12)
            assert row.update_mean == pytest.approx(np.mean(sizes[members]), rel=1e-12)
            relative = np.mean([sizes[token] / norms[token] for token in members])
            assert row.relative_update_mean == pytest.approx(relative, rel=1e-12)
    assert not rows


@pytest.mark.parametrize("seed", range(5))
def test_slopes_are_over_the_tokens_they_name(seed: int) -> None:
    weight, update, counts = drawn(seed)
    found = update_sizes(weight, update, counts)
    x, y = (rows.square().sum(1).sqrt().log().numpy() for rows in (weight, update))
    seen = counts > 0
    expected = (
        (found.beta, least_squares(y, x)),
        (found.beta_seen, least_squares(y[seen], x[seen])),
        (found.beta_unseen, least_squares(y[~seen], x[~seen])),
        (found.beta_given_count, least_squares(y[seen], x[seen], np.log(counts[seen]))),
    )
    for ours, theirs in expected:
        assert ours is not None
        assert theirs is not None
        assert ours.n == theirs.n
        assert ours.value == pytest.approx(theirs.value, abs=1e-10)
        assert ours.stderr == pytest.approx(theirs.stderr, abs=1e-10)


@given(SERIES)
def test_the_relative_update_falls_by_one_more_identically(
    series: tuple[list[float], list[float], list[int]],
) -> None:
    x, y = (np.array(each) for each in series[:2])
    assume(np.ptp(x) > 1e-2)
    absolute, relative = slope(x, y), slope(x, y - x)
    assert absolute is not None
    assert relative is not None
    assert relative.value == pytest.approx(absolute.value - 1, abs=1e-9)
    assert relative.stderr == pytest.approx(absolute.stderr, abs=1e-6)


def test_updates_of_one_size_have_slope_0_and_those_like_the_rows_1() -> None:
    weight, update, counts = drawn(0)
    same = update / update.norm(dim=1, keepdim=True)
    assert values(update_sizes(weight, same, counts)) == pytest.approx([0] * 4, abs=1e-12)
    like = update_sizes(weight, -0.01 * weight, counts)
    assert values(like) == pytest.approx([1] * 4, abs=1e-12)
    assert {round(row.relative_update_mean, 12) for row in like.deciles} == {0.01}


def test_counts_that_explain_updates_are_controlled_for() -> None:
    generator = np.random.default_rng(1)
    counts = generator.integers(1, 1000, 400)
    norms = counts**0.5 * np.exp(0.1 * generator.normal(size=400))
    found = update_sizes(
        torch.from_numpy(norms[:, None]), torch.from_numpy(1.0 * counts[:, None]), counts
    )
    assert found.beta is not None
    assert found.beta_given_count is not None
    assert found.beta.value > 1.5
    assert abs(found.beta_given_count.value) < 1e-9


def test_equal_counts_explain_nothing() -> None:
    weight, update, counts = drawn(2)
    found = update_sizes(weight, update, np.full_like(counts, 7))
    assert found.beta_given_count == found.beta_seen == found.beta
    assert found.beta_unseen is None


def test_norms_that_do_not_vary_have_no_slope() -> None:
    weight, update, counts = drawn(3)
    equal = (weight / weight.norm(dim=1, keepdim=True)).float()
    found = update_sizes(equal, update, counts)
    assert values(found) == []
    assert sum(row.n for row in found.deciles if row.tokens_of == "all") == len(weight)
    # As explained by their count as that.
    assert slope([1, 2, 3, 4], [4, 1, 2, 5], [2, 4, 6, 8]) is None


def test_unmoved_tokens_are_in_no_slope_and_zero_rows_in_nothing() -> None:
    weight, update, counts = drawn(4)
    update[:5] = 0
    weight[5:8] = 0
    found = update_sizes(weight, update, counts)
    assert (found.n_unmoved, found.n_zero) == (5, 3)
    assert sum(row.n for row in found.deciles if row.tokens_of == "all") == len(weight) - 3
    assert found.beta == update_sizes(weight[8:], update[8:], counts[8:]).beta


@pytest.mark.parametrize("tokens", [1, 2])
def test_few_tokens_have_no_slope(tokens: int) -> None:
    weight, update, counts = drawn(5, tokens)
    found = update_sizes(weight, update, counts)
    assert values(found) == []
    assert sum(row.n for row in found.deciles if row.tokens_of == "all") == tokens
    assert slope([1, 2, 4], [3, 4, 1], [1, 5, 2]) is None


def test_the_precision_of_the_weights_does_not_matter() -> None:
    weight, update, counts = drawn(6)
    low = update_sizes(weight.bfloat16(), update.bfloat16(), counts)
    assert low == update_sizes(weight.bfloat16().double(), update.bfloat16().double(), counts)


def test_what_does_not_fit_is_refused() -> None:
    weight, update, counts = drawn(7)
    with pytest.raises(ValueError, match="one update and one count for each row"):
        update_sizes(weight, update[1:], counts)
    with pytest.raises(ValueError, match="one update and one count for each row"):
        update_sizes(weight, update, counts[1:])
    with pytest.raises(ValueError, match="counts of at least 0"):
        update_sizes(weight, update, counts - 1)
    with pytest.raises(ValueError, match="finite"):
        update_sizes(weight, update * math.inf, counts)
