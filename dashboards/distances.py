"""How far two columns are apart, row by row: 0 says equal, NaN unlike without a finite size.

NaN equals NaN and null equals null; either against a number, text against other text, and lists of
unequal lengths are without a size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Places = npt.NDArray[np.int64]

_BATCH_ELEMENTS = 2**20


@dataclass(frozen=True)
class Distances:
    """How far apart rows, or elements of lists, are.

    Attributes:
        absolute: |a − b|, of lists the largest one; 0 where equal, NaN without a finite size.
        relative: |a − b| over the larger magnitude of the two, in lists of all their elements, so
            that noise in the tail of a spectrum stays small; 0 and NaN likewise.
    """

    absolute: npt.NDArray[np.float64]
    relative: npt.NDArray[np.float64]


def distances(
    first: pa.ChunkedArray,
    second: pa.ChunkedArray,
    ours: Places,
    theirs: Places,
    tolerance: float = 0.0,
) -> Distances:
    """Compares two columns of one type.

    Args:
        first: One column.
        second: The other.
        ours: Places of the rows to compare in the first column.
        theirs: The places of their partners in the second.
        tolerance: Numbers whose relative difference is no larger count as equal.
    """
    if not pa.types.is_list(first.type):
        pair = (_rows(first, ours), _rows(second, theirs))
        absolute, magnitude = _elements(*pair)
        return _within(absolute, _over(absolute, magnitude), tolerance)
    # In batches: temporary arrays of all spectra at once would be several times the spectra.
    elements = max(pc.sum(pc.list_value_length(first)).as_py() or 0, 1)
    step = max(1, _BATCH_ELEMENTS * len(first) // elements)
    parts = [
        _lists(
            _rows(first, ours[start : start + step]),
            _rows(second, theirs[start : start + step]),
            tolerance,
        )
        for start in range(0, max(len(ours), 1), step)
    ]
    return Distances(
        np.concatenate([part.absolute for part in parts]),
        np.concatenate([part.relative for part in parts]),
    )


def within_lists(first: pa.ListScalar, second: pa.ListScalar, tolerance: float) -> Distances | None:
    """Compares two lists, element by element; None where there is no such thing to compare."""
    if not first.is_valid or not second.is_valid or len(first) != len(second):
        return None
    absolute, magnitude = _elements(first.values, second.values)
    return _within(absolute, _over(absolute, np.full_like(magnitude, magnitude.max())), tolerance)


def _rows(column: pa.ChunkedArray, places: Places) -> pa.Array:
    taken = column.take(pa.array(places)).combine_chunks()
    return pa.concat_arrays(taken.chunks) if isinstance(taken, pa.ChunkedArray) else taken


def _lists(first: pa.Array, second: pa.Array, tolerance: float) -> Distances:
    lengths, others = (
        pc.list_value_length(rows).fill_null(-1).to_numpy(zero_copy_only=False)
        for rows in (first, second)
    )
    absolute = np.where(lengths == others, 0.0, np.nan)
    relative = absolute.copy()
    full = (lengths == others) & (lengths > 0)
    if full.any():
        chosen = pa.array(full)
        parts, magnitude = _elements(
            first.filter(chosen).flatten(), second.filter(chosen).flatten()
        )
        sizes = lengths[full]
        starts = np.cumsum(sizes) - sizes
        scale = np.repeat(np.maximum.reduceat(magnitude, starts), sizes)
        found = _within(parts, _over(parts, scale), tolerance)
        # The maximum of NaN and a number is NaN: one element without a size leaves its row none.
        absolute[full] = np.maximum.reduceat(found.absolute, starts)
        relative[full] = np.maximum.reduceat(found.relative, starts)
    return Distances(absolute, relative)


def _elements(
    first: pa.Array, second: pa.Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns |a − b|, and the larger finite magnitude of a and b."""
    lonely = pc.xor(first.is_null(), second.is_null()).to_numpy(zero_copy_only=False)
    kind = first.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        unlike = pc.not_equal(first, second).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(unlike | lonely, np.nan, 0.0), np.zeros(len(first))
    wide = np.dtype(np.float64 if pa.types.is_floating(kind) else np.int64)
    a, b = (
        rows.fill_null(0).to_numpy(zero_copy_only=False).astype(wide) for rows in (first, second)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        if wide.kind == "i":  # The bits of a difference beyond int64 are right when unsigned.
            absolute = (np.maximum(a, b) - np.minimum(a, b)).view(np.uint64).astype(np.float64)
        else:
            absolute = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    absolute[lonely | ~np.isfinite(absolute)] = np.nan
    sizes = (np.abs(values.astype(np.float64)) for values in (a, b))
    x, y = (np.where(np.isfinite(values), values, 0.0) for values in sizes)
    return absolute, np.maximum(x, y)


def _over(
    absolute: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    # Without a scale there is no difference, or one without a size.
    return np.divide(absolute, scale, out=absolute.copy(), where=scale > 0)


def _within(
    absolute: npt.NDArray[np.float64], relative: npt.NDArray[np.float64], tolerance: float
) -> Distances:
    if tolerance:  # Not for 0, which a quotient may be though its numerator isn't.
        equal = relative <= tolerance
        absolute, relative = np.where(equal, 0.0, absolute), np.where(equal, 0.0, relative)
    return Distances(absolute, relative)
