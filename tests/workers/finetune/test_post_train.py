"""A cell that post-trains: what it reports, and that its artifact is made once."""

from pathlib import Path
from typing import Any

import pytest

from jobs.cells import Cell
from jobs.events import Failed, Finished, Progress, Started
from tests.workers.finetune.staging import RECORDS, records_in, stage_work
from tests.workers.tasks import kinds, raising, run_cells
from workers.finetune import stages


def staged(cells: list[Cell], folder: Path, **changes: Any) -> Cell:
    work = stage_work(records_in(folder / "data", RECORDS["sft"]), "sft", **changes)
    return Cell(work, (), cells[0].checkpoint)


def test_a_stage_is_trained_once_and_its_rows_are_reported(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = staged(cells, tmp_path)
    events = run_cells([cell], tmp_path)
    assert isinstance(events[0], Started)
    assert [e.done for e in kinds(events, Progress)] == [1, 2, 3, 4]
    (table,) = events[-1].tables if isinstance(events[-1], Finished) else ()
    assert table[0] == "posttrain"
    assert table[1].column("training_step").to_pylist() == [1, 2, 3, 4]
    artifact = tmp_path / "artifacts" / cell.id
    assert {"step2", "step4", "rows.json"} < {path.name for path in artifact.iterdir()}
    assert not (artifact / "state").exists()
    monkeypatch.setattr(stages, "run_stage", raising(AssertionError("trained again")))
    again = run_cells([cell], tmp_path)
    assert isinstance(again[-1], Finished)
    assert again[-1].tables[0][1].equals(table[1])


def test_a_stage_that_fails_is_a_failure_of_its_cell(cells: list[Cell], tmp_path: Path) -> None:
    events = run_cells([staged(cells, tmp_path, learning_rate=1e30)], tmp_path)
    (failed,) = kinds(events, Failed)
    assert failed.cause == "diverged"
    assert "learning rate 1e+30" in failed.message
