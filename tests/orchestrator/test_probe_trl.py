"""The probe in TRL's trainers, with LoRA and without."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from jobs.text_spec import Sequences
from tests import references
from tests.conftest import Texts
from tests.orchestrator.probed import (
    DRAW,
    SHARED,
    padded_tokenizer,
    probe_of,
    rows_of,
)
from tests.workers.models import silent
from workers.features import forward_pass
from workers.sequences import cut_sequences


@pytest.fixture
def tokenizer(tiny_series: Path) -> Any:
    return padded_tokenizer(tiny_series)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["sft", "dpo", "rlvr"])
def test_it_works_in_trl(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    kind: str,
    lora: bool,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_series / "step100", dtype=torch.float32)
    probe = probe_of(texts, results, model=None, overlaps="never")
    shared: dict[str, Any] = {**SHARED, "max_steps": 3, "save_strategy": "no", "bf16": False}
    adapter = LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    given: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": adapter if lora else None,
        "callbacks": [probe],
    }
    shared |= {"learning_rate": 0.05 if lora else 1e-3}
    documents = list(texts.documents[:16])
    match kind:
        case "sft":
            data = datasets.Dataset.from_dict({"text": documents})
            trainer: Any = SFTTrainer(
                args=SFTConfig(str(tmp_path / "run"), max_length=32, **shared),
                train_dataset=data,
                **given,
            )
        case "dpo":
            data = datasets.Dataset.from_dict(
                {"prompt": ["a"] * 16, "chosen": documents, "rejected": documents[::-1]}
            )
            trainer = DPOTrainer(
                args=DPOConfig(str(tmp_path / "run"), max_length=32, **shared),
                train_dataset=data,
                **given,
            )
        case _:
            data = datasets.Dataset.from_dict({"prompt": documents})
            trainer = GRPOTrainer(
                args=GRPOConfig(
                    str(tmp_path / "run"), num_generations=2, max_completion_length=4, **shared
                ),
                reward_funcs=lambda completions, **_: [float(len(set(c))) for c in completions],
                train_dataset=data,
                **given,
            )
    trainer.train()
    geometry, head = rows_of("geometry", results), rows_of("head", results)
    assert not rows_of("failures", results)
    assert [row["step"] for row in geometry] == [row["step"] for row in head] == [0, 2, 3]
    assert {row["stage"] for row in geometry} == {kind}
    assert {row["model"] for row in geometry} == {"step100"}
    assert all(row["overlap_mean"] is None for row in head)
    model = (trainer.model.merge_and_unload() if lora else trainer.model).eval()
    norms = model.get_output_embeddings().weight[: len(tokenizer)].double().norm(dim=1)
    np.testing.assert_allclose(head[-1]["token_norms"], norms.detach(), rtol=1e-5)
    documents = [text for text in texts.documents if text.strip()]
    sequences = cut_sequences(documents, Sequences(**DRAW), tokenizer, silent)
    features = forward_pass(
        model, sequences, batch_size=32, layers=False, loss=False, report=silent
    ).features
    values = references.eigenvalues(features.double().numpy())
    assert geometry[-1]["rankme"] == pytest.approx(references.rankme(values), rel=1e-4)
    assert geometry[0]["rankme"] != pytest.approx(geometry[-1]["rankme"], rel=1e-4)
