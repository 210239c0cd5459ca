"""How far one sequence moves a number drawn from the spectrum, and the standard errors from that.

Invariant: influences are first-order and sum to zero over the sequences; those of two checkpoints
that read the same sequences may be subtracted, row by row, before a standard error is taken.
"""

import torch
from torch import Tensor

from workers.kernels.spectrum import AlphaFit, Spectrum

_BLOCK_ROWS = 1024


def influences(features: Tensor, spectrum: Spectrum, alpha_fit: AlphaFit) -> tuple[Tensor, Tensor]:
    """Infinitesimal-jackknife influences (Jaeckel 1972; Efron 1982) on rankme and alpha_req.

    Giving sequence x the weight (1 + ε)/M moves, to first order, λᵢ by ε·((vᵢᵀ(x−μ))² − λᵢ)/M, and
    a function g of the spectrum by ε·U_x with U_x = Σᵢ ∂g/∂λᵢ · ((vᵢᵀ(x−μ))² − λᵢ)/M. The gradients
    are −rankme·(ln pᵢ + H)/Σλ, with p = λ/Σλ and H its entropy, and cᵢ/λᵢ, with cᵢ the fit's
    coefficients. Both functions ignore the scale of λ, so the term −λᵢ sums to zero and is left
    out. Eigenvalues that are exactly zero have no rows behind them and are left out too.

    Args:
        features: F, shape (M, d), the very rows behind `spectrum`; any floating type and device.
        spectrum: Spectrum of F.
        alpha_fit: Fit to that spectrum.

    Returns:
        Influences on rankme and on alpha_req, each of shape (M,), float64, on the spectrum's
        device. Those on alpha_req are NaN where the fit is.

    Raises:
        ValueError: The features are not those of the spectrum by shape, or have no variance.
    """
    eigenvalues = spectrum.eigenvalues
    if features.shape != (spectrum.count, eigenvalues.numel()):
        raise ValueError(
            f"features of shape {tuple(features.shape)} do not belong to a spectrum of "
            f"{spectrum.count} rows of width {eigenvalues.numel()}"
        )
    total = eigenvalues.sum()
    if not float(total) > 0:
        raise ValueError("features without variance have no influences")
    shares = eigenvalues / total
    entropy = torch.special.entr(shares).sum()
    gradients = eigenvalues.new_zeros(eigenvalues.numel(), 2)
    logarithms = torch.where(shares > 0, shares, 1.0).log()
    rankme_gradient = -entropy.exp() * (logarithms + entropy) / total
    gradients[:, 0] = torch.where(shares > 0, rankme_gradient, 0.0)
    fitted = slice(alpha_fit.first_rank - 1, alpha_fit.first_rank - 1 + len(alpha_fit.coefficients))
    gradients[fitted, 1] = alpha_fit.coefficients / eigenvalues[fitted]
    if len(alpha_fit.coefficients) == 0:
        gradients[:, 1] = float("nan")
    moved = [
        (_upcast(block, spectrum.mean) @ spectrum.eigenvectors).square_() @ gradients
        for block in features.split(_BLOCK_ROWS)
    ]
    on_rankme, on_alpha = (torch.cat(moved) / spectrum.count).unbind(dim=1)
    return on_rankme, on_alpha


def standard_error(influences: Tensor) -> float:
    """Standard error from influences: √ΣU², as the influences are divided by M already.

    Within 20 % of the bootstrap for M ≥ 10 d, with one exception on the safe side: where the
    eigenvalues decay more slowly than about 1/rank, sampling noise exceeds their gaps, sample
    eigenvalues repel each other, and the error of alpha_req comes out up to 1.5 times too wide.
    For the difference of two checkpoints over the same sequences, pass the difference of their
    influences.

    Args:
        influences: Shape (M,), in units of the number they belong to.

    Returns:
        The standard error, in the same units.
    """
    return float(torch.linalg.vector_norm(influences.to(torch.float64)))


def _upcast(block: Tensor, mean: Tensor) -> Tensor:
    return block.detach().to(device=mean.device, dtype=torch.float64) - mean
