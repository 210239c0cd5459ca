"""Configs held against weights: what fits is let through, whatever the architecture."""

import json
from pathlib import Path

import pytest
import transformers

from jobs.errors import DataError
from tests.workers.models import ARCHITECTURES, SCALED_LOGITS, build
from workers.architecture import check_sizes
from workers.weights import StoredWeights, read_weights


@pytest.mark.parametrize("name", sorted({**ARCHITECTURES, **SCALED_LOGITS}))
def test_models_of_every_kind_fit_their_own_weights(tmp_path: Path, name: str) -> None:
    build({**ARCHITECTURES, **SCALED_LOGITS}[name]).save_pretrained(tmp_path)
    check_sizes(tmp_path, read_weights(tmp_path))


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50_000,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    check_sizes(tmp_path, read_weights(tmp_path))


def _weights(*shapes: tuple[int, ...]) -> StoredWeights:
    tensors = tuple((f"t{n}", shape) for n, shape in enumerate(shapes))
    return StoredWeights("0" * 64, "float32", 0, (), tensors)


@pytest.mark.parametrize("nested", [False, True])
def test_blocks_without_tensors_are_refused_before_any_is_made(
    tmp_path: Path, nested: bool
) -> None:
    depth = {"num_hidden_layers": 10**12}
    config = {"model_type": "qwen2", **({"text_config": depth} if nested else depth)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"1000000000000 blocks, and there are 2 tensors") as told:
        check_sizes(tmp_path, _weights((3,), (4, 5)))
    assert told.value.remedy


def test_a_model_far_larger_than_its_weights_is_refused(tmp_path: Path) -> None:
    build(ARCHITECTURES["llama"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 10**9}))
    with pytest.raises(DataError, match=r"parameters, and the weights are [\d,]+ numbers"):
        check_sizes(tmp_path, read_weights(tmp_path))
