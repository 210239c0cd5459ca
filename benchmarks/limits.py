"""Figures that have a limit instead of a peer, each measured in a process of its own."""

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        what: What was measured.
        value: The number.
        unit: Its unit.
        goal: What it should be, for example `≤ 10`; empty where it only explains others.
    """

    what: str
    value: float
    unit: str
    goal: str = ""


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
