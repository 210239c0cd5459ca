"""Spectra and ranks against slow references, and their invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from tests.references import Array
from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import (
    Spectrum,
    alpha_rank_range,
    eigenvalues_of,
    fit_alpha_req,
    numerical_null,
    participation_ratio,
    rankme,
    rankme_singular,
    spectrum,
    stable_rank,
    top_share,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SHAPES = [(5, 3), (700, 3), (40, 160), (64, 64), (300, 160), (500, 48), (260, 210)]
PRECISE = settings(max_examples=30, derandomize=True, deadline=None)
seeds, counts, widths = st.integers(0, 999), st.integers(4, 120), st.integers(3, 48)


def power_law(count: int, width: int, seed: int, exponent: float = 1.0) -> Array:
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.standard_normal((width, width)))[0]
    scales = np.arange(1, width + 1) ** (-exponent / 2)
    return generator.standard_normal((count, width)) * scales @ rotation


def layer_norm(count: int, width: int, seed: int) -> Array:
    rows = power_law(count, width, seed) + np.linspace(-1, 1, width)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / rows.std(axis=1, keepdims=True)


def low_rank(count: int, width: int, seed: int) -> Array:
    # Small integers, so that no precision in use rounds the rank away.
    generator = np.random.default_rng(seed)
    rank = max(1, min(count, width) // 3)
    left = generator.integers(-3, 4, (count, rank))
    right = np.eye(rank, width, dtype=int) * 5
    right[:, rank:] = generator.integers(-1, 2, (rank, width - rank))
    return (left @ right).astype(np.float64)


def decompose(features: torch.Tensor) -> Spectrum:
    accumulator = MomentAccumulator()
    for batch in features.split(37):
        accumulator.update(batch)
    return spectrum(accumulator)


def values_of(features: Array) -> torch.Tensor:
    return decompose(torch.from_numpy(features)).eigenvalues


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["power_law", "layer_norm", "low_rank", "far_mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_matches_its_reference(
    shape: tuple[int, int], kind: str, dtype: torch.dtype, device: str
) -> None:
    count, width = shape
    if kind == "far_mean":
        # Low precision cannot hold a spread far below the mean: there the mean is only ten times.
        mean = 1e4 if dtype == torch.float32 else 10.0
        rows = power_law(count, width, 3) + mean
    else:
        rows = {"power_law": power_law, "layer_norm": layer_norm, "low_rank": low_rank}[kind](
            count, width, 3
        )
    features = torch.from_numpy(rows).to(device=device, dtype=dtype)
    same = features.double().cpu().numpy()
    found, exact = decompose(features), references.eigenvalues(same)
    values = found.eigenvalues
    np.testing.assert_allclose(values.cpu(), exact, rtol=1e-6, atol=1e-13 * exact[0])
    assert rankme(values) == pytest.approx(references.rankme(exact), rel=1e-6)
    assert rankme_singular(found.singular_values) == pytest.approx(
        references.rankme_singular(same), rel=1e-6
    )
    assert participation_ratio(values) == pytest.approx(
        references.participation_ratio(same), rel=1e-6
    )
    assert stable_rank(values) == pytest.approx(exact.sum() / exact[0], rel=1e-6)
    assert top_share(values, 10) == pytest.approx(exact[:10].sum() / exact.sum(), rel=1e-6)
    rank = int(np.linalg.matrix_rank(same - same.mean(axis=0), rtol=1e-6))
    fit = fit_alpha_req(values, count)
    alpha, r2 = references.alpha_req(exact, count, rank)
    assert fit.value == pytest.approx(alpha, rel=1e-6, nan_ok=True)
    assert fit.r2 == pytest.approx(r2, rel=1e-6, nan_ok=True)


def test_eigenvectors_diagonalize_the_covariance() -> None:
    features = torch.from_numpy(power_law(200, 12, 4) + 2)
    found = decompose(features)
    projected = ((features - found.mean) @ found.eigenvectors).numpy()
    covariance = projected.T @ projected / 200
    np.testing.assert_allclose(covariance, np.diag(found.eigenvalues.numpy()), atol=1e-12)
    assert found.count == 200


@pytest.mark.parametrize(
    ("width", "count", "expected"),
    [
        (201, 5000, (12, 100)),
        (5000, 201, (12, 100)),
        (200, 5000, (13, 99)),
        (64, 1500, (4, 31)),
        (128, 1500, (8, 63)),
        (6, 100, (2, 2)),
        (3, 100, (2, 1)),
    ],
)
def test_rank_range_of_the_fit(width: int, count: int, expected: tuple[int, int]) -> None:
    assert alpha_rank_range(width, count) == expected


@pytest.mark.parametrize("width", [16, 64, 160, 300])
@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_power_law_has_its_own_exponent(width: int, exponent: float) -> None:
    values = 7 * torch.arange(1, width + 1, dtype=torch.float64) ** -exponent
    fit = fit_alpha_req(values, 10 * width)
    assert fit.value == pytest.approx(exponent, rel=1e-10)
    assert fit.r2 == pytest.approx(1, abs=1e-10)
    assert len(fit.coefficients) == fit.last_rank - fit.first_rank + 1
    bumped = values.clone()
    bumped[fit.first_rank - 1] *= math.exp(0.01)
    gain = fit_alpha_req(bumped, 10 * width).value - fit.value
    assert gain == pytest.approx(0.01 * float(fit.coefficients[0]), rel=1e-9)


def test_the_fit_stops_above_numerical_null() -> None:
    values = torch.arange(1, 65, dtype=torch.float64) ** -1.5
    values[20:] = values[0] * 1e-14
    assert float(values[20]) < numerical_null(values) < float(values[19])
    fit = fit_alpha_req(values, 1500)
    assert (fit.first_rank, fit.last_rank) == (4, 20)
    assert fit.value == pytest.approx(1.5, rel=1e-10)


def test_too_few_ranks_give_nan() -> None:
    for values in (torch.ones(3), torch.zeros(30), torch.tensor([1.0] + [0.0] * 29)):
        fit = fit_alpha_req(values, 500)
        assert math.isnan(fit.value)
        assert math.isnan(fit.r2)
        assert fit.coefficients.numel() == 0


@pytest.mark.parametrize("k", [1, 2, 17])
def test_k_equal_eigenvalues_have_rank_k(k: int) -> None:
    values = torch.zeros(40, dtype=torch.float64)
    values[:k] = 3.5
    for number in (rankme(values), participation_ratio(values), stable_rank(values)):
        assert number == pytest.approx(k, rel=1e-12)
    assert top_share(values, 1) == pytest.approx(1 / k, rel=1e-12)
    assert top_share(values, 99) == 1.0


@PRECISE
@given(seed=seeds, count=counts, width=widths, scale=st.floats(1e-3, 1e3))
def test_rotation_and_scale_change_nothing(seed: int, count: int, width: int, scale: float) -> None:
    rows = power_law(count, width, seed) + 1
    normal = np.random.default_rng(seed + 1).standard_normal((width, width))
    turned = scale * rows @ np.linalg.qr(normal)[0]
    before, after = values_of(rows), values_of(turned)
    assert rankme(after) == pytest.approx(rankme(before), rel=1e-9)
    assert participation_ratio(after) == pytest.approx(participation_ratio(before), rel=1e-9)
    first, second = fit_alpha_req(before, count), fit_alpha_req(after, count)
    assert second.value == pytest.approx(first.value, rel=1e-7, abs=1e-9, nan_ok=True)


@PRECISE
@given(seed=seeds, count=counts, width=widths, exponent=st.floats(0, 4))
def test_rankme_lies_between_one_and_the_rank(
    seed: int, count: int, width: int, exponent: float
) -> None:
    value = rankme(values_of(power_law(count, width, seed, exponent)))
    assert 1 - 1e-12 <= value <= min(width, count - 1) * (1 + 1e-12)


@pytest.mark.parametrize("number", [rankme, participation_ratio, stable_rank, rankme_singular])
def test_spectra_without_variance_are_refused(number) -> None:  # type: ignore[no-untyped-def]
    for values in (torch.zeros(4), torch.tensor([1.0, float("nan")]), torch.tensor([2.0, -1.0])):
        with pytest.raises(ValueError, match="non-negative with a positive finite sum"):
            number(values)


def test_eigenvalues_alone_are_those_of_the_spectrum() -> None:
    accumulator = MomentAccumulator()
    accumulator.update(torch.from_numpy(power_law(1500, 40, 3)))  # More rows than a piece has.
    found, alone = spectrum(accumulator).eigenvalues, eigenvalues_of(accumulator)
    torch.testing.assert_close(alone, found, rtol=1e-12, atol=1e-14)


def test_degenerate_features_are_refused() -> None:
    constant = decompose(torch.full((9, 3), 2.5))
    assert float(constant.eigenvalues.sum()) == 0
    assert rankme_singular(constant.singular_values) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="not finite"):
        decompose(torch.tensor([[1.0, 2.0], [float("inf"), 0.0]]))
    with pytest.raises(ValueError, match="no features"):
        spectrum(MomentAccumulator())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        top_share(torch.ones(3), 0)
