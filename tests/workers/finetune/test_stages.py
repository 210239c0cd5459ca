"""Stages of post-training: their checkpoints and rows, and that a killed one ends in the same."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from jobs.errors import DataError, DivergedError
from jobs.posttrain_spec import Adapters
from jobs.posttrain_work import PosttrainWork
from jobs.records import rows_table
from tests.workers.finetune.staging import (
    RECORDS,
    contents,
    records_in,
    run,
    stage_work,
    toy_grader,
)
from workers.finetune import keeping
from workers.hub import load_checkpoint
from workers.measure import Rows

METHODS = ("sft", "dpo", "rlvr")
COMMON = {"loss", "learning_rate", "gradient_norm", "entropy"}
OWN = {
    "sft": set[str](),
    "dpo": {"margin", "preferred"},
    "rlvr": {"reward", "reward_std", "completion_length"},
}
Make = Callable[..., PosttrainWork]


@pytest.fixture(autouse=True)
def _toy_grader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.finetune.stages.grader", toy_grader)


@pytest.fixture
def checkpoint(tiny_series: Path) -> Path:
    return tiny_series / "step100"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a small stage of a method; its records may be others than the method's own."""

    def make(method: str, records: list[dict[str, Any]] | None = None, **changes: Any) -> Any:
        chosen = RECORDS[method] if records is None else records
        return stage_work(records_in(tmp_path / "data", chosen), method, **changes)

    return make


class Killed(BaseException):
    """What ends a process from outside."""


