"""Stored weights: the same whatever the files are called, and nothing in them is executed."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.errors import DataError
from workers.hub import load_checkpoint
from workers.weights import read_weights

WEIGHTS, BIN = "model.safetensors", "pytorch_model.bin"


def _pickled(folder: Path, legacy: bool = False, shards: bool = False) -> Path:
    """Turns a folder's safetensors into PyTorch files."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    options = {"_use_new_zipfile_serialization": not legacy}
    if not shards:
        torch.save(tensors, folder / BIN, **options)
        return folder
    parts = {f"pytorch_model-0000{n + 1}-of-00002.bin": sorted(tensors)[n::2] for n in range(2)}
    for file, names in parts.items():
        torch.save({name: tensors[name] for name in names}, folder / file, **options)
    where = {name: file for file, names in parts.items() for name in names}
    (folder / f"{BIN}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files_give_the_same_checkpoint(
    tiny_series: Path, copy_series: Path, legacy: bool, shards: bool
) -> None:
    good, folder = tiny_series / "step10", _pickled(copy_series / "step10", legacy, shards)
    with pytest.raises(DataError, match=r"holds no model\.safetensors"):
        load_checkpoint(folder, folder, "float32", "cpu")
    expected = load_checkpoint(good, good, "float32", "cpu")
    found = load_checkpoint(folder, folder, "float32", "cpu", allow_bin=True)
    assert found.weights_sha256 == expected.weights_sha256
    assert found.weight_profile == expected.weight_profile
    assert torch.equal(found.head, expected.head)
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, expected.model.get_parameter(name))


def test_safetensors_outrank_pytorch_files(copy_series: Path) -> None:
    folder = copy_series / "step0"
    before = read_weights(folder)
    (folder / BIN).write_bytes(b"anything")
    assert read_weights(folder, allow_bin=True) == before


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_execute_something_is_refused(
    copy_series: Path, tmp_path: Path, legacy: bool
) -> None:
    folder, target = _pickled(copy_series / "step0"), tmp_path / "executed"
    bomb = {"a": torch.ones(2), "b": _Bomb(target)}
    torch.save(bomb, folder / BIN, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match="cannot be read as plain tensors") as error:
        load_checkpoint(folder, folder, "float32", "cpu", allow_bin=True)
    assert "never run" in error.value.remedy
    assert not target.exists()
    torch.load(folder / BIN, weights_only=False)  # It is a real one.
    assert target.is_dir()


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 1.0}, {"a": {"b": torch.ones(2)}}])
def test_what_is_more_than_named_tensors_is_refused(copy_series: Path, content: Any) -> None:
    folder = _pickled(copy_series / "step0")
    torch.save(content, folder / BIN)
    with pytest.raises(DataError, match="holds more than named tensors"):
        read_weights(folder, allow_bin=True)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_pytorch_files_are_refused(copy_series: Path, kept: float) -> None:
    folder = _pickled(copy_series / "step0")
    data = (folder / BIN).read_bytes()
    (folder / BIN).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match=BIN):
        read_weights(folder, allow_bin=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_profile_is_the_scale_of_each_tensor(copy_series: Path, dtype: torch.dtype) -> None:
    folder = _pickled(copy_series / "step0")
    tensors = {
        "b": torch.full((300, 300), 0.5, dtype=dtype),
        "a": torch.zeros(3, dtype=dtype),
        "c": torch.arange(3),
        "d": torch.full((3,), 3e4, dtype=dtype),  # Its square is beyond half precision.
    }
    torch.save(tensors, folder / BIN)
    profile = read_weights(folder, allow_bin=True).profile
    assert profile[0] == -math.inf
    scale = float(tensors["d"][0])
    assert profile[1:] == pytest.approx((math.log(0.5), math.log(scale)), abs=1e-5)
