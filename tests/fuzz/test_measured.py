"""Planted defects of measuring are found: an oracle that says nothing would prove nothing."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from jobs.errors import DataError
from tests.conftest import Texts
from tests.fuzz import measured
from tests.fuzz.children import run_cases
from tests.fuzz.damage_weights import WEIGHTS
from tests.fuzz.numbers import Original
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.watch import Watch
from workers import checkpoint_task, hub
from workers.hub import load_checkpoint
from workers.weights import read_weights

CASE = 3
"""A case that damages a checkpoint, and none of the records."""


def _one_row(folder: Path, _chance: random.Random) -> str:
    """Makes one row of the head longer, which is no damage at all."""
    tensors = load_file(folder / WEIGHTS)
    [name] = [name for name in tensors if name.startswith(("embed_out", "lm_head"))]
    tensors[name][7] *= 3
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return "row"


def _nothing(_folder: Path, _chance: random.Random) -> str:
    return "nothing"


def _wrong(
    tmp_path: Path,
    series: Path,
    texts: Texts,
    damage: Callable[[Path, random.Random], str],
    plant: Callable[[pytest.MonkeyPatch], object] = lambda patch: None,
) -> tuple[str, str]:
    """How a case ends, and what is wrong with it."""
    sandbox = Sandbox(tmp_path)
    sandbox.inputs.mkdir()
    bare = Original(series / "step10", texts.jsonl, {})

    def prepare() -> Callable[[int], dict[str, Any]]:
        sandbox.enter()
        original = Original(bare.checkpoint, bare.text, measured.measure(bare, sandbox))
        patch = pytest.MonkeyPatch()  # The process ends with it.
        patch.setattr(measured, "_CHECKPOINT", (damage,))
        plant(patch)
        watch = Watch(sandbox.writable, tmp_path)
        return lambda case: measured.judge(case, original, sandbox, watch)

    [(_, outcome)] = run_cases([CASE], prepare, tmp_path / "log", 60.0)
    return str(outcome.get("end")), str(outcome["wrong"])


@pytest.mark.parametrize("damage", [_nothing, _one_row])
def test_nothing_is_wrong_with_nothing_planted(
    tmp_path: Path, tiny_series: Path, texts: Texts, damage: Callable[..., str]
) -> None:
    assert _wrong(tmp_path, tiny_series, texts, damage) == ("finished", "")


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_given: Any, **_options: Any) -> None:
        raise error

    return fail


def _longer_head(patch: pytest.MonkeyPatch) -> None:
    """Measures the head as if another row were longer."""

    def load(*given: Any) -> Any:
        loaded = load_checkpoint(*given)
        loaded.head[3] *= 5
        return loaded

    patch.setattr(checkpoint_task, "load_checkpoint", load)


def _deaf_hash(patch: pytest.MonkeyPatch) -> None:
    """Gives all weights one hash."""

    def read(*given: Any) -> Any:
        return replace(read_weights(*given), sha256="0" * 64)

    patch.setattr(hub, "read_weights", read)


def _stale(patch: pytest.MonkeyPatch) -> None:
    """Runs the model with other weights than those of the file."""
    real = hub._load_model

    def load(*given: Any) -> Any:
        model = real(*given)
        model.gpt_neox.layers[0].mlp.dense_h_to_4h.weight.data *= 3
        return model

    patch.setattr(hub, "_load_model", load)


def _planted_write(patch: pytest.MonkeyPatch) -> None:
    def read(path: Path, *given: Any) -> Any:
        (path / "left-behind").write_text("x")
        return read_weights(path, *given)

    patch.setattr(hub, "read_weights", read)


def _load_fails(error: Exception) -> Callable[[pytest.MonkeyPatch], object]:
    return lambda patch: patch.setattr(checkpoint_task, "load_checkpoint", _raising(error))


@pytest.mark.parametrize(
    ("damage", "plant", "said"),
    [
        (_one_row, _load_fails(KeyError("x")), "this is a defect of Eigentrace"),
        (_one_row, _load_fails(OSError("x")), "a failure of another cause: infrastructure"),
        (_one_row, _load_fails(DataError("x", "")), "a message that names nothing, or no remedy"),
        (_one_row, _longer_head, "norm CV"),
        (_nothing, _deaf_hash, "equal tensors: True; equal hashes: False"),
        (_one_row, _stale, "loss"),
        (_nothing, _stale, "other numbers from equal files"),
        (_one_row, _planted_write, "it did what it must not: open"),
    ],
)
def test_what_is_planted_is_found(
    tmp_path: Path,
    tiny_series: Path,
    texts: Texts,
    damage: Callable[..., str],
    plant: Callable[[pytest.MonkeyPatch], object],
    said: str,
) -> None:
    assert said in _wrong(tmp_path, tiny_series, texts, damage, plant)[1]
