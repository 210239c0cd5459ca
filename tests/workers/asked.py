"""Small tasks of the three kinds that lm-eval has, with records of the tests' own words."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.questions import HarnessQuestions
from jobs.sources import TextFiles
from tests.conftest import Texts

KINDS = ("sciq", "lambada_openai", "triviaqa")
_ENDS = ("bird", "quiet water", "the old house sings", "door")


def questions_of(
    folder: Path, task: str, records: Sequence[dict[str, Any]], limit: int | None = None
) -> HarnessQuestions:
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    data = TextFiles(((str(path), sha256),), "text", "")
    return HarnessQuestions("quiz", task, None, data, 0, limit)


def records_of(task: str, texts: Texts, count: int = 14) -> list[dict[str, Any]]:
    """Records whose prompts are documents of the tests' texts, cut where an answer follows."""
    lines = [document.rstrip(".").split() for document in texts.documents if len(document) > 90]
    lines = lines[:count]
    if task == "lambada_openai":
        return [{"text": " ".join(line[: 3 + place % 4])} for place, line in enumerate(lines)]
    if task == "triviaqa":
        return [
            {"question": " ".join(line[:9]), "answer": {"aliases": [" ".join(line[9:11]), "door"]}}
            for line in lines
        ]
    return [
        {
            "support": " ".join(line[:8]),
            "question": " ".join(line[8:12]),
            "correct_answer": _ENDS[place % 4],
            **{f"distractor{i}": _ENDS[(place + i) % 4] for i in (1, 2, 3)},
        }
        for place, line in enumerate(lines)
    ]


def prompt_and_answer(task: str, record: dict[str, Any]) -> tuple[str, str]:
    """What lm-eval's templates make of a record, and the answer that is right."""
    if task == "lambada_openai":
        prompt, _, word = record["text"].rpartition(" ")
        return prompt, f" {word}"
    if task == "triviaqa":
        return f"Question: {record['question']}?\nAnswer:", f" {record['answer']['aliases'][0]}"
    return (
        f"{record['support']}\nQuestion: {record['question']}\nAnswer:",
        f" {record['correct_answer']}",
    )
