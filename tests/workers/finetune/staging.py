"""Small stages of post-training, and the problems of a toy task."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DivergedError
from jobs.frozen import DType
from jobs.posttrain_spec import TrainingStage
from jobs.posttrain_work import FileRecords, PosttrainWork, Records
from jobs.sources import TextFiles
from tests.workers.models import silent
from workers.artifacts import SharedFiles
from workers.finetune.stages import run_stage, train
from workers.grade import Grade, Grader
from workers.measure import Rows

WORDS = ("river", "stone", "bird", "light", "winter", "road", "house", "small")
RECORDS: dict[str, list[dict[str, Any]]] = {
    "sft": [
        {"prompt": f"the {a} and the", "completion": f" {b} moves"} for a in WORDS for b in WORDS
    ],
    "dpo": [
        {"prompt": f"the {a} and the", "chosen": f" {b}", "rejected": f" {a} {b}"}
        for a in WORDS
        for b in WORDS[:4]
    ],
    "rlvr": [{"problem": f"the {a} and the {b}", "answer": "e"} for a in WORDS for b in WORDS],
}
PLAIN: dict[str, Any] = {
    "data": "data",
    "steps": 4,
    "save_steps": (2,),
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup_share": 0.0,
    "completions": 4,
    "completion_tokens": 3,
}


def records_in(folder: Path, records: Sequence[dict[str, Any]]) -> FileRecords:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileRecords("data", TextFiles(((str(path), sha256),), "", ""), None)


def stage_work(
    records: Records,
    method: str,
    seed: int = 0,
    dtype: DType = "float32",
    processes: int = 1,
    **changes: Any,
) -> PosttrainWork:
    training = TrainingStage(method=method, **{**PLAIN, **changes})
    return PosttrainWork(training, records, seed, 1, dtype, processes)


def run(
    work: PosttrainWork,
    checkpoint: Path,
    folder: Path,
    report: Callable[[int, int], None] = silent,
) -> Rows:
    folder.mkdir(parents=True, exist_ok=True)
    files = SharedFiles(folder / "results")
    return run_stage(work, checkpoint, checkpoint, files, folder, "cpu", report)


@contextmanager
def toy_grader(_records: Records, _time_limit: float) -> Iterator[Grader]:
    """An answer is right if it holds the letters of the reference."""

    def grade(
        problems: Sequence[str], references: Sequence[str], texts: Sequence[str]
    ) -> list[Grade]:
        assert len(references) == len(texts) == len(problems)
        return [Grade(r, r in t, True) for r, t in zip(references, texts, strict=True)]

    yield grade


def train_with_toy_grader(*arguments: Any, **options: Any) -> Rows:
    """What a process of a group runs where `toy_grader` judges: patches don't reach it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.finetune.stages.grader", toy_grader)
        return train(*arguments, **options)


def train_all(given: Sequence[tuple[Any, ...]], *others: Any) -> list[Rows | DivergedError]:
    """Trains several stages, one after the other, in the same processes."""
    found: list[Rows | DivergedError] = []
    for each in given:
        try:
            found.append(train_with_toy_grader(*each, *others))
        except DivergedError as error:
            found.append(error)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
