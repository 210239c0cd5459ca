"""Cells of mutated files, run as a driver would run them, and how they end."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.capability_spec import Evals, Loss
from jobs.cells import Cell
from jobs.events import Failed, Finished
from jobs.spec import Geometry, Head, LocalSuite, Study
from jobs.text_spec import LocalText
from orchestrator.plan import Plan
from tests.fuzz.sandbox import Sandbox
from workers.artifacts import SharedFiles
from workers.hub import load_checkpoint
from workers.run import run_task
from workers.telling import Task, reporting_failure
from workers.weights import weight_files

SEQUENCES, LENGTH = 40, 24

Tables = dict[str, str]
"""Rows by table, as JSON."""


@dataclass(frozen=True)
class Ended:
    """How cells ended.

    Attributes:
        tables: Rows of those that finished.
        failures: Those that failed.
    """

    tables: Tables
    failures: tuple[Failed, ...]


def study_of(checkpoint: Path, text: Path, **changes: Any) -> Study:
    """Returns a study of one checkpoint on one text."""
    words = LocalText(
        paths=(str(text),), sequences=SEQUENCES, sequence_length=LENGTH, minimum_length=2
    )
    study = Study(
        name="fuzz",
        suites=(LocalSuite(name="series", path=str(checkpoint)),),
        datasets={"words": words},
        geometry=Geometry(datasets=("words",)),
        head=Head(unigram_dataset="words", extreme_tokens=3),
        evals=Evals(loss=Loss(datasets=("words",))),
    )
    return study.model_copy(update=changes)


def run_plan(plan: Plan, sandbox: Sandbox) -> Ended:
    """Runs the cells of a plan as a driver would: those of a checkpoint together, at last."""
    alone = [cell for cell in plan.cells if cell.checkpoint is None]
    together = [cell for cell in plan.cells if cell.checkpoint is not None]
    tables: Tables = {}
    failures: list[Failed] = []
    for cells in (*([cell] for cell in alone), together):
        lost = {failure.cell_id for failure in failures}
        left = [cell for cell in cells if not lost.intersection(cell.needs)]
        if left:
            ended = run_cells(left, sandbox)
            tables |= ended.tables
            failures += ended.failures
    return Ended(tables, tuple(failures))


def read_all_the_same(checkpoint: Path, plan: Plan) -> Ended:
    """Reads weights that the audit has refused, since those of the hub are refused only so."""
    failures: list[Any] = []
    with reporting_failure(plan.cells[:1], failures.append):
        for file in weight_files(checkpoint):
            assert file.resolve().is_relative_to(checkpoint.resolve()), f"{file} lies beyond"
        load_checkpoint(checkpoint, checkpoint, "float32", "cpu")
    return Ended({}, tuple(failures))


def run_cells(cells: Iterable[Cell], sandbox: Sandbox) -> Ended:
    """Runs cells that belong together; every one of them must end."""
    cells = tuple(cells)
    tables: Tables = {}
    failures: list[Failed] = []
    left = {cell.id for cell in cells}

    def report(event: Any) -> None:
        if isinstance(event, Finished | Failed):
            left.remove(event.cell_id)
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, Finished):
            tables.update({name: json.dumps(rows.to_pylist()) for name, rows in event.tables})

    run_task(Task(cells, "cpu", 1, 16), SharedFiles(sandbox.writable[0]), report)
    assert not left, f"{len(left)} cells never ended"
    return Ended(tables, tuple(failures))
