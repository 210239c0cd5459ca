"""How much a run of tokens repeats itself.

Invariant: numbers depend on which tokens are equal alone, not on which they are; and a run too
short to repeat anything has none, which is None and never NaN.
"""

from collections.abc import Sequence

import numpy as np


def distinct_share(tokens: Sequence[int], n: int) -> float | None:
    """Different n-grams over all n-grams (distinct-n, Li et al. 2016, arXiv 1510.03055).

    Li et al. divide by the number of tokens; dividing by that of n-grams, as is usual since, lets
    a run without any repetition reach 1 for every n.

    Args:
        tokens: T token ids.
        n: Length of the n-grams, at least 1.

    Returns:
        A number in (0, 1]; None for fewer than two n-grams, of which none could be a repetition.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    count = len(tokens) - n + 1
    if count < 2:
        return None
    return len(set(_runs(tokens, n))) / count


def longest_repeat_share(tokens: Sequence[int]) -> float | None:
    """Length of the longest n-gram that occurs twice, over the number of tokens.

    The occurrences start at different places and may overlap: of `a a a a`, `a a a` occurs twice.
    This is the longest repeated substring, as in Lee et al. (2022, arXiv 2107.06499).

    Args:
        tokens: T token ids.

    Returns:
        A number between 0 (all tokens differ) and (T − 1)/T (all are the same); None for T < 2.
    """
    total = len(tokens)
    if total < 2:
        return None
    # What starts a repeated run is repeated too, so lengths can be halved.
    repeated, unique = 0, total
    while unique - repeated > 1:
        length = (repeated + unique) // 2
        runs = _runs(tokens, length)
        if len(set(runs)) < len(runs):
            repeated = length
        else:
            unique = length
    return repeated / total


def loop_length(tokens: Sequence[int]) -> int | None:
    """Number of tokens of the cycle that a run ends in.

    For a period p, the tail of p is the longest end of the run in which every token equals the one
    p places before it, together with the first p tokens; p is a cycle if its tail holds it twice
    in full, so is at least 2p long. Of several cycles that with the longest tail counts, and of
    those with equal tails the shortest: `a b b a b b` has 3 (not 1, the `b b` at its end), and
    `a a a a` has 1. The loops of greedy decoding are described by Holtzman et al. (2020, arXiv
    1904.09751).

    Args:
        tokens: T token ids.

    Returns:
        The length of the cycle, 1 to T/2; None if the run ends in none.
    """
    ids = np.asarray(tokens, dtype=np.int64)
    longest, found = 0, None
    for period in range(1, len(ids) // 2 + 1):
        breaks = np.flatnonzero(ids[period:] != ids[:-period])
        tail = len(ids) - (int(breaks[-1]) + 1 if len(breaks) else 0)
        if tail >= 2 * period and tail > longest:
            longest, found = tail, period
    return found


def _runs(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    ids = tuple(tokens)
    return [ids[start : start + n] for start in range(len(ids) - n + 1)]
