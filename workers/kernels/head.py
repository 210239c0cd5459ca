"""Geometry of the LM head's rows: how long they are, and how far they overlap.

Invariant: every statistic is over all rows (or all pairs of rows) of the W that it is given, with
sums in float64, and no array grows with the square of the vocabulary.

W has shape (V, d): the output embedding's rows for the tokenizer's ids, padding rows cut off.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from workers.kernels.statistics import Correlation, pearson, spearman

QUANTILE_LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Levels of `NormStatistics.quantiles`."""

_BLOCK_ROWS = 2048
_STRIP_ROWS = 8192
_PILOT_ROWS = 64
# Of blocks of pairs: larger ones leave a core's cache, or waste more on the diagonal.
_EDGES = {"cpu": 1024, "cuda": 2048}


@dataclass(frozen=True)
class NormStatistics:
    """Statistics of the row norms, in units of the weights where not pure numbers.

    Attributes:
        mean: Mean norm.
        std: Population standard deviation.
        cv: std / mean.
        min: Smallest norm.
        max: Largest norm.
        range: max / min.
        quantiles: Norms at `QUANTILE_LEVELS`, linearly interpolated.
    """

    mean: float
    std: float
    cv: float
    min: float
    max: float
    range: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class OverlapStatistics:
    """Statistics of the cosines between all pairs i < j of rows, pure numbers.

    Attributes:
        mean: Mean of |cos|.
        std: Population standard deviation of |cos|.
        rms: Root mean square of cos.
        mean_scaled: mean · √d.
        std_scaled: std · √d.
        random: √(2/(πd)), the mean for random directions in high dimension.
        welch_bound: Smallest possible rms; 0 where V ≤ d.
        etf_tightness: rms / welch_bound − 1, 0 for a tight frame; None where the bound is 0.
        equiangularity: std / rms, 0 for equal angles; None where all rows are orthogonal.
    """

    mean: float
    std: float
    rms: float
    mean_scaled: float
    std_scaled: float
    random: float
    welch_bound: float
    etf_tightness: float | None
    equiangularity: float | None


def row_norms(head: Tensor) -> Tensor:
    """Euclidean norms of the rows, each row upcast to float64 first.

    Args:
        head: W, shape (V, d), any floating type.

    Returns:
        Shape (V,), float64, on the head's device, in units of the weights.

    Raises:
        ValueError: The head is not a matrix, or rows are not finite; their ids are named.
    """
    if head.ndim != 2 or head.numel() == 0:
        raise ValueError(f"a head must have shape (V, d), got {tuple(head.shape)}")
    norms = torch.cat([torch.linalg.vector_norm(block, dim=1) for block in _blocks(head)])
    _refuse(~torch.isfinite(norms), "are not finite")
    return norms


def norm_statistics(norms: Tensor) -> NormStatistics:
    """Summarizes row norms.

    Args:
        norms: Shape (V,), from `row_norms`.

    Returns:
        The statistics; `norm_cv` of the results is `cv`, `norm_range` is `range`.

    Raises:
        ValueError: A norm is zero or not finite; the token ids are named.
    """
    _refuse(~torch.isfinite(norms), "are not finite")
    _refuse(norms == 0, "are zero")
    values = norms.detach().to(device="cpu", dtype=torch.float64).numpy()
    mean, std = float(values.mean()), float(values.std())
    quantiles = np.quantile(values, QUANTILE_LEVELS)
    smallest, largest = float(values.min()), float(values.max())
    return NormStatistics(
        mean=mean,
        std=std,
        cv=std / mean,
        min=smallest,
        max=largest,
        range=largest / smallest,
        quantiles=tuple(float(quantile) for quantile in quantiles),
    )


def norm_cv_invariant(head: Tensor, gain: Tensor) -> float:
    """Norm CV of the head with the final norm's gain folded in and the mean row removed.

    Softmax ignores w → w + c, and a gain trades between the norm and W; the rows of
    W·diag(gain) minus their mean know neither.

    Args:
        head: W, shape (V, d), any floating type.
        gain: The final norm's weight as it multiplies (1 + weight where a model stores it so),
            shape (d,).

    Returns:
        Population standard deviation over mean of the V norms.

    Raises:
        ValueError: The shapes don't fit, values are not finite, or all rows are equal.
    """
    if head.ndim != 2 or gain.shape != (head.shape[1],):
        raise ValueError(
            f"a gain of shape {tuple(gain.shape)} does not fit a head of {tuple(head.shape)}"
        )
    factor = gain.detach().to(device=head.device, dtype=torch.float64)
    mean = sum(block.sum(dim=0) for block in _blocks(head)) / head.shape[0]
    norms = torch.cat(
        [torch.linalg.vector_norm((block - mean) * factor, dim=1) for block in _blocks(head)]
    )
    average = float(norms.mean())
    if not 0 < average < math.inf:
        raise ValueError(f"the rows without their mean have mean norm {average:g}")
    return float(norms.std(correction=0)) / average


