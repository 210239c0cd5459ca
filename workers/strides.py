"""Holes in a series of steps: only where its own stride shows on both sides that one is missing."""

from collections import Counter
from collections.abc import Collection
from itertools import pairwise

_FIRST_POWERS = 2


def holes(steps: Collection[int]) -> list[tuple[int, int, int]]:
    """Finds the holes in a regular series.

    Its stride is the commonest difference of neighbouring steps, if it makes up at least half of
    the differences. A hole is a difference of twice the stride, three times, and so on, between the
    first and the last occurrence of the stride. A series that begins with doubling steps, as in
    0, 1, 2, 4 … 512, is looked at from the last of these on.

    Args:
        steps: The steps, in any order.

    Returns:
        The step before each hole, the step after it, and the stride.
    """
    regular = _after_doubling(sorted(set(steps)))
    pairs = list(pairwise(regular))
    counted = Counter(after - before for before, after in pairs)
    if not counted:
        return []
    stride, times = max(counted.items(), key=lambda item: (item[1], -item[0]))
    if 2 * times < len(pairs):
        return []
    places = [place for place, (before, after) in enumerate(pairs) if after - before == stride]
    return [
        (before, after, stride)
        for before, after in pairs[places[0] : places[-1]]
        if after - before > stride and (after - before) % stride == 0
    ]


def _after_doubling(steps: list[int]) -> list[int]:
    """Returns the steps from the last one of the doubling start on; all, if there is none."""
    start = 1 if steps[:1] == [0] else 0
    if not steps[start:] or steps[start] > _FIRST_POWERS or steps[start].bit_count() != 1:
        return steps
    end = start
    while end + 1 < len(steps) and steps[end + 1] == 2 * steps[end]:
        end += 1
    return steps[end:]
