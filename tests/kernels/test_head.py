"""Head statistics against slow references, and their invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from workers.kernels.head import (
    QUANTILE_LEVELS,
    _mean_of_some,
    correlate_with_counts,
    correlate_with_token_ids,
    norm_cv_invariant,
    norm_statistics,
    overlap_statistics,
    row_norms,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PRECISE = settings(max_examples=30, derandomize=True, deadline=None)


def make_head(tokens: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return rows * (0.5 + torch.rand(tokens, 1, generator=generator, dtype=torch.float64)) + 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (7, 40), (64, 64), (300, 17), (1000, 160)])
def test_norms_and_overlaps_match_their_references(
    shape: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    tokens, width = shape
    head = make_head(tokens, width, 0).to(device=device, dtype=dtype)
    same = head.double().cpu().numpy()
    lengths, cosines = references.norms(same), references.cosines(same)
    norms = row_norms(head)
    np.testing.assert_allclose(norms.cpu(), lengths, rtol=1e-12)
    found = norm_statistics(norms)
    assert found.mean == pytest.approx(np.mean(lengths), rel=1e-12)
    assert found.std == pytest.approx(np.std(lengths), rel=1e-10)
    assert found.cv == pytest.approx(np.std(lengths) / np.mean(lengths), rel=1e-10)
    assert (found.min, found.max) == pytest.approx((lengths.min(), lengths.max()), rel=1e-12)
    assert found.range == pytest.approx(lengths.max() / lengths.min(), rel=1e-12)
    expected = [np.percentile(lengths, 100 * level) for level in QUANTILE_LEVELS]
    assert found.quantiles == pytest.approx(expected, rel=1e-12)
    overlaps = overlap_statistics(head, block_rows=128)
    assert overlaps.mean == pytest.approx(cosines.mean(), rel=1e-5)
    assert overlaps.std == pytest.approx(cosines.std(), rel=1e-5, abs=1e-7)
    assert overlaps.rms == pytest.approx(math.sqrt(np.mean(cosines**2)), rel=1e-6)
    unit = same / lengths[:, None]
    closed = ((unit.T @ unit) ** 2).sum() - tokens
    assert overlaps.rms == pytest.approx(math.sqrt(closed / (tokens * (tokens - 1))), rel=1e-6)
    assert overlaps.mean_scaled == pytest.approx(overlaps.mean * width**0.5)
    assert overlaps.std_scaled == pytest.approx(overlaps.std * width**0.5)


@PRECISE
@given(block_rows=st.integers(1, 150), seed=st.integers(0, 99))
def test_the_block_size_changes_nothing(block_rows: int, seed: int) -> None:
    head = make_head(131, 20, seed)
    whole, blocked = overlap_statistics(head), overlap_statistics(head, block_rows=block_rows)
    assert blocked.mean == pytest.approx(whole.mean, rel=1e-6)
    assert blocked.std == pytest.approx(whole.std, rel=1e-6)
    assert blocked.rms == pytest.approx(whole.rms, rel=1e-6)


@PRECISE
@given(seed=st.integers(0, 999), tokens=st.integers(3, 80), width=st.integers(2, 40))
def test_bounds_hold_and_lengths_do_not_matter(seed: int, tokens: int, width: int) -> None:
    head = make_head(tokens, width, seed)
    found = overlap_statistics(head)
    assert 0 <= found.mean <= found.rms * (1 + 1e-6) <= 1 + 2e-6
    assert found.rms >= found.welch_bound * (1 - 1e-6)
    assert (found.etf_tightness is None) == (tokens <= width)
    lengths = np.random.default_rng(seed).uniform(1e-3, 1e3, (tokens, 1))
    stretched = overlap_statistics(head * torch.from_numpy(lengths))
    assert stretched.mean == pytest.approx(found.mean, rel=1e-5, abs=1e-7)


def test_orthonormal_rows_do_not_overlap() -> None:
    found = overlap_statistics(3 * torch.eye(6, 9))
    assert (found.mean, found.std, found.rms, found.welch_bound) == (0, 0, 0, 0)
    assert found.etf_tightness is None
    assert found.equiangularity is None
    turned = torch.linalg.qr(make_head(30, 30, 1))[0]
    assert overlap_statistics(turned).mean == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("width", [2, 9, 40])
def test_a_simplex_has_equal_angles_at_the_welch_bound(width: int) -> None:
    centred = np.eye(width + 1) - 1 / (width + 1)
    basis = np.linalg.svd(centred)[2][:width]
    found = overlap_statistics(torch.from_numpy(centred @ basis.T))
    assert found.mean == pytest.approx(1 / width, rel=1e-6)
    assert found.welch_bound == pytest.approx(1 / width, rel=1e-12)
    assert found.etf_tightness == pytest.approx(0, abs=1e-6)
    assert found.std == pytest.approx(0, abs=1e-6)
    assert found.equiangularity == pytest.approx(0, abs=1e-5)


def test_overlaps_are_summed_about_a_typical_one_though_the_first_rows_be_equal() -> None:
    head = make_head(2000, 64, 5)
    head[:100] = head[0]
    pilot = _mean_of_some(head, row_norms(head))
    assert pilot == pytest.approx(references.cosines(head.numpy()).mean(), rel=0.2)


def test_random_directions_meet_the_random_baseline() -> None:
    head = torch.randn(1500, 256, generator=torch.Generator().manual_seed(3))
    found = overlap_statistics(head)
    assert found.random == pytest.approx(math.sqrt(2 / (math.pi * 256)), rel=1e-12)
    assert found.mean == pytest.approx(found.random, rel=5e-3)


@PRECISE
@given(seed=st.integers(0, 999), tokens=st.integers(4, 60), width=st.integers(3, 24))
def test_invariant_norm_cv_knows_no_gauge(seed: int, tokens: int, width: int) -> None:
    head, generator = make_head(tokens, width, seed), np.random.default_rng(seed)
    gain, trade = torch.from_numpy(generator.uniform(0.2, 5, (2, width)))
    shift = torch.from_numpy(generator.standard_normal(width))
    value = norm_cv_invariant(head, gain)
    folded = (head * gain).numpy()
    lengths = references.norms(folded - folded.mean(axis=0))
    assert value == pytest.approx(lengths.std() / lengths.mean(), rel=1e-9)
    assert norm_cv_invariant(head + shift, gain) == pytest.approx(value, rel=1e-8)
    assert norm_cv_invariant(head / trade, gain * trade) == pytest.approx(value, rel=1e-9)
    raw = norm_statistics(row_norms(head)).cv
    for moved in (head + shift, head / trade):
        assert abs(norm_statistics(row_norms(moved)).cv / raw - 1) > 1e-6


def test_faulty_rows_are_named() -> None:
    head = make_head(50, 4, 4)
    head[[3, 41]] = 0
    for measure in (overlap_statistics, lambda rows: norm_statistics(row_norms(rows))):
        with pytest.raises(ValueError, match=r"are zero: token ids 3, 41$"):
            measure(head)
    head[:30] = float("nan")
    with pytest.raises(ValueError, match=r"not finite: token ids 0, 1, .* 19 and 10 more$"):
        row_norms(head)


def test_heads_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        overlap_statistics(torch.ones(1, 4))
    with pytest.raises(ValueError, match="block_rows"):
        overlap_statistics(torch.ones(3, 4), block_rows=0)
    with pytest.raises(ValueError, match=r"\(V, d\), got \(4,\)"):
        row_norms(torch.ones(4))
    with pytest.raises(ValueError, match="does not fit"):
        norm_cv_invariant(torch.ones(3, 4), torch.ones(3))
    with pytest.raises(ValueError, match="mean norm 0"):
        norm_cv_invariant(torch.ones(3, 4), torch.ones(4))


def test_norms_are_correlated_with_ids_and_counts() -> None:
    counts = np.array([0, 1, 7, 63, 1000])
    norms = torch.from_numpy(2 - 0.1 * np.log1p(counts))
    found = correlate_with_counts(norms, counts)
    assert (found.pearson, found.spearman) == pytest.approx((-1, -1), abs=1e-12)
    ids = [0, 1, 2, 4, 9]
    by_id = correlate_with_token_ids(norms, ids)
    assert by_id.pearson == pytest.approx(np.corrcoef(norms, ids)[0, 1], rel=1e-12)
    assert by_id.spearman == pytest.approx(-1, abs=1e-12)
