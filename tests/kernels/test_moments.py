"""Streaming moments: any split gives the same."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.moments import MomentAccumulator

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def accumulate(*batches: torch.Tensor) -> MomentAccumulator:
    accumulator = MomentAccumulator()
    for batch in batches:
        accumulator.update(batch)
    return accumulator


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0.0, 3.0, 1e6])
def test_moments_are_those_of_all_rows_at_once(device: str, offset: float) -> None:
    rows = np.random.default_rng(0).standard_normal((90, 7)) + offset
    found = accumulate(*torch.from_numpy(rows).to(device).split(16))
    assert found.count == 90
    np.testing.assert_allclose(found.mean.cpu(), rows.mean(axis=0), rtol=1e-13, atol=1e-13)
    # At 1e6 spreads the data's own rounding, 1e-10, is what limits both sides.
    exact = np.cov(rows, rowvar=False, ddof=0)
    np.testing.assert_allclose(found.covariance().cpu(), exact, rtol=0, atol=1e-9)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_batches_and_merge_order_change_nothing(
    cuts: list[int], order: random.Random, offset: float
) -> None:
    rows = torch.from_numpy(np.random.default_rng(1).standard_normal((60, 5)) + offset)
    whole = accumulate(rows)
    edges = [0, *sorted(cuts), 60]
    batches = [rows[a:b] for a, b in pairwise(edges)]
    order.shuffle(batches)
    merged = MomentAccumulator()
    for batch in batches:
        merged.merge(accumulate(batch))
    for other in (accumulate(*batches), merged):
        assert other.count == whole.count
        torch.testing.assert_close(other.mean, whole.mean, rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(other.covariance(), whole.covariance(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_upcast_before_anything_else(dtype: torch.dtype) -> None:
    rows = (torch.randn(200, 6, generator=torch.manual_seed(2)) * 3 + 50).to(dtype)
    found, exact = accumulate(rows), accumulate(rows.to(torch.float64))
    assert torch.equal(found.covariance(), exact.covariance())


def test_merging_leaves_the_other_alone() -> None:
    first, second = accumulate(torch.ones(3, 2)), accumulate(torch.zeros(1, 2))
    empty = MomentAccumulator()
    empty.merge(second)
    empty.update(torch.ones(3, 2))
    first.merge(second)
    first.merge(MomentAccumulator())
    assert (second.count, second.mean.tolist()) == (1, [0.0, 0.0])
    assert first.mean.tolist() == empty.mean.tolist() == [0.75, 0.75]


def test_what_cannot_be_accumulated_is_refused() -> None:
    with pytest.raises(ValueError, match="no features"):
        MomentAccumulator().covariance()
    with pytest.raises(ValueError, match=r"\(n, d\), got \(3,\)"):
        MomentAccumulator().update(torch.ones(3))
    with pytest.raises(ValueError, match="width 3 after features of width 2"):
        accumulate(torch.ones(4, 2), torch.ones(4, 3))
