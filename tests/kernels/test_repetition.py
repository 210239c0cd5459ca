"""Repetition against brute force over runs of few different tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.repetition import distinct_share, longest_repeat_share, loop_length

MANY = settings(max_examples=300, derandomize=True, deadline=None)
runs = st.lists(st.integers(0, 2), max_size=14)


def cycles(tokens: list[int]) -> list[tuple[int, int]]:
    """Every period and the length of the longest end that has it and holds it twice."""
    found = []
    for period in range(1, len(tokens) + 1):
        for start in range(len(tokens)):
            end = tokens[start:]
            periodic = all(end[i] == end[i % period] for i in range(len(end)))
            if periodic and len(end) >= 2 * period:
                found.append((period, len(end)))
                break
    return found


@MANY
@given(runs, st.integers(1, 5))
def test_distinct_runs_are_counted_one_by_one(tokens: list[int], n: int) -> None:
    seen: list[list[int]] = []
    places = [i for i in range(len(tokens)) if i + n <= len(tokens)]
    for i in places:
        if tokens[i : i + n] not in seen:
            seen.append(tokens[i : i + n])
    expected = len(seen) / len(places) if len(places) > 1 else None
    assert distinct_share(tokens, n) == expected


@MANY
@given(runs)
def test_the_longest_repeat_is_found_among_all_pairs(tokens: list[int]) -> None:
    longest = 0
    for i in range(len(tokens)):
        for j in range(i + 1, len(tokens)):
            length = 0
            while j + length < len(tokens) and tokens[i + length] == tokens[j + length]:
                length += 1
            longest = max(longest, length)
    expected = longest / len(tokens) if len(tokens) > 1 else None
    assert longest_repeat_share(tokens) == expected


@MANY
@given(runs)
def test_the_loop_is_the_shortest_cycle_of_the_longest_end(tokens: list[int]) -> None:
    found = cycles(tokens)
    longest = max((tail for _, tail in found), default=0)
    expected = min((period for period, tail in found if tail == longest), default=None)
    assert loop_length(tokens) == expected


@MANY
@given(runs, st.permutations(range(3)))
def test_only_equality_of_tokens_counts(tokens: list[int], names: list[int]) -> None:
    renamed = [names[token] + 50_000 for token in tokens]
    assert distinct_share(renamed, 2) == distinct_share(tokens, 2)
    assert longest_repeat_share(renamed) == longest_repeat_share(tokens)
    assert loop_length(renamed) == loop_length(tokens)


@pytest.mark.parametrize(
    ("text", "distinct_1", "longest", "loop"),
    [
        ("", None, None, None),
        ("a", None, None, None),
        ("ab", 1, 0, None),
        ("aa", 1 / 2, 1 / 2, 1),
        ("aaaa", 1 / 4, 3 / 4, 1),
        ("abbabb", 1 / 3, 1 / 2, 3),
        ("xyabcabcab", 1 / 2, 1 / 2, 3),
        ("abcab", 3 / 5, 2 / 5, None),
        ("abababx", 3 / 7, 4 / 7, None),
    ],
)
def test_examples(
    text: str, distinct_1: float | None, longest: float | None, loop: int | None
) -> None:
    tokens = [ord(letter) for letter in text]
    assert distinct_share(tokens, 1) == distinct_1
    assert longest_repeat_share(tokens) == longest
    assert loop_length(tokens) == loop


@pytest.mark.parametrize("tokens", [[], [7]])
def test_what_is_too_short_to_repeat_has_no_numbers(tokens: list[int]) -> None:
    assert [distinct_share(tokens, n) for n in (1, 2, 3, 4)] == [None] * 4
    assert longest_repeat_share(tokens) is None
    assert loop_length(tokens) is None


def test_runs_of_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        distinct_share([1, 2], 0)
