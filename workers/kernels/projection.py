"""Hidden states, and their logits, without or with nothing but the leading directions of features.

Invariant: with P = V_k V_kᵀ for the k leading eigenvectors of Σ, what is removed and what is
retained add up to the whole, whatever k; k = 0 removes, and k = d retains, everything.

Source: Table 2 of the tracing paper (arXiv 2509.23024), which says neither what becomes of the
mean nor where the projection stands; here it stands at every position before the head.

    mean kept      retained  μ + P(h − μ)     removed  μ + (I − P)(h − μ)
    mean dropped   retained      P(h − μ)     removed      (I − P)(h − μ)

μ is the features' mean; dropped, it is subtracted all the same, but not added back. Eigenvectors
are unique only where their eigenvalues differ: k should part no equal ones, such as the zeros that
fewer features than dimensions leave.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from workers.kernels.spectrum import Spectrum

Mode = Literal["removed", "retained"]
MODES: tuple[Mode, ...] = ("removed", "retained")

_BLOCK_ROWS = 8192


def projector(spectrum: Spectrum, rank: int) -> Tensor:
    """Orthogonal projector P = V_k V_kᵀ onto the leading eigenvectors.

    Args:
        spectrum: Spectrum of the features.
        rank: k, 0 to d.

    Returns:
        Shape (d, d), float64, symmetric, of rank k; without unit.

    Raises:
        ValueError: k is not between 0 and d.
    """
    leading = _leading(spectrum, rank)
    return leading @ leading.T


def ablated(
    states: Tensor, spectrum: Spectrum, rank: int, mode: Mode, *, keep_mean: bool
) -> Tensor:
    """Hidden states without, or with nothing but, the k leading directions.

    Args:
        states: h, shape (n, d), any floating type and device.
        spectrum: Spectrum of the features.
        rank: k, 0 to d.
        mode: Whether the directions go, or alone remain.
        keep_mean: Whether μ is added back.

    Returns:
        Shape (n, d), float64, in units of the states, on the spectrum's device.

    Raises:
        ValueError: k is not between 0 and d, or the states have another width.
    """
    centred = _centred(states, spectrum)
    leading = _leading(spectrum, rank)
    within = (centred @ leading) @ leading.T
    kept = within if mode == "retained" else centred - within
    return kept + spectrum.mean if keep_mean else kept


def variance_share(spectrum: Spectrum, rank: int) -> float:
    """Share of the variance Σλ that the k leading eigenvectors hold.

    Args:
        spectrum: Spectrum of the features, of some variance.
        rank: k, 0 to d.

    Returns:
        A number in [0, 1]; 0 for k = 0.

    Raises:
        ValueError: k is not between 0 and d.
    """
    _leading(spectrum, rank)
    values = spectrum.eigenvalues
    return min(float(values[:rank].sum() / values.sum()), 1.0)


class AblatedLogits:
    """Logits of an affine head on ablated states, for many k at the price of little more than one.

    A head that maps h to W h + b maps the retained state to z(μ) + W V_k c and the removed one to
    z(h) − W V_k c, with c = V_kᵀ(h − μ): the difference of both from logits that are known anyway
    costs n·k·V instead of n·d·V products, and the k of a sweep share it, each adding its further
    directions only. Where the mean is dropped, z(0) = b stands for z(μ), and z(h) − z(μ) + b for
    z(h).

    Coordinates are taken in float64, since μ can exceed the spread by far; logits are float32.

    Args:
        spectrum: Spectrum of the features.
        weight: W, shape (V, d), any floating type; its device is that of the logits.
        bias: b, shape (V,), or None.
        ranks: The k, each 0 to d, in any order.
        keep_mean: Whether μ is added back.

    Raises:
        ValueError: A k is not between 0 and d, or the widths differ.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        weight: Tensor,
        bias: Tensor | None,
        ranks: Sequence[int],
        *,
        keep_mean: bool,
    ) -> None:
        if weight.ndim != 2 or weight.shape[1] != spectrum.mean.numel():
            raise ValueError(
                f"a head of shape {tuple(weight.shape)} does not fit features of width "
                f"{spectrum.mean.numel()}"
            )
        self._spectrum = spectrum
        self._ranks = sorted(set(ranks))
        self._leading = _leading(spectrum, max(self._ranks, default=0))
        for rank in self._ranks:
            _leading(spectrum, rank)
        # V of them at a time, since the head in float64 can be too large.
        directions, of_mean = [], []
        for block in weight.detach().split(_BLOCK_ROWS):
            rows = block.to(self._leading.device).to(torch.float64)
            directions.append((rows @ self._leading).float())
            of_mean.append((rows @ spectrum.mean).float())
        self._directions = torch.cat(directions).to(weight.device)
        mean_logits = torch.cat(of_mean).to(weight.device)
        constant = torch.zeros_like(mean_logits) if bias is None else bias.detach().float()
        self._retained = constant + mean_logits if keep_mean else constant
        self._removed = torch.zeros_like(mean_logits) if keep_mean else -mean_logits

    def variants(self, states: Tensor, logits: Tensor) -> Iterator[tuple[int, Mode, Tensor]]:
        """Yields the logits of every variant, k ascending, removed before retained.

        Args:
            states: h, shape (n, d), any floating type.
            logits: z(h), shape (n, V), float32, on the head's device; left as they are.

        Yields:
            k, mode and logits, (n, V) float32.
        """
        coordinates = _centred(states, self._spectrum) @ self._leading
        coordinates = coordinates.float().to(self._directions.device)
        within = torch.zeros_like(logits)
        done = 0
        for rank in self._ranks:
            if rank > done:
                further = slice(done, rank)
                within.addmm_(coordinates[:, further], self._directions[:, further].T)
                done = rank
            yield rank, "removed", logits + self._removed - within
            yield rank, "retained", self._retained + within


def _leading(spectrum: Spectrum, rank: int) -> Tensor:
    """Returns V_k, (d, k)."""
    width = spectrum.eigenvectors.shape[1]
    if not 0 <= rank <= width:
        raise ValueError(f"rank must be between 0 and {width}, got {rank}")
    return spectrum.eigenvectors[:, :rank]


def _centred(states: Tensor, spectrum: Spectrum) -> Tensor:
    """Returns h − μ, (n, d) float64, on the spectrum's device."""
    if states.ndim != 2 or states.shape[1] != spectrum.mean.numel():
        raise ValueError(
            f"states of shape {tuple(states.shape)} do not fit features of width "
            f"{spectrum.mean.numel()}"
        )
    # Moved first: a device without float64 can't convert.
    return states.detach().to(spectrum.mean.device).to(torch.float64) - spectrum.mean
