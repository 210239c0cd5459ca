"""A task of ten pairs, and the work of fine-tuning on it or on another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.finetune_work import FinetuneWork, PairFiles, Recipe
from tests.workers.drawing import files
from tests.workers.test_harness import records_file
from workers.artifacts import SharedFiles
from workers.finetune.examples import TokenPairs, tokenized

CONTEXT = 128
RECIPE = Recipe(
    *("lora", "none", None, 8, ("attention",), None, 16.0, 0.05),
    *(3, 16, 2e-4, 0.01, 0, 1, "float32"),
)
PAIRS = [{"prompt": f"Say {n}", "answer": f"{n}!"} for n in range(10)]


def of_pairs(folder: Path, training: list[Any] = PAIRS, validation: list[Any] = PAIRS) -> PairFiles:
    one, two = (
        files(records_file(folder, records, name))
        for records, name in ((training, "training.jsonl"), (validation, "validation.jsonl"))
    )
    return PairFiles("mine", one, two, "prompt", "answer")


def work_of(examples: Any, **changes: Any) -> FinetuneWork:
    whole = FinetuneWork(examples, RECIPE, None, None, 512, "{prompt}", None, None, 256)
    return replace(whole, **changes)


def tokens_of(
    examples: Any, tokenizer: Any, folder: Path, context: int = CONTEXT, **changes: Any
) -> TokenPairs:
    return tokenized(work_of(examples, **changes), tokenizer, SharedFiles(folder), context)
