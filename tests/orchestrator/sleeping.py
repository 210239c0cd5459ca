"""Cells that sleep, break and hang on purpose: each does what the name of its dataset says."""

import ctypes
import math
import os
import signal
import time
from collections.abc import Generator, Iterator

from jobs.cells import Cell
from jobs.events import Alive, Event, Finished, Progress, Started
from jobs.finetune_work import FinetuneWork, PairFiles, Recipe
from jobs.posttrain_work import FileRecords, SampleWork, Sampling
from jobs.records import rows_table
from jobs.sources import TextFiles
from jobs.work import LossWork
from tests.orchestrator.fake_cells import measuring
from workers.artifacts import Files
from workers.telling import Task

ONCE = " once"
"""Ends the name of a deed that a cell does the first time alone; then it sleeps."""

_PAIRS = TextFiles((("/pairs.jsonl", "0" * 64),), "prompt", "\n\n")
_MOST_HOGGED_MIB = 6 * 1024


def cell(deed: str, number: int = 0, group: int = 0) -> Cell:
    """Returns a cell of a checkpoint that does `deed` once it is run."""
    like = measuring(number, group)
    return Cell(LossWork(deed, str(number), "float32"), like.needs, like.checkpoint)


def training(deed: str, number: int = 0, group: int = 0) -> Cell:
    """Returns a cell that trains, in name, and does `deed`; it is run with those of its group."""
    like = measuring(number, group)
    examples = PairFiles(deed, _PAIRS, _PAIRS, "prompt", "answer")
    recipe = Recipe(
        method="lora",
        intervention="none",
        clip=None,
        rank=number + 1,
        targets=("attention",),
        groups=None,
        alpha=1.0,
        dropout=0.0,
        epochs=1,
        batch_size=1,
        learning_rate=1e-3,
        weight_decay=0.0,
        seed=0,
        threads=1,
        dtype="float32",
    )
    work = FinetuneWork(examples, recipe, None, None, 8, "", None, None, 0)
    return Cell(work, like.needs, like.checkpoint)


def sampling(deed: str, number: int = 0, group: int = 0) -> Cell:
    """Returns a cell that samples, in name, and does `deed`; it is run with those of its group."""
    like = measuring(number, group)
    how = Sampling(1, 1.0, 1.0, 1, 0, "vllm", 1, 1.0, "float32")
    work = SampleWork(FileRecords(deed, _PAIRS, None), number, 1, how)
    return Cell(work, like.needs, like.checkpoint)


def deed_of(found: Cell) -> str:
    """Returns what a cell does."""
    if isinstance(found.work, FinetuneWork):
        return found.work.examples.name
    if isinstance(found.work, SampleWork):
        return found.work.records.name
    assert isinstance(found.work, LossWork)
    return found.work.dataset


def body(task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    """Runs a task of such cells; each that survives its deed finishes with one row."""
    for found in task.cells:
        yield Started(found.id)
        deed = deed_of(found)
        if deed.endswith(ONCE):
            deed = deed.removesuffix(ONCE) if _first_time(found, files) else "sleep"
        yield from _do(deed, found)
        row = {"task": deed, "metric": "loss", "value": 0.5, "n": os.getpid()}
        yield Finished(found.id, (("evals", rows_table("evals", [row])),), {"seconds": 0.1})


def _first_time(found: Cell, files: Files) -> bool:
    files.work.mkdir(parents=True, exist_ok=True)
    try:
        (files.work / f"{found.id}.done").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _do(deed: str, found: Cell) -> Iterator[Event | Alive]:
    match deed:
        case "sleep":
            time.sleep(0.05 + int(found.id[0], 16) / 100)
            return
        case "nothing":
            return
    # What a worker has said leaves it in a thread of Ray's, which a sudden end would cut short.
    time.sleep(0.3)
    match deed:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)  # In this thread: a signal from without would leave it going on.
        case "exit":
            os._exit(3)
        case "leave":
            raise SystemExit(3)
        case "raise":
            raise ValueError("broken on purpose")
        case "memory":
            raise MemoryError("full on purpose")
        case "hog":
            _hog()
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            yield from _alive_for(math.inf)
        case "linger":
            yield from _alive_for(60)
        case "dawdle":
            yield from _alive_for(4)
        case "chatter":
            for number in range(1000):
                yield Progress(found.id, number, 1000)


def _alive_for(seconds: float) -> Iterator[Alive]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield Alive()
        time.sleep(0.2)


def _hog() -> None:
    """Fills memory until somebody minds."""
    held = []
    for _ in range(0, _MOST_HOGGED_MIB, 64):
        held.append(b"x" * (64 * 2**20))
        time.sleep(0.02)
    time.sleep(30)
    raise RuntimeError(f"nobody minded {len(held) * 64} MiB")
