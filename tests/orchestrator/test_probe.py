"""The probe: the numbers of the saved checkpoint, and a training that doesn't feel it."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Trainer,
    TrainerCallback,
)

from dashboards.report import render
from jobs.errors import StoreError, UsageError
from jobs.text_spec import Sequences
from jobs.work import GeometryWork, HeadWork
from tests.conftest import Texts
from tests.orchestrator.probed import (
    DRAW,
    padded_tokenizer,
    probe_of,
    rows_of,
    steps_of,
    trainer_of,
)
from tests.workers.models import ARCHITECTURES, build, silent
from workers.features import forward_pass
from workers.hub import load_checkpoint
from workers.measure import geometry_rows, head_rows
from workers.sequences import cut_sequences


@pytest.fixture
def tokenizer(tiny_series: Path) -> Any:
    return padded_tokenizer(tiny_series)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_rows_are_those_of_the_saved_checkpoints(
    tiny_series: Path, texts: Texts, tokenizer: Any, results: Path, tmp_path: Path
) -> None:
    probe = probe_of(texts, results, overlaps="always")
    saving = {"save_strategy": "steps", "save_steps": 2, "include_num_input_tokens_seen": "all"}
    trainer_of(tiny_series, texts, tokenizer, tmp_path / "run", probe, **saving).train()
    geometry, head, side = (rows_of(name, results) for name in ("geometry", "head", "influences"))
    assert [row["step"] for row in geometry] == [0, 2, 4, 5]
    assert [row["step"] for row in head] == [row["step"] for row in side] == [0, 2, 4, 5]
    assert [row["revision"] for row in head] == ["step0", "step2", "step4", "step5"]
    assert {(row["suite"], row["model"], row["stage"]) for row in geometry + head} == {
        ("mine", "tiny", "pretrain")
    }
    assert 0 < geometry[1]["tokens"] < geometry[2]["tokens"]
    documents = [text for text in texts.documents if text.strip()]
    sequences = cut_sequences(documents, Sequences(**DRAW), tokenizer, silent)
    for place, step in ((1, 2), (2, 4), (3, 5)):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        loaded = load_checkpoint(folder, folder, "float32", "cpu")
        passed = forward_pass(
            loaded.model, sequences, batch_size=32, layers=False, loss=False, report=silent
        )
        work = GeometryWork("probe", sequences.fingerprint, "last", "float32")
        (expected,), (influences,) = geometry_rows(work, loaded, sequences, passed)
        _same(geometry[place], expected)
        _same(side[place], influences, 1e-4)
        _same(head[place], head_rows(HeadWork(None, None, 20, True), loaded, None)[0])
    assert not rows_of("failures", results)
    assert "mine" in Path(render(results, "mine")).read_text()


def _same(row: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-6) -> None:
    for name, value in expected.items():
        if isinstance(value, float | np.ndarray):
            value = np.asarray(value)
            scale = float(np.abs(value).max())
            np.testing.assert_allclose(row[name], value, rtol=tolerance, atol=tolerance * scale)
        else:
            assert row[name] == value, name


@pytest.mark.parametrize("changed", [{}, {"gradient_checkpointing": True}])
def test_the_training_is_the_same_bit_for_bit(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    changed: dict[str, Any],
) -> None:
    saved = tokenizer.backend_tokenizer.to_str()
    found = []
    for number, callbacks in enumerate(([], [probe_of(texts, results, every=1)])):
        random.seed(0), np.random.seed(0)
        trainer = trainer_of(
            tiny_series, texts, tokenizer, tmp_path / str(number), *callbacks, **changed
        )
        trainer.train()
        modes = [module.training for module in trainer.model.modules()]
        state = random.random(), float(np.random.rand()), float(torch.rand(()))
        found.append((trainer.model.state_dict(), modes, state, trainer.model.config.use_cache))
    (plain, *before), (probed, *after) = found
    assert before == after
    assert all(torch.equal(plain[name], probed[name]) for name in plain)
    assert tokenizer.backend_tokenizer.to_str() == saved
    assert steps_of(results) == [0, 1, 2, 3, 4, 5]


def test_a_resumed_training_goes_on_and_a_second_one_is_refused(
    tiny_series: Path, texts: Texts, tokenizer: Any, results: Path, tmp_path: Path
) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}

    class StopError(Exception):
        pass

    class Stopper(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 5:
                raise StopError

    def trainer(*callbacks: Any, **changed: Any) -> Trainer:
        # Not a GPT-NeoX: transformers' trainer resumes one without its head.
        model = build(ARCHITECTURES["llama"], vocab_size=len(tokenizer))
        at = (tiny_series, texts, tokenizer, tmp_path / "run")
        return trainer_of(*at, *callbacks, model=model, **saving | {"max_steps": 8} | changed)

    with pytest.raises(StopError):
        trainer(probe_of(texts, results), Stopper()).train()
    assert steps_of(results) == [0, 2, 4]
    before = rows_of("geometry", results)
    trainer(probe_of(texts, results)).train(
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")
    )
    after = rows_of("geometry", results)
    assert [row["step"] for row in after] == [0, 2, 4, 6, 8]
    assert [row["cell_id"] for row in after[:3]] == [row["cell_id"] for row in before]
    for old, new in zip(before, after, strict=False):
        assert new["rankme"] == pytest.approx(old["rankme"], rel=1e-6)
    with pytest.raises(UsageError, match="has rows of suite 'mine', model 'tiny' already"):
        trainer(probe_of(texts, results)).train()
    trainer(probe_of(texts, results, model="other"), max_steps=5).train()
    assert len(rows_of("geometry", results)) == 5 + 4


def test_errors_never_end_the_training(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Breaker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            with torch.no_grad():
                given["model"].get_output_embeddings().weight[3] = torch.nan

    trainer = trainer_of(
        tiny_series, texts, tokenizer, tmp_path / "run", Breaker(), probe_of(texts, results)
    )
    with caplog.at_level(logging.WARNING, "eigentrace"):
        assert trainer.train().global_step == 5
    failures = rows_of("failures", results)
    assert {row["kind"] for row in failures} == {"geometry", "head"}
    assert sorted({row["step"] for row in failures}) == [0, 2, 4, 5]
    assert all(row["message"] and row["traceback"] for row in failures)
    told = [r.getMessage() for r in caplog.records if r.name == "eigentrace"]
    assert len(told) == len(set(told)) >= 2
    assert "token ids 3" in "".join(told)

    def full(*_: Any) -> None:
        raise StoreError("the disk is full", "make room")

    caplog.clear()
    probe = probe_of(texts, results, model="second")
    assert probe._store is not None
    monkeypatch.setattr(probe._store, "_write", full)
    assert trainer_of(tiny_series, texts, tokenizer, tmp_path / "2", probe).train().global_step == 5
    assert "the disk is full" in caplog.text