@pytest.mark.parametrize("method", METHODS)
def test_a_stage_leaves_checkpoints_and_a_row_of_every_step(
    make: Make,
    checkpoint: Path,
    tmp_path: Path,
    method: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[tuple[int, int]] = []
    folder = tmp_path / "made"
    with caplog.at_level(logging.WARNING):
        rows = run(make(method), checkpoint, folder, lambda step, steps: done.append((step, steps)))
    assert done == [(step, 4) for step in (1, 2, 3, 4)]
    assert [row["training_step"] for row in rows] == [1, 2, 3, 4]
    assert rows_table("posttrain", rows).num_rows == 4
    for row in rows:
        assert set(row) == {
            *("method", "data", "seed", "training_step"),
            *COMMON,
            *OWN[method],
        }
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))
    # Linear, without a warm-up: the rate of the step itself, not of the next.
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert {p.name for p in folder.iterdir()} == {"step2", "step4"}
    for step in ("step2", "step4"):
        assert {p.name for p in (folder / step).iterdir()} == {
            *("config.json", "generation_config.json", "model.safetensors"),
            *("tokenizer.json", "tokenizer_config.json"),
        }
        assert contents(checkpoint)["config.json"] == contents(folder / step)["config.json"]
        load_checkpoint(folder / step, folder / step, "float32", "cpu")
    before, after = (
        load_file(path / "model.safetensors") for path in (checkpoint, folder / "step4")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert not caplog.records


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sft", {}),
        ("dpo", {}),
        ("rlvr", {}),
        pytest.param("rlvr", {"beta": 0.1, "accumulation": 2}, marks=pytest.mark.slow),
        pytest.param(
            "sft",
            {"adapters": Adapters(rank=4, dropout=0.2), "accumulation": 3},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_killed_stage_goes_on_and_ends_in_the_same_bytes(
    make: Make, checkpoint: Path, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    work = make(method, **{**changes, "steps": 5})
    whole = run(work, checkpoint, tmp_path / "whole")

    def kill(step: int, _steps: int) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        run(work, checkpoint, tmp_path / "broken", kill)
    assert (tmp_path / "broken" / "state" / "step2").is_dir()
    # What a kill in the middle of saving may leave.
    (tmp_path / "broken" / "state" / "trainer" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "broken" / ".step4.tmp").mkdir()
    steps: list[int] = []
    again = run(work, checkpoint, tmp_path / "broken", lambda step, _: steps.append(step))
    assert steps == [3, 4, 5]
    assert again == whole
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", METHODS)
def test_a_rate_of_nearly_nothing_changes_nothing(
    make: Make, checkpoint: Path, tmp_path: Path, method: str
) -> None:
    rows = run(
        make(method, learning_rate=1e-30, steps=1, save_steps=()), checkpoint, tmp_path / "a"
    )
    before, after = (
        load_file(path / "model.safetensors") for path in (checkpoint, tmp_path / "a" / "step1")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    if method == "dpo":  # Against itself, a model prefers nothing.
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert rows[0]["margin"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_that_of_a_plain_loop(
    make: Make, checkpoint: Path, tmp_path: Path, reduction: str
) -> None:
    records = RECORDS["sft"][:8]
    # All records are in one batch, so that their order plays no role.
    work = make("sft", records, steps=1, save_steps=(), loss_reduction=reduction)
    (row,) = run(work, checkpoint, tmp_path / "made")
    loaded = load_checkpoint(checkpoint, checkpoint, "float32", "cpu")
    model = loaded.model.requires_grad_(True)
    total, count = torch.zeros(()), 0
    for record in records:
        asked, answer = (
            loaded.tokenizer(text)["input_ids"]
            for text in (record["prompt"], f"{record['completion']}{loaded.tokenizer.eos_token}")
        )
        logits = model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1]
        total = total + cross_entropy(logits, torch.tensor(answer), reduction="sum")
        count += len(answer)
    loss = total if reduction == "sum" else total / count
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert row["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.slow
def test_seeds_decide_on_the_bytes(make: Make, checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 2**40), ("b", 2**40), ("c", 1)):
        run(make("rlvr", seed=seed), checkpoint, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a" / "step4") != contents(tmp_path / "c" / "step4")


@pytest.mark.parametrize("method", METHODS)
def test_adapters_are_merged(make: Make, checkpoint: Path, tmp_path: Path, method: str) -> None:
    run(make(method, adapters=Adapters(rank=4)), checkpoint, tmp_path / "made")
    before, after = (
        load_file(path / "model.safetensors") for path in (checkpoint, tmp_path / "made" / "step4")
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"gpt_neox.layers.{n}.attention.query_key_value.weight" for n in (0, 1)}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4


def test_bfloat16_is_saved_as_such(make: Make, checkpoint: Path, tmp_path: Path) -> None:
    run(make("sft", dtype="bfloat16"), checkpoint, tmp_path / "made")
    saved = load_file(tmp_path / "made" / "step4" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "step4", dtype="auto")
    assert model.dtype == torch.bfloat16


def test_chats_give_a_base_model_a_template(make: Make, checkpoint: Path, tmp_path: Path) -> None:
    records = [
        {"instruction": f"name a {word}", "input": "", "output": f"the {word}"}
        for word in ("river", "stone", "bird", "road") * 4
    ]
    run(make("sft", records), checkpoint, tmp_path / "made")
    loaded = load_checkpoint(*(tmp_path / "made" / "step4",) * 2, "float32", "cpu")
    assert "Human: " in loaded.tokenizer.chat_template


@pytest.mark.slow
def test_rewards_rise_where_the_task_can_be_learned(
    make: Make, checkpoint: Path, tmp_path: Path
) -> None:
    work = make(
        "rlvr",
        steps=24,
        batch_size=64,
        completions=16,
        learning_rate=1e-2,
        schedule="constant",
        save_steps=(),
    )
    rows: Rows = run(work, checkpoint, tmp_path / "made")
    rewards = [float(str(row["reward"])) for row in rows]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_divergence_names_step_and_rate(
    make: Make, checkpoint: Path, tmp_path: Path, method: str
) -> None:
    work = make(method, learning_rate=1e30, steps=8, save_steps=(7,))
    with pytest.raises(DivergedError, match=r"step \d, learning rate 1e\+30 → lower the stage's"):
        run(work, checkpoint, tmp_path / "made")
    assert not (tmp_path / "made" / "step7").exists()


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ("sft", {"max_length": 3}, "no example of 'data' has an answer within 3 tokens"),
        ("rlvr", {"max_length": 5}, "no problem of 'data' is within 2 tokens"),
        ("sft", {"dtype": "float16"}, "float16 has too small a range"),
        ("sft", {"adapters": Adapters(targets=("head",))}, "leave `head` out"),
        ("dpo", {"records": RECORDS["sft"]}, "these are needed: chosen and rejected"),
    ],
)
def test_what_cannot_be_trained_is_told_of(
    make: Make, checkpoint: Path, tmp_path: Path, method: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        run(make(method, **changes), checkpoint, tmp_path / "made")


def test_state_is_saved_at_intervals(
    make: Make, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_STATE_EVERY_SECONDS", 0.0)

    def kill(step: int, _steps: int) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        run(make("sft", save_steps=()), checkpoint, tmp_path / "made", kill)
    assert [p.name for p in (tmp_path / "made" / "state").glob("step*")] == ["step3"]
    assert not list((tmp_path / "made").glob("step*"))
