"""What a probe takes of the training that it measures."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.limits import Figure, median_of
from orchestrator.probe import GeometryProbe

_VOCABULARY, _LENGTH, _BATCH = 2048, 64, 16
_STEPS, _EVERY = 250, 50
_PROBED = (50, 100, 150, 200)
"""Steps in the middle of the training; at its ends the overlaps are measured too."""


class _Clock(TrainerCallback):
    """Notes when it is called; one before the probe and one after it tell what it takes."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.times[state.global_step] = time.perf_counter()


def figures() -> list[Figure]:
    """What a probe every 50 steps takes of the training's time.

    The model and the batch are those of the fine-tuning of a pico model: GPT-NeoX of width 128,
    4 layers, 16 sequences of 64 tokens. Both times are taken in the same training, since those of
    two trainings differ by more than what is looked for.
    """
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        before, after = _train(Path(folder))
    probed = [after.times[step] - before.times[step] for step in _PROBED]
    steps = [
        before.times[step] - after.times[step - _EVERY]
        for step in range(2 * _EVERY, _STEPS + 1, _EVERY)
    ]
    usual = statistics.median(steps)
    shares = [100 * seconds / usual for seconds in probed]
    return [
        median_of(f"{_EVERY} steps of training", steps, "s"),
        median_of("a measurement", [1000 * seconds for seconds in probed], "ms"),
        median_of(f"its share of the time of {_EVERY} steps", shares, "%", "≤ 2"),
    ]


def _train(root: Path) -> tuple[_Clock, _Clock]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, _VOCABULARY, (_STEPS * _BATCH, _LENGTH), generator=generator).tolist()
    data: Any = [{"input_ids": row, "labels": row} for row in ids]
    words = {f"w{number}": number for number in range(_VOCABULARY)}
    splitter = Tokenizer(models.WordLevel(words, unk_token="w0"))
    splitter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=splitter, eos_token="w1", pad_token="w1")
    texts = [" ".join(f"w{token}" for token in row) for row in ids[:256]]
    config = GPTNeoXConfig(
        vocab_size=_VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=_LENGTH,
    )
    arguments = TrainingArguments(
        str(root / "run"),
        per_device_train_batch_size=_BATCH,
        max_steps=_STEPS,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    torch.manual_seed(0)
    before, after = _Clock(), _Clock()
    probe = GeometryProbe(texts, results=root / "results", suite="bench", every=_EVERY)
    trainer = Trainer(
        GPTNeoXForCausalLM(config),
        arguments,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[before, probe, after],
    )
    trainer.train()
    return before, after
