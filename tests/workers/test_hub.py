"""What a checkpoint is once it is loaded."""

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.workers.models import ARCHITECTURES, SCALED_LOGITS, build
from workers.hub import LoadedCheckpoint, final_norm_gain, load_checkpoint

WEIGHTS = "model.safetensors"
EMBEDDING = "gpt_neox.embed_in.weight"


def _load(folder: Path, dtype: str = "float32") -> LoadedCheckpoint:
    return load_checkpoint(folder, folder, dtype, "cpu")


def test_a_checkpoint_is_what_transformers_loads(tiny_series: Path) -> None:
    folder = tiny_series / "step10"
    loaded = _load(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    head = model.get_output_embeddings().weight
    assert loaded.vocabulary_size == len(AutoTokenizer.from_pretrained(folder))
    assert len(head) == loaded.vocabulary_size + 2
    assert torch.equal(loaded.head, head[:-2])
    assert loaded.head.dtype == torch.float32
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, model.state_dict()[name])
        assert not parameter.requires_grad
    assert not loaded.model.training
    assert not loaded.tied
    assert loaded.stored_dtype == "float32"
    assert loaded.weight_bytes == (folder / WEIGHTS).stat().st_size
    assert len(loaded.weights_sha256) == 64


def test_every_checkpoint_has_a_hash_of_its_own(tiny_series: Path) -> None:
    hashes = {_load(tiny_series / f"step{step}").weights_sha256 for step in (0, 10, 100)}
    assert len(hashes) == 3


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads(tmp_path: Path, tiny_series: Path, tied: bool) -> None:
    model = build(ARCHITECTURES["llama"], vocab_size=400, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, tiny_series / "step0", "bfloat16", "cpu")
    assert loaded.tied is tied
    same = loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    assert same is tied
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("running", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16", "mixed"])
def test_the_head_is_measured_as_stored(copy_series: Path, stored: str, running: str) -> None:
    folder = copy_series / "step10"
    tensors = load_file(folder / WEIGHTS)
    kinds = {"mixed": [torch.float32, torch.bfloat16, torch.float16]}
    for i, name in enumerate(sorted(tensors)):
        chosen = kinds.get(stored) or [getattr(torch, stored)]
        tensors[name] = tensors[name].to(chosen[i % len(chosen)])
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    loaded = _load(folder, running)
    name = next(n for n in tensors if "embed_out" in n or "lm_head" in n)
    assert torch.equal(loaded.head, tensors[name][:-2].float())
    assert loaded.stored_dtype == ("bfloat16+float16+float32" if stored == "mixed" else stored)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, running)}


def test_the_rotary_frequencies_are_not_rounded(tiny_series: Path) -> None:
    folder = tiny_series / "step100"
    loaded = _load(folder, "bfloat16").model
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    theirs = dict(model.named_buffers())
    assert theirs
    for name, buffer in loaded.named_buffers():
        assert buffer.dtype == theirs[name].dtype
        assert torch.equal(buffer, theirs[name])
    ids = torch.arange(60)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("width", [24, 27])
@pytest.mark.parametrize("name", ARCHITECTURES | SCALED_LOGITS)
def test_the_final_norms_gain(name: str, width: int) -> None:
    architecture = (ARCHITECTURES | SCALED_LOGITS)[name]
    model = build(architecture, width)
    norm = functools.reduce(getattr, architecture.norm.split("."), model)
    before = norm.weight.clone()
    gain = final_norm_gain(model)
    assert gain.dtype == torch.float64
    torch.testing.assert_close(
        gain, architecture.gain(norm.weight.detach()).double(), rtol=1e-6, atol=1e-7
    )
    assert torch.equal(norm.weight, before)
    assert norm.weight.dtype == torch.float32


def test_a_model_without_a_final_norms_gain_has_ones() -> None:
    model = build(ARCHITECTURES["llama"])
    model.model.norm = torch.nn.Identity()
    assert torch.equal(final_norm_gain(model), torch.ones(24, dtype=torch.float64))
