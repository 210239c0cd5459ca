"""What becomes of errors within a task."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from jobs.cells import Cell
from jobs.errors import DataError, StoreError
from jobs.events import Failed, Finished, Progress, Started
from jobs.work import CheckpointWork, LossWork, SequencesWork
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.workers.tasks import kinds, prepare, raising, run_cells, small_study
from workers import checkpoint_task
from workers.hub import load_tokenizer


def _sequences(tiny_series: Path, texts: Texts) -> Cell:
    plan = make_plan(small_study(tiny_series, texts))
    return next(cell for cell in plan.cells if isinstance(cell.work, SequencesWork))


def test_an_error_in_one_cell_leaves_the_others(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_task, "head_rows", raising(DataError("bad head", "mend it")))
    monkeypatch.setattr(checkpoint_task, "loss_rows", raising(ZeroDivisionError("oh")))
    events = run_cells(cells, tmp_path)
    failed = {f.cell_id: f for f in kinds(events, Failed)}
    by_id = {cell.id: cell.work.kind for cell in cells}
    assert sorted(by_id[i] for i in failed) == ["head", "loss", "loss"]
    assert len(kinds(events, Finished)) == 3
    for cell_id, failure in failed.items():
        if by_id[cell_id] == "head":
            assert (failure.cause, failure.message, failure.remedy) == (
                "data",
                "bad head",
                "mend it",
            )
        else:
            assert failure.cause == "user"
            assert failure.message == "ZeroDivisionError: oh"
            assert failure.remedy
        assert "Traceback" in failure.traceback


def test_an_error_of_a_pass_fails_the_cells_of_that_text_alone(
    cells: list[Cell], tmp_path: Path
) -> None:
    text = next(c.work.sequences for c in cells if c.work.kind == "geometry")  # type: ignore[union-attr]
    file = tmp_path / "artifacts" / str(text) / "sequences.safetensors"
    tensors = load_file(file)
    tensors["ids"][3] = 10_000
    save_file(tensors, file)
    cells = [c for c in cells if c.work.kind != "head"]
    events = run_cells(cells, tmp_path)
    failed = {f.cell_id for f in kinds(events, Failed)}
    assert failed == {c.id for c in cells if getattr(c.work, "sequences", None) == text}
    assert all("token id 10000" in f.message for f in kinds(events, Failed))
    assert len(kinds(events, Finished)) == 3


def test_a_checkpoint_that_cannot_be_loaded_fails_all_its_cells(
    copy_series: Path, texts: Texts, tmp_path: Path
) -> None:
    groups = prepare(small_study(copy_series, texts), tmp_path)
    weights = copy_series / "step0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    events = run_cells(groups[0], tmp_path)
    assert [f.cause for f in events if isinstance(f, Failed)] == ["data"] * 6
    assert {f.cell_id for f in events} == {c.id for c in groups[0]}


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (MemoryError(), "memory", "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory", "CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "DefaultCPU"),
        (OSError(28, "No space left on device"), "infrastructure", "No space left"),
        (FileNotFoundError(2, "gone", "x"), "infrastructure", "gone"),
        (StoreError("cannot reach s3://b", "mend"), "infrastructure", "cannot reach s3://b"),
        (RuntimeError("shapes"), "user", "RuntimeError: shapes"),
        (KeyError("a"), "user", "KeyError: 'a'"),
        (DataError("bad", "mend"), "data", "bad"),
    ],
)
def test_what_an_error_becomes(
    cells: list[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    cause: str,
    message: str,
) -> None:
    monkeypatch.setattr(checkpoint_task, "load_checkpoint", raising(error))
    failed = kinds(run_cells(cells, tmp_path), Failed)
    assert {f.cell_id for f in failed} == {cell.id for cell in cells}
    for failure in failed:
        assert failure.cause == cause
        assert message in failure.message
        assert failure.remedy
        assert type(error).__name__ in failure.traceback


def _panic() -> BaseException:
    """A panic of the tokenizers' own code, which is no Exception."""
    damaged = json.loads(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str())
    cut = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}
    tokenizer = Tokenizer.from_str(json.dumps(damaged | {"truncation": cut}))
    with pytest.raises(BaseException, match="`stride` must be") as told:
        tokenizer.encode(["a", "b", "a"], is_pretokenized=True)
    return told.value


def test_a_panic_of_the_tokenizer_fails_the_cell_alone(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panic = _panic()
    assert not isinstance(panic, Exception)
    monkeypatch.setattr(checkpoint_task, "head_rows", raising(panic))
    events = run_cells(cells, tmp_path)
    (failure,) = kinds(events, Failed)
    assert failure.cause == "data"
    assert "stride" in failure.message
    assert "tokenizer.json" in failure.remedy
    assert len(kinds(events, Finished)) == len(cells) - 1
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", raising(panic))
    with pytest.raises(DataError, match=r"the tokenizer in .* cannot be loaded: `stride`"):
        load_tokenizer(tmp_path)


def test_what_ends_the_process_is_not_caught(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_task, "load_checkpoint", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, tmp_path)


def test_cells_of_two_precisions_are_not_run_together(cells: list[Cell], tmp_path: Path) -> None:
    loss = next(cell for cell in cells if cell.work.kind == "loss")
    assert isinstance(loss.work, LossWork)
    mixed = replace(loss, work=replace(loss.work, dtype="bfloat16"))
    failed = kinds(run_cells([*cells, mixed], tmp_path), Failed)
    assert len(failed) == 7
    assert "one precision" in failed[0].message


def test_a_cell_that_cannot_be_made_leaves_no_artifact(
    tiny_series: Path, texts: Texts, tmp_path: Path
) -> None:
    cell = _sequences(tiny_series, texts)
    assert isinstance(cell.work, SequencesWork)
    draw = cell.work.draw.model_copy(update={"sequences": 10_000})
    events = run_cells([replace(cell, work=replace(cell.work, draw=draw))], tmp_path)
    assert [type(event) for event in events if not isinstance(event, Progress)] == [Started, Failed]
    assert not (tmp_path / "artifacts").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_checkpoints_cell_makes_no_artifact(cells: list[Cell], tmp_path: Path) -> None:
    alone = replace(cells[0], checkpoint=None)
    assert isinstance(alone.work, CheckpointWork)
    (failed,) = kinds(run_cells([alone], tmp_path), Failed)
    assert "makes no artifact" in failed.message
