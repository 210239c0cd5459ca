"""Three tasks of lm-eval on records of a few words, and ablated answers to them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jobs.capability_work import AblationWork
from jobs.questions import HarnessQuestions
from jobs.sources import TextFiles
from tests.conftest import Texts
from tests.workers.measured import SEQUENCES
from tests.workers.models import silent
from workers.ablate import ablation_rows
from workers.artifacts import SharedFiles
from workers.hub import LoadedCheckpoint

BATCH = 8


def questions(folder: Path, task: str, records: Sequence[dict[str, Any]]) -> HarnessQuestions:
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = TextFiles(((str(path), _sha256(path)),), "text", "")
    return HarnessQuestions("quiz", task, None, data, 0, None)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def quiz_records(texts: Texts) -> dict[str, list[dict[str, Any]]]:
    """Records of three tasks that differ in how lm-eval reads choices and answers."""
    words = [document.rstrip(".").split() for document in texts.documents if len(document) > 80]
    ends = ["bird", "quiet water", "the old house sings", "door"]
    return {
        "sciq": [
            {
                "support": " ".join(line[:8]),
                "question": " ".join(line[8:14]),
                "correct_answer": ends[place % 4],
                **{f"distractor{i}": ends[(place + i) % 4] for i in (1, 2, 3)},
            }
            for place, line in enumerate(words[:12])
        ],
        "arc_easy": [
            {
                "question": " ".join(line[:9]),
                "choices": {"text": ends[: 3 + place % 2], "label": list("ABCD")[: 3 + place % 2]},
                "answerKey": "ABC"[place % 3],
            }
            for place, line in enumerate(words[:10])
        ],
        "winogrande": [
            {
                "sentence": f"{' '.join(line[:4])} _ {' '.join(line[4:9])}",
                "option1": ends[place % 4],
                "option2": ends[(place + 1) % 4],
                "answer": str(1 + place % 2),
            }
            for place, line in enumerate(words[:10])
        ],
    }


@dataclass(frozen=True)
class Quiz:
    """Tasks on disk."""

    folder: Path
    tasks: dict[str, HarnessQuestions]

    def rows(
        self,
        checkpoint: LoadedCheckpoint,
        features: torch.Tensor,
        ranks: tuple[int, ...] = (),
        task: str = "sciq",
        **changes: Any,
    ) -> list[dict[str, Any]]:
        work = AblationWork("sample", "0" * 64, self.tasks[task], ranks, "keep", "float32")
        return ablation_rows(
            replace(work, **changes),
            checkpoint,
            SEQUENCES,
            features,
            SharedFiles(self.folder),
            BATCH,
            silent,
        )

    def written(self, task: str, records: Sequence[dict[str, Any]]) -> "Quiz":
        """The same with another task."""
        return replace(self, tasks=self.tasks | {task: questions(self.folder, task, records)})


def make_quiz(folder: Path, texts: Texts) -> Quiz:
    """All three tasks, written into a folder."""
    records = quiz_records(texts)
    return Quiz(folder, {task: questions(folder, task, given) for task, given in records.items()})
