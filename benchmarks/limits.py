"""Figures beside their goals, and processes of their own to measure them in."""

import operator
import re
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "≥": operator.ge,
    "≤": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Figure:
    """One measured number, or the median of several.

    Attributes:
        what: What was measured.
        value: The number.
        unit: Its unit.
        goal: What it should be, for example `≤ 10`; empty where it only explains others.
        spread: Lowest and highest of several measurements; None of a single one.
        beside: What the number comes of, in words.
    """

    what: str
    value: float
    unit: str
    goal: str = ""
    spread: tuple[float, float] | None = None
    beside: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none.

        Raises:
            ValueError: The goal is no comparison with a number.
        """
        if not self.goal:
            return None
        sign, _, limit = self.goal.partition(" ")
        if sign not in _COMPARISONS:
            raise ValueError(f"the goal {self.goal!r} is no comparison, such as '≤ 10'")
        return _COMPARISONS[sign](self.value, float(limit))


def median_of(
    what: str, values: Sequence[float], unit: str, goal: str = "", beside: str = ""
) -> Figure:
    """Returns the median of several measurements with their spread."""
    spread = min(values), max(values)
    return Figure(what, statistics.median(values), unit, goal, spread, beside)


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """Calls a function in a fresh process, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory(field: str) -> float:
    """Returns this process's `VmRSS` (now) or `VmHWM` (its peak) in GiB, as the kernel tells it."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise OSError(f"the kernel tells no {field}")
    return int(found[1]) / 2**20
