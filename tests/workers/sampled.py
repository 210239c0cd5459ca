"""Cells that sample from tiny checkpoints, and what they gave."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.cells import Cell, Checkpoint
from jobs.events import Event, Failed, Finished
from jobs.posttrain_work import FileRecords, PassKWork, Records, SampleWork, Sampling
from jobs.sources import Folder, TextFiles
from tests.workers.tasks import kinds, run_cells

PLAIN = Sampling(4, 1.0, 1.0, 6, 0, "transformers", 1, 5.0, "float32")
WORDS = ("the river", "a stone", "old house and", "winter", "bird sings over the hill", "door")


def records_of(folder: Path, questions: Sequence[str] = WORDS, limit: int | None = None) -> Records:
    path = folder / "problems.jsonl"
    lines = [json.dumps({"problem": q, "answer": n}) for n, q in enumerate(questions)]
    path.write_text("\n".join(lines))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileRecords("words", TextFiles(((str(path), sha256),), "", ""), limit)


def checkpoint_at(folder: Path) -> Checkpoint:
    source = Folder(str(folder), (("model.safetensors", folder.name),))
    return Checkpoint("tiny", "tiny", folder.name, None, None, "pretrain", source, source)


def sample_cell(
    folder: Path, records: Records, first: int = 0, count: int = 6, **changes: Any
) -> Cell:
    return Cell(
        SampleWork(records, first, count, replace(PLAIN, **changes)), (), checkpoint_at(folder)
    )


def passk_cell(cells: Sequence[Cell], k: tuple[int, ...] = (1, 2, 4)) -> Cell:
    ids = tuple(cell.id for cell in cells)
    return Cell(PassKWork("words", ids, k), ids, cells[0].checkpoint)


def rows_of(cells: Sequence[Cell], results: Path, table: str = "samples") -> list[dict[str, Any]]:
    """The rows of a table, none of the cells having failed."""
    return table_rows(run_cells(cells, results), table)


def table_rows(events: Sequence[Event], table: str = "samples") -> list[dict[str, Any]]:
    assert not kinds(events, Failed), kinds(events, Failed)[0].traceback
    return [
        row
        for event in kinds(events, Finished)
        for name, rows in event.tables
        if name == table
        for row in rows.to_pylist()
    ]
