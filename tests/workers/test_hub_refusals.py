"""What is refused, what is passed over, and what failures are told as."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from jobs.errors import DataError
from workers.hub import LoadedCheckpoint, is_out_of_memory, load_checkpoint

WEIGHTS = "model.safetensors"
EMBEDDING = "gpt_neox.embed_in.weight"


def _load(folder: Path, dtype: str = "float32") -> LoadedCheckpoint:
    return load_checkpoint(folder, folder, dtype, "cpu")


def _refused(folder: Path, *parts: str) -> None:
    """Asserts that a folder is refused by an error that names each part and a remedy."""
    with pytest.raises(DataError) as error:
        _load(folder)
    for part in parts:
        assert part in error.value.message
    assert error.value.cause == "data"
    assert error.value.remedy


def _rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in changes.items():
        tensors.pop(name)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _configure(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kept", [0.5, 0.99, 0.01, 0.0])
def test_truncated_weights_are_refused(copy_series: Path, kept: float) -> None:
    file = copy_series / "step0" / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    _refused(file.parent, str(file))


@pytest.mark.parametrize(
    "content", [b"not safetensors at all", pickle.dumps({"a": 1}), b"\xff" * 64]
)
def test_a_file_that_is_no_safetensors_file_is_refused(copy_series: Path, content: bytes) -> None:
    file = copy_series / "step0" / WEIGHTS
    file.write_bytes(content)
    _refused(file.parent, str(file))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(
    copy_series: Path, value: float, dtype: torch.dtype
) -> None:
    folder = copy_series / "step0"
    embedding = load_file(folder / WEIGHTS)[EMBEDDING].to(dtype)
    embedding[5, 3] = value
    _rewrite(folder, **{EMBEDDING: embedding})
    _refused(folder, EMBEDDING, WEIGHTS, "not finite")


def test_missing_tensors_are_refused(copy_series: Path) -> None:
    folder = copy_series / "step0"
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    _rewrite(folder, **{name: None})
    _refused(folder, name, "1 tensors are missing")


def test_blocks_that_the_config_leaves_out_are_refused(copy_series: Path) -> None:
    _configure(copy_series / "step0", num_hidden_layers=1)
    _refused(copy_series / "step0", "1 blocks", "gpt_neox.layers.1.")


def test_tensors_that_belong_to_no_block_are_passed_over(copy_series: Path) -> None:
    folder = copy_series / "step0"
    tensors = load_file(folder / WEIGHTS) | {
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(4),
        "value_head.weight": torch.ones(1, 32),
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert _load(folder).stored_dtype == "float32"


def test_misshapen_tensors_are_refused(copy_series: Path) -> None:
    folder = copy_series / "step0"
    _rewrite(folder, **{EMBEDDING: torch.zeros(7, 32)})
    _refused(folder, EMBEDDING, "misshapen")


def test_remote_code_is_refused_before_anything_is_read(copy_series: Path) -> None:
    folder = copy_series / "step0"
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    code = {"AutoModelForCausalLM": "evil.Model"}
    _configure(folder, auto_map=code)
    assert type(_load(folder).model).__name__ == "GPTNeoXForCausalLM"
    _configure(folder, auto_map=code, model_type="evil")
    (folder / WEIGHTS).unlink()
    _refused(folder, str(folder), "code of its own", "evil.Model")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_precisions_that_are_not_measured_are_refused(
    copy_series: Path, dtype: torch.dtype
) -> None:
    folder = copy_series / "step0"
    _rewrite(folder, **{EMBEDDING: load_file(folder / WEIGHTS)[EMBEDDING].to(dtype)})
    _refused(folder, WEIGHTS, EMBEDDING, str(dtype))


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**12},
        {"hidden_size": 10**12},
        {"hidden_size": 2**20, "intermediate_size": 2**22},
        {"vocab_size": 10**12},
        {"intermediate_size": 10**9},
    ],
)
def test_a_config_that_asks_for_far_more_than_is_stored_is_refused(
    copy_series: Path, values: dict[str, Any]
) -> None:
    _configure(copy_series / "step0", **values)
    _refused(copy_series / "step0", str(copy_series / "step0"))


def test_a_model_that_cannot_be_run_is_refused(copy_series: Path) -> None:
    rope = {"partial_rotary_factor": 1.5, "rope_theta": 10000.0, "rope_type": "default"}
    _configure(copy_series / "step0", rope_parameters=rope)
    _refused(copy_series / "step0", "cannot be run", "size of tensor")


def test_quantized_weights_are_refused(copy_series: Path) -> None:
    _configure(copy_series / "step0", quantization_config={"quant_method": "gptq", "bits": 4})
    _refused(copy_series / "step0", "quantized")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000, '{"a": "\\ud800"}'])
def test_a_config_that_is_no_config_is_refused(copy_series: Path, text: str) -> None:
    (copy_series / "step0" / "config.json").write_text(text)
    _refused(copy_series / "step0", "config.json")


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "unheard-of"},
        {"model_type": "t5"},
        {"num_attention_heads": 5},
        {"hidden_act": "no"},
    ],
)
def test_a_config_that_transformers_refuses_is_refused(
    copy_series: Path, values: dict[str, Any]
) -> None:
    _configure(copy_series / "step0", **values)
    _refused(copy_series / "step0", str(copy_series / "step0"), "cannot be loaded")


def test_a_folder_without_weights_is_refused_and_no_pickle_read(copy_series: Path) -> None:
    folder = copy_series / "step0"
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    _refused(folder, str(folder), "no model.safetensors")


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (Path("/nonexistent/pickle-was-read"),))


def test_a_pickle_beside_the_weights_is_ignored(copy_series: Path) -> None:
    folder = copy_series / "step0"
    before = _load(folder)
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (folder / name).write_bytes(pickle.dumps(_Trap()))
    after = _load(folder)
    assert after.weights_sha256 == before.weights_sha256
    assert after.weight_bytes == before.weight_bytes


def test_a_tokenizer_with_more_ids_than_rows_is_refused(copy_series: Path) -> None:
    folder = copy_series / "step0"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<new{i}>" for i in range(3)])
    tokenizer.save_pretrained(folder)
    rows = len(load_file(folder / WEIGHTS)[EMBEDDING])
    _refused(folder, f"{rows + 1} ids", f"{rows} rows")


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0"}', "x"])
def test_a_malformed_tokenizer_is_refused(copy_series: Path, content: str) -> None:
    folder = copy_series / "step0"
    (folder / "tokenizer.json").write_text(content)
    _refused(folder, "tokenizer", str(folder))


def _shard(folder: Path, shards: int) -> None:
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors, reverse=True)
    where: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / WEIGHTS).unlink()


def test_sharding_changes_nothing(copy_series: Path, tiny_series: Path) -> None:
    _shard(copy_series / "step0", 3)
    whole, sharded = _load(tiny_series / "step0"), _load(copy_series / "step0")
    assert sharded.weights_sha256 == whole.weights_sha256
    assert torch.equal(sharded.head, whole.head)


def test_files_that_transformers_does_not_load_are_not_hashed(copy_series: Path) -> None:
    folder = copy_series / "step0"
    before = _load(folder)
    save_file({"other": torch.full((3,), torch.nan)}, folder / "consolidated.safetensors")
    assert _load(folder).weights_sha256 == before.weights_sha256


def test_a_shard_that_is_missing_or_cut_is_refused_by_name(copy_series: Path) -> None:
    folder = copy_series / "step0"
    _shard(folder, 2)
    second = folder / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-8])
    _refused(folder, second.name)
    second.unlink()
    _refused(folder, second.name, "missing")
    for index in (
        "{}",
        "[" * 100_000,
        '{"weight_map": {"a": 7}}',
    ):
        (folder / f"{WEIGHTS}.index.json").write_text(index)
        _refused(folder, "index.json")


@pytest.mark.parametrize("beyond", ["../step10/model.safetensors", "sub/x.safetensors", "x" * 300])
def test_a_shard_lies_beside_its_index(copy_series: Path, beyond: str) -> None:
    folder = copy_series / "step0"
    names = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    index = {"weight_map": dict.fromkeys(names, beyond)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    _refused(folder, "index.json is malformed")
    index = {"weight_map": dict.fromkeys(names, str(copy_series / "step10" / WEIGHTS))}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    _refused(folder, "index.json is malformed", "no file beside it")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError("can't allocate memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_memory_that_does_not_suffice_is_no_fault_of_the_checkpoint(
    tiny_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_options: Any) -> None:
        raise MemoryError("full")

    monkeypatch.setattr("workers.hub.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(MemoryError):
        _load(tiny_series / "step0")


def test_torchs_own_message_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
