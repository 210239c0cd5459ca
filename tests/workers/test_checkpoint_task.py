"""Everything that is asked of a checkpoint comes from one load of it, whatever fails beside it."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.capability_spec import Ablation, Evals, Generate, LocalIndex, Loss, Memorization
from jobs.cells import Cell
from jobs.errors import DataError
from jobs.events import Failed, Finished
from jobs.spec import Geometry, Study
from jobs.task_spec import HarnessTask
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.workers.tasks import kinds, raising, run_cells, small_study
from workers import checkpoint_task
from workers.hub import load_checkpoint

QUESTIONS = 12


@pytest.fixture
def study(tmp_path: Path, tiny_series: Path, texts: Texts) -> Study:
    """Every measurement there is."""
    words = texts.documents[0].rstrip(".").split()
    records = [
        {
            "support": texts.documents[place],
            "question": f"what comes after {words[place % len(words)]}?",
            "distractor1": "this",
            "distractor2": "that",
            "distractor3": "other",
            "correct_answer": words[(place + 1) % len(words)],
        }
        for place in range(QUESTIONS)
    ]
    data = tmp_path / "sciq.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    return small_study(
        tiny_series,
        texts,
        tasks={"sciq": HarnessTask(data=(str(data),))},
        geometry=Geometry(
            datasets=("one", "two"), layers="all", sample_counts=(20,), sequence_lengths=(8,)
        ),
        evals=Evals(loss=Loss(datasets=("one", "two")), tasks=("sciq",)),
        ablation=Ablation(tasks=("sciq",), dataset="one", ranks=(0, 2, 32)),
        memorization=Memorization(tasks=("sciq",), corpus=LocalIndex(paths=(str(texts.txt),))),
        generate=Generate(new_tokens=4),
    )


def _supplied(study: Study, results: Path) -> list[list[Cell]]:
    """Makes what checkpoints share; returns the cells of each checkpoint."""
    groups: dict[str, list[Cell]] = {}
    for cell in make_plan(study).cells:
        if cell.checkpoint is not None:
            groups.setdefault(cell.group, []).append(cell)
        elif cell.work.kind != "audit":
            assert isinstance(run_cells([cell], results)[-1], Finished)
    return list(groups.values())


@pytest.mark.slow
def test_one_load_serves_every_measurement_of_a_checkpoint(
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: Callable[[str, str], float],
) -> None:
    began = time.perf_counter()
    groups = _supplied(study, tmp_path)
    loads: list[Path] = []

    def loading(*args: Any) -> Any:
        loads.append(args[0])
        return load_checkpoint(*args)

    monkeypatch.setattr(checkpoint_task, "load_checkpoint", loading)
    monkeypatch.setattr("workers.hub.load_checkpoint", raising(AssertionError("a second way")))
    for cells in groups:
        events = run_cells(cells, tmp_path)
        assert kinds(events, Failed) == []
        finished = {event.cell_id: dict(event.tables) for event in kinds(events, Finished)}
        assert set(finished) == {cell.id for cell in cells}
        assert Counter(cell.work.kind for cell in cells) == {
            "checkpoint": 1,
            "head": 1,
            "geometry": 2,
            "loss": 2,
            "eval": 1,
            "ablation": 1,
            "memorization": 1,
            "generate": 1,
        }
        for cell in cells:
            # Side tables first, the kind's own last: an interrupted write is never taken for done.
            assert list(finished[cell.id])[-1] == cell.work.table
        tables = {name for found in finished.values() for name in found}
        assert tables >= {"influences", "sweeps", "outcomes", "likelihoods", "generations"}
        (outcomes,) = (found["outcomes"] for found in finished.values() if "outcomes" in found)
        assert outcomes.num_rows == QUESTIONS
    assert len(loads) == len(groups) == 3
    assert len(set(loads)) == 3
    parts = ("make", "fetch", "load", "forward", "fit")
    seconds = [counted("phase_seconds", part) for part in parts]
    assert min(seconds) > 0
    assert sum(seconds) <= time.perf_counter() - began


@pytest.mark.slow
def test_a_task_that_cannot_be_asked_costs_no_other_cell(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = _supplied(study, tmp_path)[0]
    monkeypatch.setattr("workers.evaluate.eval_rows", raising(DataError("no field", "mend it")))
    events = run_cells(cells, tmp_path)
    (failed,) = kinds(events, Failed)
    assert (failed.cause, failed.message) == ("data", "no field")
    assert len(kinds(events, Finished)) == len(cells) - 1