def overlap_statistics(head: Tensor, *, block_rows: int | None = None) -> OverlapStatistics:
    """Statistics of |cos| over all V(V−1)/2 pairs of rows, exact and in blocks.

    Cosines are float32 products of rows that were normalized in float64; only blocks on and above
    the diagonal are formed, in one preallocated buffer. What is summed are deviations from the mean
    of a few rows, in float32 within a row of a block and in float64 beyond, so that equal angles,
    where rms² − mean² cancels, keep their digits; rms² is mean² + std². On a GPU torch must
    multiply float32 as such, its default, not as TF32. Bound: Welch (1974).

    Args:
        head: W, shape (V, d), any floating type; the work is done on its device.
        block_rows: Edge of a block, by default what suits the device: of speed and memory alone.

    Returns:
        The statistics.

    Raises:
        ValueError: Fewer than two rows, rows that are zero or not finite (ids named), or
            block_rows < 1.
    """
    edge = _EDGES.get(head.device.type, 1024) if block_rows is None else block_rows
    if edge < 1:
        raise ValueError(f"block_rows must be at least 1, got {edge}")
    norms = row_norms(head)
    _refuse(norms == 0, "are zero")
    tokens, width = head.shape
    if tokens < 2:
        raise ValueError("overlaps need at least two rows")
    pairs = tokens * (tokens - 1) / 2
    pilot = _mean_of_some(head, norms)
    first, second = _deviations(head, norms, pilot, min(edge, tokens))
    mean = pilot + first / pairs
    std = math.sqrt(max(second / pairs - (first / pairs) ** 2, 0.0))
    rms = math.hypot(mean, std)
    welch = math.sqrt(max(tokens - width, 0) / (width * (tokens - 1)))
    return OverlapStatistics(
        mean=mean,
        std=std,
        rms=rms,
        mean_scaled=mean * math.sqrt(width),
        std_scaled=std * math.sqrt(width),
        random=math.sqrt(2 / (math.pi * width)),
        welch_bound=welch,
        etf_tightness=rms / welch - 1 if welch > 0 else None,
        equiangularity=std / rms if rms > 0 else None,
    )


def correlate_with_token_ids(norms: Tensor, token_ids: ArrayLike) -> Correlation:
    """Correlates norms with BPE indices, the paper's proxy for rarity.

    Args:
        norms: Shape (V,).
        token_ids: The id of each row, shape (V,).

    Returns:
        Pearson and Spearman coefficients; NaN where a series is constant.

    Raises:
        ValueError: The lengths differ or are below 2.
    """
    values = norms.detach().cpu().numpy()
    return Correlation(pearson(values, token_ids), spearman(values, token_ids))


def correlate_with_counts(norms: Tensor, counts: ArrayLike) -> Correlation:
    """Correlates norms with how often a corpus holds each token.

    Args:
        norms: Shape (V,).
        counts: Occurrences of each row's token, shape (V,).

    Returns:
        Pearson with ln(1 + count), since counts are spread over decades, and Spearman with the
        count; NaN where a series is constant.

    Raises:
        ValueError: The lengths differ or are below 2.
    """
    values, occurrences = norms.detach().cpu().numpy(), np.asarray(counts, dtype=np.float64)
    return Correlation(pearson(values, np.log1p(occurrences)), spearman(values, occurrences))


def _mean_of_some(head: Tensor, norms: Tensor) -> float:
    """Returns the mean |cos| between some rows, near enough to that of all to be summed about.

    They are spread over the vocabulary: neighbours may be equal, as tokens that no text holds.
    """
    apart = -(-len(head) // _PILOT_ROWS)
    rows = _directions(head[::apart], norms[::apart], 0, _PILOT_ROWS)
    return float((rows @ rows.T).abs().triu(1).sum()) / (len(rows) * (len(rows) - 1) / 2)


def _deviations(head: Tensor, norms: Tensor, pilot: float, edge: int) -> tuple[float, float]:
    """Sums of |cos| − pilot and of its square over all pairs i < j, in blocks of edge × edge.

    Rows are normalized a strip at a time, and then a block of those beyond the strip: a whole Ŵ
    would be another copy of the head.
    """
    tokens, strip = len(head), max(edge, _STRIP_ROWS // edge * edge)
    buffer = torch.empty(edge * edge, dtype=torch.float32, device=head.device)
    sums = torch.zeros(2, dtype=torch.float64, device=head.device)
    for start in range(0, tokens, strip):
        places = range(start, tokens, edge)
        rows = [_directions(head, norms, place, edge) for place in places[: strip // edge]]
        for index, place in enumerate(places):
            columns = rows[index] if index < len(rows) else _directions(head, norms, place, edge)
            for other, block in enumerate(rows[: index + 1]):
                cosines = buffer[: len(block) * len(columns)].view(len(block), len(columns))
                torch.mm(block, columns.T, out=cosines)
                cosines.abs_().sub_(pilot)
                if other == index:
                    cosines.diagonal().zero_()
                # A block on the diagonal holds each of its pairs twice.
                weight = 0.5 if other == index else 1.0
                # float32 within a row, float64 across rows: a sum in float64 alone would first copy
                # the block, and costs more than the product for narrow heads.
                sums[0] += weight * cosines.sum(dim=1).double().sum()
                sums[1] += weight * torch.linalg.vector_norm(cosines, dim=1).double().square().sum()
    return float(sums[0]), float(sums[1])


def _directions(head: Tensor, norms: Tensor, start: int, count: int) -> Tensor:
    """Returns some rows divided by their norms, in float64 and then rounded to float32."""
    rows = slice(start, start + count)
    return (head[rows].detach().to(torch.float64) / norms[rows].unsqueeze(1)).float()


def _blocks(head: Tensor) -> Iterator[Tensor]:
    """Rows in float64, a block at a time: the whole head upcast would be gigabytes."""
    for block in head.detach().split(_BLOCK_ROWS):
        yield block.to(torch.float64)


def _refuse(faulty: Tensor, what: str) -> None:
    ids = torch.nonzero(faulty).flatten().tolist()
    if ids:
        named = ", ".join(str(token) for token in ids[:20])
        more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
        raise ValueError(f"rows of the head {what}: token ids {named}{more}")
