"""Stages that several processes train: what one would, split among them, killed or not."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import CellError, DivergedError
from jobs.posttrain_spec import Adapters
from jobs.posttrain_work import PosttrainWork
from jobs.records import rows_table
from tests.workers.finetune.staging import (
    RECORDS,
    contents,
    records_in,
    run,
    stage_work,
    train_all,
    train_with_toy_grader,
)
from workers.finetune import group, stages
from workers.hub import load_checkpoint
from workers.measure import Rows

STAGES: dict[str, dict[str, Any]] = {
    "sft": {"steps": 5},
    "sum": {"method": "sft", "loss_reduction": "sum", "learning_rate": 1e-4},
    "adapted": {"method": "sft", "adapters": Adapters(rank=4, dropout=0.0), "accumulation": 2},
    "bfloat16": {"method": "sft", "dtype": "bfloat16"},
    "dpo": {},
    "rlvr": {"beta": 0.1, "completion_tokens": 20},
}
DIVERGING: dict[str, Any] = {"method": "sft", "learning_rate": 1e30}

pytestmark = pytest.mark.slow


def work_of(name: str, folder: Path, processes: int) -> PosttrainWork:
    changes = {"method": name, **STAGES.get(name, DIVERGING)}
    records = records_in(folder / changes["method"], RECORDS[changes["method"]])
    return stage_work(records, processes=processes, **changes)


def silent(_done: int, _total: int) -> None:
    """Takes progress."""


@pytest.fixture(scope="module")
def checkpoint(tiny_series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that ends a text with a chance of about a third at each token.

    The completions of one process then end before those of another, which it must wait for.
    """
    folder = tmp_path_factory.mktemp("brief") / "step100"
    shutil.copytree(tiny_series / "step100", folder)
    tensors = load_file(folder / "model.safetensors")
    direction = torch.full((32,), 32**-0.5)
    tensors["gpt_neox.final_layer_norm.bias"] += direction
    head = next(name for name in ("lm_head.weight", "embed_out.weight") if name in tensors)
    tensors[head][0] += 5 * direction
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def together(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """All stages by one pair of processes: the folder of each, and its rows or its end."""
    folder = tmp_path_factory.mktemp("together")
    given = [
        (work, checkpoint, checkpoint, RECORDS[work.training.method], folder / name)
        for name in (*STAGES, "diverging")
        for work in (work_of(name, folder, 2),)
    ]
    rows = group.together(2, "cpu", train_all, (given,), silent)
    return folder, dict(zip((*STAGES, "diverging"), rows, strict=True))


@pytest.fixture(scope="module")
def alone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """The same stages by this process."""
    folder = tmp_path_factory.mktemp("alone")
    found: dict[str, Any] = {}
    for name in STAGES:
        work = work_of(name, folder, 1)
        records = RECORDS[work.training.method]
        found[name] = train_with_toy_grader(
            work, checkpoint, checkpoint, records, folder / name, "cpu", silent
        )
    return folder, found


Made = tuple[Path, dict[str, Any]]


@pytest.mark.parametrize("name", STAGES)
def test_checkpoints_are_of_the_same_form(together: Made, alone: Made, name: str) -> None:
    rows = together[1][name]
    steps = STAGES[name].get("steps", 4)
    assert [row["training_step"] for row in rows] == list(range(1, steps + 1))
    assert [set(row) for row in rows] == [set(row) for row in alone[1][name]]
    assert rows_table("posttrain", rows).num_rows == steps
    for step in ("step2", f"step{steps}"):
        made, other = together[0] / name / step, alone[0] / name / step
        assert {p.name for p in made.iterdir()} == {p.name for p in other.iterdir()}
        assert (made / "config.json").read_bytes() == (other / "config.json").read_bytes()
        load_checkpoint(made, made, "float32", "cpu")
        tensors, others = (load_file(p / "model.safetensors") for p in (made, other))
        assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
            n: (t.shape, t.dtype) for n, t in others.items()
        }


