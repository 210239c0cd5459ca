"""What this process has done so far, as plain counts that whoever runs it may read.

A count changes no result and costs microseconds. The seconds of a phase are its own: those of a
phase within it are left out, so that a thread's phases never add up to more than the time it took.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Counted = Literal["phase_seconds", "fetched_bytes", "cache_files", "sampled_tokens"]
"""What is counted: seconds by phase, bytes by where they were fetched from, files of the node cache
by whether they were there (`hit`) or not (`miss`) when they were needed, tokens by engine."""

Phase = Literal["fetch", "load", "forward", "fit", "make", "train", "sample", "grade"]
"""Parts of a cell: waiting for files, weights into the model, the model's passes, numbers out of
them, data from texts, training, sampling by an engine, grading answers."""


class _Phases:
    """The phases that a thread is in, the innermost last."""

    def __init__(self) -> None:
        self._names: list[Phase] = []
        self._since = 0.0

    def credit(self) -> None:
        """Counts the seconds since the last call for the innermost phase."""
        now = time.perf_counter()
        if self._names:
            _counts["phase_seconds", self._names[-1]] += now - self._since
        self._since = now

    def enter(self, name: Phase) -> None:
        """Begins a phase within the others."""
        self.credit()
        self._names.append(name)

    def leave(self) -> bool:
        """Ends the innermost phase; returns whether there is none left."""
        self.credit()
        self._names.pop()
        return not self._names


_lock = threading.Lock()
_counts: dict[tuple[Counted, str], float] = defaultdict(float)
_phases: dict[int, _Phases] = {}


def count(what: Counted, label: str, amount: float) -> None:
    """Adds to a count.

    Args:
        what: What is counted.
        label: By what it is told apart.
        amount: How much of it came; not negative.
    """
    with _lock:
        _counts[what, label] += amount


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Counts the seconds of a block, or of each call of a function that it decorates."""
    thread = threading.get_ident()
    with _lock:
        of_thread = _phases.setdefault(thread, _Phases())
        of_thread.enter(name)
    try:
        yield
    finally:
        with _lock:
            if of_thread.leave():
                del _phases[thread]


def counts() -> dict[tuple[Counted, str], float]:
    """Returns all counts, those of phases that are not over included."""
    with _lock:
        for of_thread in _phases.values():
            of_thread.credit()
        return dict(_counts)
