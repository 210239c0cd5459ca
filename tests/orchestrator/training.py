"""Cells that train in name: like those that sleep, break and hang, but run as trials."""

from collections.abc import Generator

from jobs.cells import Cell
from jobs.events import Alive, Event
from jobs.finetune_work import FinetuneWork, PairFiles, Recipe
from jobs.sources import TextFiles
from tests.orchestrator import sleeping
from tests.orchestrator.sleeping import cell
from workers.artifacts import Files
from workers.telling import Task

__all__ = ["cell", "training", "body"]

_TEXT = TextFiles((("/pairs.jsonl", "0" * 64),), "prompt", "\n\n")


def training(deed: str, number: int = 0, group: int = 0) -> Cell:
    """Returns a cell that does `deed` once it is run as a trial."""
    pairs = PairFiles(deed, _TEXT, _TEXT, "prompt", "answer")
    recipe = Recipe(
        "lora", "none", None, 1, ("attention",), None, 1.0, 0.0, 1, 1, 1e-3, 0.0, number, 1,
        "float32",
    )
    work = FinetuneWork(pairs, recipe, None, None, 8, "", None, None, 0)
    like = sleeping.cell("sleep", number, group)
    return Cell(work, like.needs, like.checkpoint)


def body(task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    yield from sleeping.body(task, files)
