"""From a study of many checkpoints to cells that are named, and to the end of their schedule."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.limits import Figure, alone, memory

_CELLS = (25_000, 100_000)
_CELLS_PER_CHECKPOINT = 4
_SLOTS = 64


@dataclass(frozen=True)
class _Spent:
    cells: int
    first_plan: float
    second_plan: float
    queued: float
    handled: float
    grown: float


def figures() -> list[Figure]:
    """Time and memory at two sizes, so that a cost that isn't linear shows."""
    found = []
    for cells in _CELLS:
        with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
            _write_suite(Path(folder), cells // _CELLS_PER_CHECKPOINT)
            spent = alone(_plan_and_schedule, folder)
        last = cells == _CELLS[-1]
        what = f"{spent.cells:,} cells"
        planned = spent.second_plan + spent.queued
        found += [
            Figure(f"{what}: planned, files hashed before", spent.second_plan, "s"),
            Figure(f"{what}: planned and queued", planned, "s", "≤ 10" if last else ""),
            Figure(f"{what}: the same per cell", planned / spent.cells * 1e6, "µs"),
            Figure(f"{what}: first plan, which hashes every file", spent.first_plan, "s"),
            Figure(f"{what}: all events of a run", spent.handled / spent.cells * 1e6, "µs/cell"),
            Figure(f"{what}: growth of memory", spent.grown, "GiB", "≤ 1" if last else ""),
        ]
    return found


def _write_suite(folder: Path, checkpoints: int) -> None:
    """Makes folders that pass for checkpoints: a plan reads hashes of weights, never weights."""
    (folder / "text.txt").write_text("one\n\ntwo")
    shared = {"config.json": "{}", "tokenizer.json": "{}"}
    for name, content in shared.items():
        (folder / name).write_text(content)
    for step in range(checkpoints):
        checkpoint = folder / "series" / f"step{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_text(f"weights of step {step}")
        for name in shared:
            os.link(folder / name, checkpoint / name)


def _plan_and_schedule(folder: str) -> _Spent:
    os.environ["EIGENTRACE_CACHE"] = f"{folder}/cache"
    from jobs.events import Finished, Started
    from jobs.spec import Study
    from orchestrator.messages import SlotOpened, Start, TaskEnded
    from orchestrator.plan import make_plan
    from orchestrator.schedule import Scheduler

    study = Study.model_validate(
        {
            "name": "large",
            "suites": [{"kind": "local", "name": "series", "path": f"{folder}/series"}],
            "datasets": {"words": {"kind": "local", "paths": [f"{folder}/text.txt"]}},
            "geometry": {"datasets": ["words"]},
            "head": {"unigram_dataset": "words"},
            "evals": {"loss": {"datasets": ["words"]}},
        }
    )
    before = memory("VmRSS")
    clock = time.perf_counter
    begin = clock()
    make_plan(study)
    hashed = clock()
    plan = make_plan(study)
    planned = clock()
    scheduler = Scheduler(plan.cells)
    queued = clock()
    events: list[SlotOpened | Started | Finished | TaskEnded] = [
        SlotOpened(f"slot{number}") for number in range(_SLOTS)
    ]
    while events:
        for action in scheduler.handle(events.pop(), 0.0):
            if isinstance(action, Start):
                events.append(TaskEnded(action.slot))
                for cell in action.cells:
                    events += [Finished(cell.id, ()), Started(cell.id)]
    handled = clock()
    if not scheduler.finished:
        raise RuntimeError("the schedule has no end")
    return _Spent(
        len(plan.cells),
        hashed - begin,
        planned - hashed,
        queued - planned,
        handled - queued,
        memory("VmHWM") - before,
    )
