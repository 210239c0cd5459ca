"""Projections of states, and logits of projected states, against matrices written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.moments import MomentAccumulator
from workers.kernels.projection import (
    MODES,
    AblatedLogits,
    Mode,
    ablated,
    projector,
    variance_share,
)
from workers.kernels.spectrum import Spectrum, spectrum

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
PRECISE = settings(max_examples=30, derandomize=True, deadline=None)
seeds, counts, widths = st.integers(0, 999), st.integers(2, 60), st.integers(1, 24)
shares = st.floats(0, 1)


def found_spectrum(count: int, width: int, seed: int, device: str = "cpu") -> Spectrum:
    """Of features with a mean far from zero and eigenvalues that differ."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, width)) * np.arange(1, width + 1) ** -0.7
    accumulator = MomentAccumulator()
    accumulator.update(torch.from_numpy(rows + 3).to(device))
    return spectrum(accumulator)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@PRECISE
@given(counts, widths, shares, seeds)
def test_it_is_a_projection(count: int, width: int, share: float, seed: int) -> None:
    found = found_spectrum(count, width, seed)
    rank = round(share * width)
    p, whole = projector(found, rank), torch.eye(width, dtype=torch.float64)
    torch.testing.assert_close(p @ p, p, rtol=0, atol=1e-12)
    torch.testing.assert_close(p, p.T, rtol=0, atol=1e-14)
    assert float(p.trace()) == pytest.approx(rank, abs=1e-10)
    torch.testing.assert_close(p @ (whole - p), torch.zeros_like(p), rtol=0, atol=1e-12)
    states = normal(seed, 5, width)
    # What P and I − P give is the whole; the mean is in both.
    for keep_mean, extra in ((True, found.mean), (False, -found.mean)):
        parts = [ablated(states, found, rank, mode, keep_mean=keep_mean) for mode in MODES]
        torch.testing.assert_close(sum(parts), states + extra, rtol=0, atol=1e-11)


@PRECISE
@given(counts, widths, shares, seeds)
def test_states_are_those_of_the_definition(
    count: int, width: int, share: float, seed: int
) -> None:
    found, states = found_spectrum(count, width, seed), normal(seed, 7, width)
    rank = round(share * width)
    mean = found.mean.numpy()
    vectors = found.eigenvectors.numpy()[:, :rank]
    p = sum((np.outer(v, v) for v in vectors.T), np.zeros((width, width)))
    for mode in MODES:
        matrix = p if mode == "retained" else np.eye(width) - p
        dropped = np.stack([matrix @ (state - mean) for state in states.numpy()])
        for keep_mean in (True, False):
            ours = ablated(states, found, rank, mode, keep_mean=keep_mean)
            expected = dropped + mean if keep_mean else dropped
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)


def test_nothing_and_everything() -> None:
    found, states = found_spectrum(50, 6, 0), normal(1, 9, 6)
    cases: tuple[tuple[Mode, int, int], ...] = (("removed", 0, 6), ("retained", 6, 0))
    for mode, nothing, everything in cases:
        same = ablated(states, found, nothing, mode, keep_mean=True)
        torch.testing.assert_close(same, states, rtol=0, atol=1e-12)
        mean = ablated(states, found, everything, mode, keep_mean=True)
        torch.testing.assert_close(mean, found.mean.expand(9, 6), rtol=0, atol=1e-12)


def test_the_leading_directions_hold_most_variance() -> None:
    features = normal(2, 400, 5) * torch.tensor([5.0, 1, 3, 0.5, 2]) - 7
    accumulator = MomentAccumulator()
    accumulator.update(features)
    found = spectrum(accumulator)
    total = float(features.var(dim=0, correction=0).sum())
    for rank in range(6):
        kept = ablated(features, found, rank, "retained", keep_mean=False)
        share = float(kept.var(dim=0, correction=0).sum()) / total
        assert variance_share(found, rank) == pytest.approx(share, abs=1e-12)
    assert variance_share(found, 0) == 0
    assert variance_share(found, 5) == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_mean", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_logits_are_those_of_the_projected_states(
    device: str, keep_mean: bool, biased: bool
) -> None:
    width, tokens, ranks = 16, 40, (7, 0, 16, 1, 7)
    found = found_spectrum(90, width, 3, device)
    states = (normal(4, 11, width) + 3).to(device)
    weight = normal(5, tokens, width).to(device)
    bias = normal(6, tokens).to(device) if biased else None
    head = AblatedLogits(found, weight, bias, ranks, keep_mean=keep_mean)
    whole = torch.nn.functional.linear(states, weight, bias).float()
    before = whole.clone()
    seen = []
    for rank, mode, logits in head.variants(states, whole):
        seen.append((rank, mode))
        projected = ablated(states, found, rank, mode, keep_mean=keep_mean)
        expected = torch.nn.functional.linear(projected, weight, bias)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), expected, rtol=0, atol=2e-5)
    assert seen == [(rank, mode) for rank in (0, 1, 7, 16) for mode in ("removed", "retained")]
    assert torch.equal(whole, before)


def test_a_large_head_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found, states, weight = found_spectrum(30, 8, 1), normal(2, 4, 8), normal(3, 50, 8)

    def logits() -> list[torch.Tensor]:
        head = AblatedLogits(found, weight, None, (3,), keep_mean=True)
        return [given for *_, given in head.variants(states, (states @ weight.T).float())]

    whole = logits()
    monkeypatch.setattr("workers.kernels.projection._BLOCK_ROWS", 7)
    for ours, theirs in zip(logits(), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_without_ranks_there_are_no_variants() -> None:
    head = AblatedLogits(found_spectrum(30, 8, 1), normal(3, 50, 8), None, (), keep_mean=True)
    assert list(head.variants(normal(2, 4, 8), torch.zeros(4, 50))) == []


def test_what_does_not_fit_is_refused() -> None:
    found = found_spectrum(30, 8, 1)
    for rank in (-1, 9):
        with pytest.raises(ValueError, match=f"rank must be between 0 and 8, got {rank}"):
            projector(found, rank)
        with pytest.raises(ValueError, match=f"got {rank}"):
            AblatedLogits(found, normal(0, 5, 8), None, (1, rank), keep_mean=True)
    with pytest.raises(ValueError, match=r"states of shape \(4, 7\)"):
        ablated(normal(0, 4, 7), found, 1, "removed", keep_mean=True)
    with pytest.raises(ValueError, match=r"head of shape \(5, 7\)"):
        AblatedLogits(found, normal(0, 5, 7), None, (1,), keep_mean=True)
