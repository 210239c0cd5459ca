"""Influences and standard errors against reweighting and the bootstrap."""

import numpy as np
import pytest
import torch

from tests import references
from tests.references import Array
from workers.kernels.influence import influences, standard_error
from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import AlphaFit, Spectrum, fit_alpha_req, spectrum

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def draw(count: int, width: int, exponent: float, freedom: int | None, seed: int) -> Array:
    """Rows with a power-law spectrum, Gaussian or (freedom given) Student-t in each direction."""
    generator = np.random.default_rng(seed)
    shape = (count, width)
    rows = (
        generator.standard_normal(shape)
        if freedom is None
        else generator.standard_t(freedom, shape)
    )
    rotation = np.linalg.qr(generator.standard_normal((width, width)))[0]
    return rows * np.arange(1, width + 1) ** (-exponent / 2) @ rotation + 3


def fit(features: torch.Tensor) -> tuple[Spectrum, AlphaFit]:
    accumulator = MomentAccumulator()
    accumulator.update(features)
    found = spectrum(accumulator)
    return found, fit_alpha_req(found.eigenvalues, found.count)


def numbers(values: Array, count: int) -> tuple[float, float]:
    return references.rankme(values), references.alpha_req(values, count)[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("count", "width"), [(60, 8), (30, 40), (200, 24)])
def test_influences_are_the_derivative_by_a_sequences_weight(
    count: int, width: int, device: str
) -> None:
    rows = draw(count, width, 2.0, None, 5)
    features = torch.from_numpy(rows).to(device)
    found = [influence.cpu().numpy() for influence in influences(features, *fit(features))]
    step = 1e-4
    for x in range(0, count, 7):
        heavier, lighter = np.ones(count), np.ones(count)
        heavier[x] += step
        lighter[x] -= step
        above = numbers(np.maximum(references.weighted_eigenvalues(rows, heavier), 0), count)
        below = numbers(np.maximum(references.weighted_eigenvalues(rows, lighter), 0), count)
        for influence, high, low in zip(found, above, below, strict=True):
            slope = (high - low) / (2 * step)
            assert influence[x] == pytest.approx(slope, abs=1e-5 * np.abs(influence).max())


def test_influences_sum_to_zero_and_ignore_scale_and_precision_of_storage() -> None:
    features = torch.from_numpy(draw(5000, 12, 1.0, 8, 6)).float()
    found = influences(features, *fit(features))
    scaled = influences(features * 64, *fit(features * 64))
    for influence, same in zip(found, scaled, strict=True):
        assert influence.shape == (5000,)
        assert abs(float(influence.sum())) < 1e-9 * float(influence.abs().sum())
        torch.testing.assert_close(influence, same, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("freedom", [None, 6, 8], ids=["gauss", "t6", "t8"])
@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize(("count", "width"), [(480, 24), (640, 64), (1500, 64), (1500, 128)])
def test_standard_errors_match_the_bootstrap(
    count: int, width: int, exponent: float, freedom: int | None
) -> None:
    rows = draw(count, width, exponent, freedom, 1)
    features = torch.from_numpy(rows)
    errors = [standard_error(influence) for influence in influences(features, *fit(features))]
    bootstrap = references.bootstrap_errors(rows, lambda values: numbers(values, count), 200, 5)
    assert errors == pytest.approx(bootstrap, rel=0.2)


@pytest.mark.parametrize("freedom", [None, 6], ids=["gauss", "t6"])
def test_flat_spectra_only_widen_the_error_of_alpha(freedom: int | None) -> None:
    # Sampling noise above the gaps between eigenvalues: they repel, which first order cannot see.
    rows = draw(640, 64, 0.5, freedom, 1)
    features = torch.from_numpy(rows)
    found = [standard_error(influence) for influence in influences(features, *fit(features))]
    bootstrap = references.bootstrap_errors(rows, lambda values: numbers(values, 640), 200, 5)
    assert found[0] == pytest.approx(bootstrap[0], rel=0.2)
    assert 0.9 * bootstrap[1] < found[1] < 1.5 * bootstrap[1]


def test_null_directions_and_unusable_fits() -> None:
    rows = np.repeat(draw(50, 2, 1.0, None, 7), 2, axis=1)
    found = influences(torch.from_numpy(rows), *fit(torch.from_numpy(rows)))
    assert bool(torch.isfinite(found[0]).all())
    assert bool(torch.isnan(found[1]).all())
    assert standard_error(torch.tensor([3.0, 4.0])) == 5.0


def test_foreign_features_are_refused() -> None:
    features = torch.from_numpy(draw(20, 4, 1.0, None, 8))
    with pytest.raises(ValueError, match="do not belong to a spectrum of 20 rows of width 4"):
        influences(features[:-1], *fit(features))
    constant = torch.ones(5, 4)
    with pytest.raises(ValueError, match="without variance"):
        influences(constant, *fit(constant))