@pytest.mark.parametrize(
    ("name", "weights", "losses"),
    [
        ("sft", 1e-4, 1e-5),
        ("sum", 1e-4, 1e-5),
        ("adapted", 1e-4, 1e-5),
        ("dpo", 1e-4, 1e-5),
        # A weight is rounded to one of 256 steps between powers of two.
        ("bfloat16", 5e-3, 1e-2),
    ],
)
def test_all_of_them_train_as_one_would(
    together: Made, alone: Made, name: str, weights: float, losses: float
) -> None:
    for row, other in zip(together[1][name], alone[1][name], strict=True):
        for column in ("loss", "gradient_norm", "learning_rate"):
            assert row[column] == pytest.approx(other[column], rel=losses)
    found, expected = (
        load_file(made[0] / name / "step2" / "model.safetensors") for made in (together, alone)
    )
    for tensor in expected:
        torch.testing.assert_close(found[tensor], expected[tensor], atol=weights, rtol=0)


def test_the_loss_falls_and_completions_differ(together: Made) -> None:
    losses = [row["loss"] for row in together[1]["sft"]]
    assert losses[-1] < losses[0] - 0.1
    # Of eight completions of two problems, not all are alike: each process draws its own.
    assert any(row["reward_std"] > 0 for row in together[1]["rlvr"])
    assert all(row["kl"] >= 0 for row in together[1]["rlvr"])
    assert all(1 < row["completion_length"] < 10 for row in together[1]["rlvr"])


def work_until_killed(work: PosttrainWork, checkpoint: Path, folder: Path, members: Path) -> None:
    """Trains, and is killed at step 4, as a worker that runs out of memory."""

    def kill(step: int, _steps: int) -> None:
        if step == 4:
            found = psutil.Process().children(recursive=True)
            members.write_text(" ".join(str(child.pid) for child in found))
            os.kill(os.getpid(), signal.SIGKILL)

    run(work, checkpoint, folder, kill)


@pytest.mark.soak
def test_a_killed_worker_leaves_no_process_and_the_stage_goes_on(
    together: Made, checkpoint: Path, tmp_path: Path
) -> None:
    folder, members = tmp_path / "made", tmp_path / "members"
    work = work_of("sft", tmp_path, 2)
    worker = get_context("spawn").Process(
        target=work_until_killed, args=(work, checkpoint, folder, members)
    )
    worker.start()
    worker.join(300)
    assert worker.exitcode == -signal.SIGKILL
    left = [
        psutil.Process(pid)
        for pid in map(int, members.read_text().split())
        if psutil.pid_exists(pid)
    ]
    assert not psutil.wait_procs(left, timeout=20)[1]
    # Each process has saved its part of the weights.
    parts = list((folder / "state" / "step2" / "pytorch_model_fsdp_0").glob("*.distcp"))
    assert len(parts) == 2
    steps: list[int] = []
    again = run(work, checkpoint, folder, lambda step, _: steps.append(step))
    assert steps == [3, 4, 5]
    assert again == together[1]["sft"]
    undisturbed = together[0] / "sft"
    assert {p.name for p in folder.iterdir()} == {"step2", "step5"}
    for step in ("step2", "step5"):
        assert contents(folder / step) == contents(undisturbed / step)


def test_divergence_is_told_as_such(together: Made) -> None:
    told = together[1]["diverging"]
    assert isinstance(told, DivergedError)
    assert re.search(r"step \d, learning rate 1e\+30 → lower the stage's", str(told))
    assert not (together[0] / "diverging" / "step4").exists()


def test_too_few_gpus_are_told_of_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    refused: Callable[..., Rows] = stages.run_stage
    work = work_of("sft", tmp_path, 2)
    for device, said in (
        ("cuda:0", "a GPU each, and this worker has 1 → run `posttrain` with --gpus-per-worker 2"),
        ("mps", "2 processes can't train together on mps"),
    ):
        with pytest.raises(CellError, match=said) as error:
            refused(work, tmp_path, tmp_path, None, tmp_path, device, silent)
        assert error.value.cause == "user"
