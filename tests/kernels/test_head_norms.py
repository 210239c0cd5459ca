"""Changed norms, rates and groups against loops over rows in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.head import row_norms
from workers.kernels.head_norms import (
    Intervention,
    RateMethod,
    intervened,
    norm_groups,
    token_rates,
)

PRECISE = settings(max_examples=40, derandomize=True, deadline=None)
ROUNDING = {torch.float64: 1e-14, torch.float32: 3e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}
dtypes = st.sampled_from(list(ROUNDING))
tokens, widths, seeds = st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**53 - 1)
quantiles = st.floats(0, 0.5)
changes = st.sampled_from(["equalize", "shuffle", "clip"])
RATES: tuple[RateMethod, ...] = ("norm_lr", "inverse_norm_lr")


def random_head(
    count: int, width: int, seed: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Norms over a decade, no entry near zero."""
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1, 1], (count, width))
    rows = signs * generator.uniform(0.5, 1.5, (count, width))
    return torch.from_numpy(rows * 10 ** generator.uniform(-0.5, 0.5, (count, 1))).to(dtype)


def slow_norms(head: torch.Tensor) -> list[float]:
    return [math.sqrt(math.fsum(x * x for x in row)) for row in head.double().tolist()]


def slow_targets(head: torch.Tensor, change: str, q: float) -> list[float]:
    """What norms should become; sorted for a shuffle."""
    norms = slow_norms(head)
    if change == "equalize":
        return [math.fsum(norms) / len(norms)] * len(norms)
    if change == "shuffle":
        return sorted(norms)
    ranked = sorted(norms)

    def quantile(level: float) -> float:
        place = level * (len(ranked) - 1)
        below = min(int(place), len(ranked) - 1)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (place - below) * (ranked[above] - ranked[below])

    low, high = quantile(q), quantile(1 - q)
    return [min(max(norm, low), high) for norm in norms]


@PRECISE
@given(tokens, widths, seeds, dtypes, changes, quantiles)
def test_norms_are_those_of_the_definition_and_directions_stay(
    count: int, width: int, seed: int, dtype: torch.dtype, change: Intervention, q: float
) -> None:
    head = random_head(count, width, seed, dtype)
    before = head.clone()
    changed = intervened(head, change, q, seed)
    assert torch.equal(head, before)
    assert (changed.dtype, changed.shape) == (dtype, head.shape)
    norms = slow_norms(changed)
    found = sorted(norms) if change == "shuffle" else norms
    np.testing.assert_allclose(found, slow_targets(head, change, q), rtol=ROUNDING[dtype])
    for row, old, norm in zip(changed.double(), head.double(), norms, strict=True):
        np.testing.assert_allclose(row / norm, old / old.norm(), rtol=0, atol=ROUNDING[dtype])


@PRECISE
@given(tokens, widths, seeds, dtypes)
def test_the_ends_of_clipping(count: int, width: int, seed: int, dtype: torch.dtype) -> None:
    head = random_head(count, width, seed, dtype)
    assert torch.equal(intervened(head, "clip", 0, seed), head)
    assert torch.equal(intervened(head, "none", None, seed), head)
    median = float(np.median(slow_norms(head)))
    found = slow_norms(intervened(head, "clip", 0.5, seed))
    np.testing.assert_allclose(found, [median] * count, rtol=ROUNDING[dtype])


@PRECISE
@given(tokens, widths, seeds, dtypes, quantiles)
def test_rows_inside_the_quantiles_keep_their_bits(
    count: int, width: int, seed: int, dtype: torch.dtype, q: float
) -> None:
    head = random_head(count, width, seed, dtype)
    norms = row_norms(head).numpy()
    low, high = np.quantile(norms, (q, 1 - q))
    inside = torch.from_numpy((norms >= low) & (norms <= high))
    assert torch.equal(intervened(head, "clip", q, seed)[inside], head[inside])


def test_shuffling_is_seeded() -> None:
    head = random_head(30, 5, 1)
    shuffled = intervened(head, "shuffle", None, 3)
    assert torch.equal(shuffled, intervened(head, "shuffle", None, 3))
    assert not torch.equal(shuffled, intervened(head, "shuffle", None, 4))
    assert not torch.equal(shuffled, head)
    # The same permutation everywhere: this one is fixed for good.
    rows = torch.arange(1.0, 9.0)[:, None]
    assert intervened(rows, "shuffle", None, 0).flatten().tolist() == [4, 3, 2, 7, 1, 8, 5, 6]


def test_a_large_head_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(50, 4, 2)
    whole = intervened(head, "equalize", None, 0)
    monkeypatch.setattr("workers.kernels.head_norms._BLOCK_ROWS", 7)
    assert torch.equal(intervened(head, "equalize", None, 0), whole)


@PRECISE
@given(tokens, seeds)
def test_rates_are_in_proportion_and_of_mean_one(count: int, seed: int) -> None:
    norms = row_norms(random_head(count, 3, seed))
    for method, rates in ((method, token_rates(norms, method)) for method in RATES):
        assert rates.dtype == torch.float64
        wanted = [n if method == "norm_lr" else 1 / n for n in norms.tolist()]
        mean = math.fsum(wanted) / count
        np.testing.assert_allclose(rates, [w / mean for w in wanted], rtol=1e-13)
        assert float(rates.mean()) == pytest.approx(1, abs=1e-14)


@PRECISE
@given(tokens, st.floats(1e-30, 1e30))
def test_equal_norms_have_rates_of_exactly_one(count: int, norm: float) -> None:
    for method in RATES:
        rates = token_rates(torch.full((count,), norm, dtype=torch.float64), method)
        assert torch.equal(rates, torch.ones(count, dtype=torch.float64))


@PRECISE
@given(tokens, seeds, st.data())
def test_groups_are_norm_quantiles(count: int, seed: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, count))
    # Few different norms, so that there are ties.
    norms = torch.from_numpy(np.random.default_rng(seed).integers(1, 6, count).astype(float))
    found = norm_groups(norms, groups)
    assert found.dtype == torch.int64
    sizes = torch.bincount(found, minlength=groups)
    assert len(sizes) == groups
    assert int(sizes.max() - sizes.min()) <= 1
    ranked = sorted(range(count), key=lambda token: (float(norms[token]), token))
    assert [int(found[token]) for token in ranked] == sorted(found.tolist())


def test_what_does_not_fit_is_refused() -> None:
    head = random_head(6, 3, 0)
    for q in (-0.1, 0.6, None, math.nan):
        with pytest.raises(ValueError, match=f"between 0 and 0.5, got {q}"):
            intervened(head, "clip", q, 0)
    with pytest.raises(ValueError, match="unknown intervention 'square'"):
        intervened(head, "square", None, 0)  # type: ignore[arg-type]
    head[[1, 4]] = 0
    for change in ("equalize", "shuffle", "clip"):
        with pytest.raises(ValueError, match="zero or not finite: token ids 1, 4"):
            intervened(head, change, 0.1, 0)
    assert intervened(head, "none", None, 0) is head
    for method in RATES:
        with pytest.raises(ValueError, match="token ids 1, 4"):
            token_rates(row_norms(head), method)
    with pytest.raises(ValueError, match=r"token ids 0, 1, .*, 19 and 5 more"):
        token_rates(torch.zeros(25), "norm_lr")
    for groups in (0, 7):
        with pytest.raises(ValueError, match=f"between 1 and 6, the tokens, got {groups}"):
            norm_groups(torch.ones(6), groups)
