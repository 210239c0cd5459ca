"""A tiny training and a probe for it."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from dashboards.query import load
from orchestrator.probe import GeometryProbe
from tests.conftest import Texts

DRAW: dict[str, Any] = {"sequences": 60, "sequence_length": 10}
SHARED: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "logging_strategy": "no",
}


def dropping_model(tiny_series: Path, **changed: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        tiny_series / "step100",
        dtype=torch.float32,
        attention_dropout=0.1,
        hidden_dropout=0.1,
        **changed,
    )


def probe_of(texts: Texts, results: Path, **changed: Any) -> GeometryProbe:
    given: dict[str, Any] = {"suite": "mine", "model": "tiny", "every": 2, **DRAW}
    return GeometryProbe(texts.txt, results=results, **given | changed)


def trainer_of(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    folder: Path,
    *callbacks: Any,
    model: Any = None,
    **changed: Any,
) -> Trainer:
    arguments: dict[str, Any] = {"save_strategy": "no", "max_steps": 5, "learning_rate": 1e-3}
    torch.manual_seed(0)
    return Trainer(
        model or dropping_model(tiny_series),
        TrainingArguments(str(folder), **SHARED | arguments | changed),
        train_dataset=[tokenizer(text) for text in texts.documents],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


def rows_of(table: str, results: Path) -> list[dict[str, Any]]:
    return list(load(table, results).to_pylist())


def steps_of(results: Path, table: str = "geometry") -> list[int]:
    return [row["step"] for row in rows_of(table, results)]


def padded_tokenizer(tiny_series: Path) -> Any:
    """The tokenizer of the tiny series, as trainers need it."""
    found = AutoTokenizer.from_pretrained(tiny_series / "step0")
    found.pad_token = found.eos_token
    return found
