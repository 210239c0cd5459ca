"""Two sides of a comparison, timed in turns: whatever else the machine does meets both alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from benchmarks.limits import Figure, median_of


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        what: What is measured.
        ours: Our side.
        other: The other side.
        goal: What the time of the other, over ours, should be.
        rounds: How often both are timed.
        warm: Whether ours is called once before, so that what is imported and cached on first use
            is no part of either.
    """

    what: str
    ours: Callable[[], object]
    other: Callable[[], object]
    goal: str
    rounds: int = 5
    warm: bool = True


def beside(sides: Iterable[Sides]) -> list[Figure]:
    """Times both sides of each comparison; returns the ratios other/ours."""
    return [_compared(each) for each in sides]


def took(side: Callable[[], object]) -> float:
    """Returns the seconds that a call takes, to the end of what it began on a GPU."""
    _wait()
    started = time.perf_counter()
    side()
    _wait()
    return time.perf_counter() - started


def _compared(sides: Sides) -> Figure:
    if sides.warm:
        sides.ours()
    pairs = [(took(sides.ours), took(sides.other)) for _ in range(sides.rounds)]
    ours, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [theirs / mine for mine, theirs in pairs]
    told = f"{ours:.3g} s against {other:.3g} s"
    return median_of(sides.what, ratios, "×", sides.goal, told)


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
