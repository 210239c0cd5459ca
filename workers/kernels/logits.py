"""The spectrum of a model's logits, which are never formed.

Invariant: memory grows with d² and not with the vocabulary.
"""

import torch
from torch import Tensor

from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import Spectrum

_BLOCK_ROWS = 8192


def logits_spectrum(found: Spectrum, head: Tensor) -> Tensor:
    """Eigenvalues of the covariance of the centred logits, functions of the model alone.

    Softmax ignores w → w + c for all rows of the head, so the mean row is removed; the covariance
    of the logits F·W_cᵀ, (V, V), then has the non-zero eigenvalues of Σ^½ W_cᵀW_c Σ^½, (d, d). The
    features come after the final norm, so its gain is in Σ already and W is taken as it is: a
    gain moved from the norm into W leaves the product, and these numbers, unchanged.

    Args:
        found: Spectrum of the features after the final norm, of width d.
        head: W, shape (V, d), any floating type; moved to the spectrum's device in blocks.

    Returns:
        The d largest, shape (d,), float64, descending, clamped at 0, on the spectrum's device;
        rankme_logits is their rankme. The other V − d are zero.

    Raises:
        ValueError: The widths differ.
    """
    if head.ndim != 2 or head.shape[1] != len(found.eigenvalues):
        raise ValueError(
            f"a head of shape {tuple(head.shape)} does not fit features of width "
            f"{len(found.eigenvalues)}"
        )
    rows = MomentAccumulator()
    for block in head.split(_BLOCK_ROWS):
        rows.update(block.to(found.eigenvalues.device))
    # VΛ^½ in place of Σ^½ = VΛ^½Vᵀ: the same eigenvalues, one product fewer.
    root = found.eigenvectors * found.eigenvalues.sqrt()
    half = rows.scatter @ root
    del rows  # Matrices of d × d are what memory goes to here.
    product = root.T @ half
    del root, half
    return torch.linalg.eigvalsh(product).flip(0).clamp_min(0)
