"""Norms of the LM head's rows: changed before a fine-tune, and what its remedies make of them.

Invariant: an intervention multiplies each row by a positive number, so directions stay.

W has shape (V, d): the output embedding's rows for the tokenizer's ids, padding rows cut off.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from workers.kernels.head import row_norms

Intervention = Literal["none", "equalize", "shuffle", "clip"]
"""Nothing; all norms to their mean; permuted across tokens; clipped to quantiles."""

RateMethod = Literal["norm_lr", "inverse_norm_lr"]
"""Learning rates in proportion to the norm, or to its inverse."""

_BLOCK_ROWS = 8192


def intervened(weight: Tensor, intervention: Intervention, clip: float | None, seed: int) -> Tensor:
    """Returns the head with other row norms and the same directions.

    Norms and products are float64, rounded once to the head's own type. A row whose norm stays is
    kept bit for bit. Shuffling depends on the seed and V alone: it sorts raw draws of a bit
    generator, whose stream NumPy promises never to change.

    Args:
        weight: W, shape (V, d), any floating type; not written to.
        intervention: What is done to the norms. `equalize` takes the mean over the V rows.
        clip: Quantile q in [0, 0.5] of `clip`, which clips norms to the [q, 1 − q] quantiles,
            linearly interpolated; 0 changes nothing. Unused by the others.
        seed: Of `shuffle`, at least 0.

    Returns:
        Shape (V, d), in the type and on the device of the head; the head itself where nothing
        changes.

    Raises:
        ValueError: Rows that are zero (they have no direction; ids named) or not finite, a clip
            outside [0, 0.5], an unknown intervention.
    """
    if intervention == "clip" and (clip is None or not 0 <= clip <= 0.5):
        raise ValueError(f"clip must be between 0 and 0.5, got {clip}")
    if intervention == "none" or (intervention == "clip" and clip == 0):
        return weight
    norms = row_norms(weight)
    _check_positive(norms)
    if intervention == "equalize":
        targets = norms.mean().expand_as(norms)
    elif intervention == "shuffle":
        draws = np.random.PCG64(seed).random_raw(len(norms))
        targets = norms[torch.from_numpy(np.argsort(draws, kind="stable")).to(norms.device)]
    elif intervention == "clip" and clip is not None:
        low, high = np.quantile(norms.cpu().numpy(), (clip, 1 - clip))
        targets = norms.clamp(float(low), float(high))
    else:
        raise ValueError(f"unknown intervention {intervention!r}")
    factors = targets / norms
    changed = torch.empty_like(weight)
    for start in range(0, len(weight), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        changed[rows] = weight[rows].to(torch.float64) * factors[rows, None]
    return changed


def token_rates(norms: Tensor, method: RateMethod) -> Tensor:
    """Returns what each token's learning rate is multiplied by.

    Args:
        norms: Row norms, shape (V,), in units of the weights.
        method: `norm_lr`: in proportion to the norm; `inverse_norm_lr`: to its inverse.

    Returns:
        Shape (V,), float64, of mean 1. Equal norms give ones exactly.

    Raises:
        ValueError: A norm is zero or not finite; the token ids are named.
    """
    _check_positive(norms)
    values = norms.to(torch.float64)
    # Quotients of equal numbers are exactly 1, and so is the mean of ones; a mean of equal norms
    # could differ from them by a rounding.
    rates = values / values.max() if method == "norm_lr" else values.min() / values
    return rates / rates.mean()


def norm_groups(norms: Tensor, groups: int) -> Tensor:
    """Returns each token's group by norm quantile.

    Args:
        norms: Row norms, shape (V,), in units of the weights.
        groups: Number of groups, from 1 to V; sizes differ by one at most.

    Returns:
        Shape (V,), int64, on the norms' device: 0 for the smallest norms, groups − 1 for the
        largest. Among equal norms, the lower id comes first.

    Raises:
        ValueError: More groups than tokens, or none.
    """
    tokens = len(norms)
    if not 1 <= groups <= tokens:
        raise ValueError(f"groups must be between 1 and {tokens}, the tokens, got {groups}")
    order = torch.argsort(norms, stable=True)
    found = torch.empty_like(order)
    found[order] = torch.arange(tokens, device=norms.device) * groups // tokens
    return found


def _check_positive(norms: Tensor) -> None:
    ids = torch.nonzero(~((norms > 0) & torch.isfinite(norms))).flatten().tolist()
    if ids:
        named = ", ".join(map(str, ids[:20])) + (f" and {len(ids) - 20} more" * (len(ids) > 20))
        raise ValueError(f"rows of the head are zero or not finite: token ids {named}")
