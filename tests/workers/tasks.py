"""Tasks of a tiny study, and what they report."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jobs.capability_spec import Evals, Loss
from jobs.cells import Cell
from jobs.events import Alive, Event, Finished
from jobs.spec import Geometry, Head, LocalSuite, Study
from jobs.text_spec import LocalText
from jobs.work import SequencesWork
from orchestrator.plan import make_plan
from tests.conftest import Texts
from workers.artifacts import SharedFiles
from workers.run import run_task
from workers.telling import Task

M, BATCH = 40, 16


def small_study(series: Path, texts: Texts, **changes: Any) -> Study:
    dataset = LocalText(paths=(str(texts.txt),), sequences=M, sequence_length=24)
    second = LocalText(paths=(str(texts.jsonl),), sequences=M, sequence_length=16, mode="packed")
    return Study(
        name="test",
        suites=(LocalSuite(name="tiny", path=str(series)),),
        datasets={"one": dataset, "two": second},
        geometry=Geometry(datasets=("one", "two"), layers="all"),
        head=Head(unigram_dataset="one"),
        evals=Evals(loss=Loss(datasets=("one", "two"))),
    ).model_copy(update=changes)


def task_of(cells: Iterable[Cell]) -> Task:
    return Task(tuple(cells), "cpu", 1, BATCH)


def run_cells(cells: Iterable[Cell], results: Path) -> list[Event]:
    events: list[Event] = []
    run_task(task_of(cells), SharedFiles(results), events.append)
    return events


def prepare(study: Study, results: Path) -> list[list[Cell]]:
    """Draws the sequences; returns the cells of each checkpoint."""
    cells = make_plan(study).cells
    for cell in cells:
        if isinstance(cell.work, SequencesWork):
            assert isinstance(run_cells([cell], results)[-1], Finished)
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.checkpoint is not None:
            groups.setdefault(cell.group, []).append(cell)
    return list(groups.values())


def kinds(events: Iterable[Event | Alive], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise error

    return fail
