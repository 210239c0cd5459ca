"""Distances of columns, beside an oracle that looks at one value at a time."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import distances as module
from dashboards.distances import distances

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, 5e-324, 1e308, -1e308, math.nan, math.inf]),
    st.floats(width=64),
)
LISTS = st.one_of(st.none(), st.lists(NUMBERS, max_size=4))
TOLERANCES = st.sampled_from([0.0, 1e-9, 0.1, 2.0])


def unlike(a: float | None, b: float | None) -> float:
    """|a − b|: 0 where they are the same, NaN where there is no finite one."""
    if a is None or b is None:
        return 0.0 if a is b else math.nan
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) if math.isfinite(a - b) else math.nan


def expected(a: Any, b: Any, tolerance: float) -> tuple[float, float]:
    """Absolute and relative distance of two lists, or of two numbers as lists of one."""
    if a is None or b is None or len(a) != len(b):
        size = 0.0 if a is b else math.nan
        return size, size
    values = [abs(x) for x in (*a, *b) if x is not None and math.isfinite(x)]
    scale = max(values, default=0.0)
    largest = [0.0, 0.0]
    for x, y in zip(a, b, strict=True):
        absolute = unlike(x, y)
        relative = absolute / scale if scale else absolute
        if tolerance and relative <= tolerance:
            continue
        for place, size in enumerate((absolute, relative)):
            if not largest[place] >= size:  # NaN is above all, and stays.
                largest[place] = size if not math.isnan(largest[place]) else math.nan
    return largest[0], largest[1]


def compared(first: list[Any], second: list[Any], kind: Any, tolerance: float = 0.0) -> Any:
    places = np.arange(len(first))
    a, b = (pa.chunked_array([pa.array(rows, kind)]) for rows in (first, second))
    return distances(a, b, places, places, tolerance)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), TOLERANCES)
def test_numbers_are_as_far_apart_as_one_by_one(pairs: list[Any], tolerance: float) -> None:
    found = compared([a for a, _ in pairs], [b for _, b in pairs], pa.float64(), tolerance)
    wanted = [expected([a], [b], tolerance) for a, b in pairs]
    np.testing.assert_array_equal(found.absolute, [size for size, _ in wanted])
    np.testing.assert_array_equal(found.relative, [size for _, size in wanted])


@given(st.data(), TOLERANCES, st.integers(1, 8))
def test_lists_are_as_far_apart_as_one_by_one(data: Any, tolerance: float, batch: int) -> None:
    first = data.draw(st.lists(LISTS, max_size=6))
    second = [data.draw(st.one_of(st.just(rows), LISTS)) for rows in first]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BATCH_ELEMENTS", batch)
        found = compared(first, second, pa.list_(pa.float64()), tolerance)
    wanted = [expected(a, b, tolerance) for a, b in zip(first, second, strict=True)]
    np.testing.assert_array_equal(found.absolute, [size for size, _ in wanted])
    np.testing.assert_array_equal(found.relative, [size for _, size in wanted])


def test_whole_numbers_are_compared_beyond_the_precision_of_floats() -> None:
    found = compared([2**53, -(2**63), None, 3], [2**53 + 1, 2**63 - 1, 3, 3], pa.int64())
    np.testing.assert_array_equal(found.absolute, [1.0, 2.0**64, math.nan, 0.0])


@pytest.mark.parametrize(
    ("kind", "a", "b"), [(pa.string(), "a", "b"), (pa.bool_(), True, False)], ids=str
)
def test_values_that_are_no_numbers_are_the_same_or_not(kind: Any, a: Any, b: Any) -> None:
    nan = math.nan
    found = compared([a, a, a, None, None], [a, b, None, a, None], kind, tolerance=2.0)
    np.testing.assert_array_equal(found.absolute, [0.0, nan, nan, nan, 0.0])
    lists = compared([[a, b], [a], None], [[a, b], [b], []], pa.list_(kind))
    np.testing.assert_array_equal(lists.absolute, [0.0, nan, nan])


def test_noise_in_the_tail_of_a_spectrum_is_small() -> None:
    first, second = [[10.0, 1.0, 1e-16]], [[10.0, 1.0, 3e-16]]
    found = compared(first, second, pa.list_(pa.float64()))
    assert found.absolute.tolist() == [2e-16]
    assert found.relative.tolist() == [2e-16 / 10]
    assert compared(first, second, pa.list_(pa.float64()), 1e-12).absolute.tolist() == [0.0]


def test_without_a_tolerance_only_the_same_is_equal() -> None:
    found = compared([[1e308, 5e-324]], [[1e308, 0.0]], pa.list_(pa.float64()))
    assert found.absolute.tolist() == [5e-324]
    assert found.relative.tolist() == [0.0]
