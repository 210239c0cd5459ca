"""Sizes: read as written, written as read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sizes import parse_size, readable_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512", 512),
        ("200GB", 200 * 10**9),
        ("200 gb", 200 * 10**9),
        ("1.5T", 1_500_000_000_000),
        ("64GiB", 64 * 2**30),
        ("10k", 10_000),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.1", "1iB", "1 PB", "12x", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (3 * 10**15, "3.0 PB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert readable_size(size) == text


@given(st.integers(1, 10**15 - 10**14))
def test_a_written_size_is_read_as_about_the_same(size: int) -> None:
    assert abs(parse_size(readable_size(size)) - size) <= 0.06 * size
