"""Puts a run through a list of faults, and starts it again whenever it ends before its work."""

import random
import time
from collections.abc import Sequence

from orchestrator.run import main
from tests.chaos.faults import CHOOSY, Fault, is_possible
from tests.chaos.world import World

_PATIENCE_SECONDS = 40.0
_PAUSE_SECONDS = 0.3
_AGAIN_SECONDS = 2.0
_BETWEEN_SECONDS = 6.0
_MENDED = ("infrastructure", "memory")
"""Causes of failures that an operator clears with `retry`, once faults are over."""


def endure(
    world: World, faults: Sequence[Fault], seed: int, cells: float, seconds: float
) -> list[tuple[str, str]]:
    """Runs the study of a world to its end, while all faults befall it.

    They are spread over the first cells: each is due when its share of them is done, or when there
    was no headway for long. One that finds nothing to befall lets others go first. Where the work
    ends before the faults do, it is begun anew in another place.

    Args:
        world: The world.
        faults: The faults.
        seed: Seed of their order, and of whom they befall.
        cells: After how many cells the last fault is due.
        seconds: How long all may take.

    Returns:
        Name of each fault that befell the run, and what it did.
    """
    chance = random.Random(seed)
    waiting = [fault for fault in faults if is_possible(fault, world)]
    chance.shuffle(waiting)
    befallen: list[tuple[str, str]] = []
    began = time.monotonic()
    deadline = began + seconds
    done, advanced, struck = 0, time.monotonic(), 0.0
    world.start_driver()
    while True:
        now = time.monotonic()
        assert now < deadline, f"no end after {befallen}\n{_last_words(world)}"
        if world.drivers[-1].poll() is not None:
            if _is_over(world):
                world.finished.append(world.results)
                if not waiting:
                    return befallen
                done = 0
            time.sleep(_AGAIN_SECONDS)
            world.start_driver()
        if (now_done := world.done()) > done:
            done, advanced = now_done, now
        due = done * len(faults) > len(befallen) * cells
        late = now - advanced > _PATIENCE_SECONDS
        ready = [
            fault
            for fault in waiting
            if due or late or (fault in CHOOSY and now - struck > _BETWEEN_SECONDS)
        ]
        for fault in sorted(ready, key=_choosiest_first):
            if (did := fault(world, chance)) is not None:
                waiting.remove(fault)
                befallen.append((fault.__name__, f"{did}, after {now - began:.0f} s"))
                advanced = struck = time.monotonic()
                break
        time.sleep(_PAUSE_SECONDS)


def _choosiest_first(fault: Fault) -> int:
    return CHOOSY.index(fault) if fault in CHOOSY else len(CHOOSY)


def _is_over(world: World) -> bool:
    """Tells whether all is done but what failed for good; else clears what faults have failed."""
    verdict = world.verdict_of(world.drivers[-1])
    if verdict is None or "done" not in verdict or verdict["todo"]:
        return False
    if not any(failure["cause"] in _MENDED for failure in verdict.get("failures", ())):
        return True
    for cause in _MENDED:
        assert main(["retry", "--results", world.results, "--cause", cause]) == 0
    return False


def _last_words(world: World) -> str:
    return "\n".join(world.log_of(driver)[-500:] for driver in world.drivers[-3:])
