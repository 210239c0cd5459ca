"""Columns of the tables that hold spectra: what is drawn from moments, and from features.

Invariant: a spectrum becomes numbers only after it was seen to have a variance beyond rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from jobs.errors import DataError
from workers.kernels.influence import influences, standard_error
from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import (
    Spectrum,
    eigenvalues_of,
    fit_alpha_req,
    participation_ratio,
    rankme,
    rankme_singular,
    spectrum,
    stable_rank,
    top_share,
)

LAST_LAYER = -1
"""The column `layer` of the hidden state after the final norm."""


@dataclass(frozen=True, eq=False)
class FoundSpectrum:
    """What lies behind the columns of features that were kept.

    Attributes:
        spectrum: Their spectrum.
        on_rankme: Influence of each sequence on rankme, (M,) float64.
        on_alpha_req: Influence of each sequence on alpha_req, (M,) float64; NaN where it is.
    """

    spectrum: Spectrum
    on_rankme: torch.Tensor
    on_alpha_req: torch.Tensor


def feature_columns(features: torch.Tensor, layer: int) -> tuple[dict[str, Any], FoundSpectrum]:
    """Returns the columns of features that were kept, standard errors among them.

    Args:
        features: One row per sequence, (M, d).
        layer: Which layer's they are, for messages.

    Raises:
        DataError: They don't vary, or are not finite.
    """
    found = checked_spectrum(layer, moments_of(features))
    fit = fit_alpha_req(found.eigenvalues, found.count)
    on_rankme, on_alpha_req = influences(features, found, fit)
    columns = spectral_columns(found) | {
        "rankme_se": standard_error(on_rankme),
        "alpha_req_se": number_or_none(standard_error(on_alpha_req)),
        "se_reliable": len(features) >= 10 * features.shape[1],
    }
    return columns, FoundSpectrum(found, on_rankme, on_alpha_req)


def spectral_columns(found: Spectrum) -> dict[str, Any]:
    """Returns the columns that a spectrum alone gives."""
    eigenvalues = found.eigenvalues
    fit = fit_alpha_req(eigenvalues, found.count)
    return {
        "d": len(eigenvalues),
        "rankme": rankme(eigenvalues),
        "rankme_sv": rankme_singular(found.singular_values),
        "alpha_req": number_or_none(fit.value),
        "alpha_r2": number_or_none(fit.r2),
        "alpha_first_rank": fit.first_rank,
        "alpha_last_rank": fit.last_rank,
        "participation_ratio": participation_ratio(eigenvalues),
        "stable_rank": stable_rank(eigenvalues),
        "top1_share": top_share(eigenvalues, 1),
        "top10_share": top_share(eigenvalues, 10),
        "spectrum": eigenvalues.cpu().numpy(),
        "singular_values": found.singular_values.cpu().numpy(),
    }


def checked_spectrum(layer: int, moments: MomentAccumulator) -> Spectrum:
    """Returns the spectrum, having seen that there is a variance to speak of.

    Raises:
        DataError: There is none, or the features are not finite.
    """
    _check_finite(layer, moments)
    found = spectrum(moments)
    _check_varied(layer, moments, found.eigenvalues)
    return found


def checked_eigenvalues(layer: int, moments: MomentAccumulator) -> torch.Tensor:
    """Returns the eigenvalues alone, having seen that there is a variance to speak of.

    Raises:
        DataError: There is none, or the features are not finite.
    """
    _check_finite(layer, moments)
    found = eigenvalues_of(moments)
    _check_varied(layer, moments, found)
    return found


def moments_of(features: torch.Tensor) -> MomentAccumulator:
    """Returns the moments of features, (M, d)."""
    moments = MomentAccumulator()
    moments.update(features)
    return moments


def number_or_none(value: float) -> float | None:
    """Returns the value, or None where it isn't defined, which Arrow stores as null."""
    return None if math.isnan(value) else value


def _check_finite(layer: int, moments: MomentAccumulator) -> None:
    if not bool(torch.isfinite(moments.scatter).all()):
        raise DataError(
            f"the features of layer {layer} are not finite",
            'try forward.dtype = "float32"; else the run diverged',
        )


def _check_varied(layer: int, moments: MomentAccumulator, eigenvalues: torch.Tensor) -> None:
    """Raises DataError where all variance is that of the float32 rounding of equal features."""
    rounding = 8 * torch.finfo(torch.float32).eps * float(moments.mean.abs().max())
    if float(eigenvalues[0]) <= rounding**2:
        raise DataError(
            f"the features of layer {layer} are the same for every sequence",
            "measure on longer or other sequences; layer 0 alone: they end with the same token, "
            'so use geometry.layers = "last"; the last layer: the checkpoint is degenerate',
        )
