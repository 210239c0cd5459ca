"""Two trials side by side, beside one after the other.

A worker runs its trials one after another, each on the threads that its recipe fixes (one, unless
told): what packs them is that there are as many workers as cores. So this is two workers of one
thread each, which is how two trials of a study run on two cores.
"""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from benchmarks.trials import STEPS, Trial, make_trial

_held: list[Trial] = []


def figures() -> list[Figure]:
    """Ratio of the time that two trials take in turn to that side by side."""
    with (
        TemporaryDirectory(prefix="eigentrace-bench-") as folder,
        _worker() as first,
        _worker() as second,
    ):
        first.submit(_prepare, f"{folder}/first").result()
        shutil.copytree(f"{folder}/first", f"{folder}/second")
        second.submit(_prepare, f"{folder}/second").result()

        def together() -> None:
            for told in [worker.submit(_run) for worker in (first, second)]:
                told.result()

        def in_turn() -> None:
            for worker in (first, second):
                worker.submit(_run).result()

        what = (
            f"two trials of {STEPS} steps in two workers of one thread, against one after another"
        )
        return beside([Sides(what, together, in_turn, "> 1")])


def _worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _prepare(folder: str) -> None:
    _held.append(make_trial(Path(folder)))
    _run()


def _run() -> None:
    _held[0].run()
