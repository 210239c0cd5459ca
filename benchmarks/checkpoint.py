"""All measurements of a checkpoint beside a script that loads it for each of them.

Both measure the same: geometry of all layers, the head with its overlaps, SciQ's template on
records made up here, its ablation, and the correlation of answers' likelihoods with an ∞-gram
model. What is made once for all checkpoints (drawn text, the index, its look-ups) is made before,
and the script is given it for nothing. Ours also computes standard errors and hashes the weights.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks import serial_script
from benchmarks.features import TOKENS, pythia_70m_shape
from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from jobs.capability_work import MemorizationWork
from jobs.events import Event, Failed
from jobs.spec import Study
from jobs.work import GeometryWork
from orchestrator.plan import make_plan
from workers.artifacts import SharedFiles, whole
from workers.infinigram import load_answers
from workers.run import run_task
from workers.sequences import load_sequences
from workers.telling import Task

_COUNT, _LENGTH = 96, 128
_QUESTIONS, _WORDS = 20, 80
_RANKS = (10, 50)
_THREADS, _BATCH = 2, 16
_TASK = {
    "task": "asked",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{support.lstrip()}}\nQuestion: {{question}}\nAnswer:",
    "doc_to_target": 3,
    "doc_to_choice": "{{[distractor1, distractor2, distractor3, correct_answer]}}",
    "metric_list": [{"metric": "acc"}],
}
"""SciQ as lm-eval defines it."""


def figures(device: str) -> list[Figure]:
    """Ratio of the script's time to ours."""
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        return beside([_sides(Path(folder), device)])


def _sides(root: Path, device: str) -> Sides:
    model = root / "models" / "step1"
    _write_inputs(root, model)
    plan = make_plan(_study(root))
    files = SharedFiles(root / "results")
    measuring = tuple(cell for cell in plan.cells if cell.checkpoint is not None)
    for cell in plan.cells:
        if cell.checkpoint is None:
            run_task(Task((cell,), "cpu", _THREADS, _BATCH), files, _report)
    (text,) = (each.work.sequences for each in measuring if isinstance(each.work, GeometryWork))
    (answers,) = (
        each.work.answers for each in measuring if isinstance(each.work, MemorizationWork)
    )
    ids = load_sequences(whole(files, text)).ids.view(_COUNT, _LENGTH)
    requests = load_answers(whole(files, answers)).requests
    known = np.random.default_rng(0).random(len(requests)).tolist()
    task = _TASK | {"dataset_kwargs": {"data_files": {"test": str(root / "questions.jsonl")}}}

    def ours() -> None:
        run_task(Task(measuring, device, _THREADS, _BATCH), files, _report)

    def script() -> None:
        features = serial_script.geometry(model, ids, device)
        serial_script.head(model, TOKENS, device)
        serial_script.accuracy(model, task, device)
        serial_script.ablation(model, features, _RANKS, task, device)
        serial_script.memorization(model, requests, known, device)

    what = (
        f"all of a checkpoint of Pythia-70M's shape: {_COUNT} × {_LENGTH} tokens, "
        f"{_QUESTIONS} questions, {len(_RANKS)} ranks"
    )
    what += ", against a script that loads it for each"
    return Sides(what, ours, script, "≥ 3", rounds=2, warm=False)


def _study(root: Path) -> Study:
    questions = str(root / "questions.jsonl")
    return Study.model_validate(
        {
            "name": "checkpoint",
            "suites": [{"kind": "local", "name": "shape", "path": str(root / "models")}],
            "datasets": {
                "words": {
                    "kind": "local",
                    "paths": [str(root / "text.txt")],
                    "sequences": _COUNT,
                    "sequence_length": _LENGTH,
                }
            },
            "tasks": {"sciq": {"kind": "harness", "task": "sciq", "data": [questions]}},
            "geometry": {"datasets": ["words"], "layers": "all"},
            "head": {},
            "evals": {"tasks": ["sciq"]},
            "ablation": {"tasks": ["sciq"], "dataset": "words", "ranks": _RANKS},
            "memorization": {
                "tasks": ["sciq"],
                "corpus": {"kind": "local", "paths": [str(root / "text.txt")]},
            },
        }
    )


def _write_inputs(root: Path, model: Path) -> None:
    """Writes a checkpoint, a text and questions in words that its tokenizer knows."""
    pythia_70m_shape().save_pretrained(model)
    said = ["<end>", "Question:", "Answer:"]
    words = said + [f"w{number}" for number in range(TOKENS - len(said))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>"
    ).save_pretrained(model)
    drawn = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(words[n] for n in drawn.integers(len(said), TOKENS, length))

    (root / "text.txt").write_text("\n\n".join(text(2 * _LENGTH) for _ in range(2 * _COUNT)))
    fields = {"support": _WORDS, "question": 15, "correct_answer": 2}
    fields |= {f"distractor{number}": 2 for number in (1, 2, 3)}
    records: list[dict[str, Any]] = [
        {field: text(length) for field, length in fields.items()} for _ in range(_QUESTIONS)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (root / "questions.jsonl").write_text(lines)


def _report(event: Event) -> None:
    if isinstance(event, Failed):
        raise RuntimeError(event.message)
