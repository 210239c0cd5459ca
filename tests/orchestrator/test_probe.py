"""The probe: the numbers of the saved checkpoint, and a training that doesn't feel it."""

import hashlib
import logging
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from dashboards.query import load
from dashboards.report import render
from jobs.errors import EigentraceError, StoreError, UsageError
from jobs.sources import TextFiles
from jobs.text_spec import Sequences
from jobs.work import GeometryWork, HeadWork
from orchestrator import probe as probes
from orchestrator.probe import GeometryProbe
from tests.conftest import Texts
from tests.workers.models import ARCHITECTURES, build, silent
from workers.documents import read_documents
from workers.features import forward_pass
from workers.hub import load_checkpoint
from workers.measure import geometry_rows, head_rows
from workers.sequences import cut_sequences

_DRAW = {"sequences": 60, "sequence_length": 10}
_SHARED = {
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "logging_strategy": "no",
}


@pytest.fixture
def tokenizer(tiny_series: Path) -> Any:
    found = AutoTokenizer.from_pretrained(tiny_series / "step0")
    found.pad_token = found.eos_token
    return found


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def _model(tiny_series: Path, **changed: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        tiny_series / "step100",
        dtype=torch.float32,
        attention_dropout=0.1,
        hidden_dropout=0.1,
        **changed,
    )


def _probe(texts: Texts, results: Path, **changed: Any) -> GeometryProbe:
    given: dict[str, Any] = {"suite": "mine", "model": "tiny", "every": 2, **_DRAW}
    return GeometryProbe(texts.txt, results=results, **given | changed)


def _trainer(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    folder: Path,
    *callbacks: Any,
    model: Any = None,
    **changed: Any,
) -> Trainer:
    arguments: dict[str, Any] = {"save_strategy": "no", "max_steps": 5, "learning_rate": 1e-3}
    torch.manual_seed(0)
    return Trainer(
        model or _model(tiny_series),
        TrainingArguments(str(folder), **_SHARED | arguments | changed),
        train_dataset=[tokenizer(text) for text in texts.documents],  # type: ignore[arg-type]
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


def _rows(table: str, results: Path) -> list[dict[str, Any]]:
    return list(load(table, results).to_pylist())


def _steps(results: Path, table: str = "geometry") -> list[int]:
    return [row["step"] for row in _rows(table, results)]


def test_rows_are_those_of_the_saved_checkpoints(
    tiny_series: Path, texts: Texts, tokenizer: Any, results: Path, tmp_path: Path
) -> None:
    probe = _probe(texts, results, overlaps="always")
    saving = {"save_strategy": "steps", "save_steps": 2, "include_num_input_tokens_seen": "all"}
    _trainer(tiny_series, texts, tokenizer, tmp_path / "run", probe, **saving).train()
    geometry, head, side = (_rows(name, results) for name in ("geometry", "head", "influences"))
    assert [row["step"] for row in geometry] == [0, 2, 4, 5]
    assert [row["step"] for row in head] == [row["step"] for row in side] == [0, 2, 4, 5]
    assert [row["revision"] for row in head] == ["step0", "step2", "step4", "step5"]
    assert {(row["suite"], row["model"], row["stage"]) for row in geometry + head} == {
        ("mine", "tiny", "pretrain")
    }
    assert 0 < geometry[1]["tokens"] < geometry[2]["tokens"]
    documents = [text for text in texts.documents if text.strip()]
    sequences = cut_sequences(documents, Sequences(**_DRAW), tokenizer, silent)  # type: ignore[arg-type]
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
    assert not _rows("failures", results)
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
    for number, callbacks in enumerate(([], [_probe(texts, results, every=1)])):
        random.seed(0), np.random.seed(0)
        trainer = _trainer(
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
    assert _steps(results) == [0, 1, 2, 3, 4, 5]


def test_a_resumed_training_goes_on_and_a_second_one_is_refused(
    tiny_series: Path, texts: Texts, tokenizer: Any, results: Path, tmp_path: Path
) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}

    class Stop(Exception):
        pass

    class Stopper(probes.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 5:
                raise Stop

    def trainer(*callbacks: Any, **changed: Any) -> Trainer:
        # Not a GPT-NeoX: transformers' trainer resumes one without its head.
        model = build(ARCHITECTURES["llama"], vocab_size=len(tokenizer))
        at = (tiny_series, texts, tokenizer, tmp_path / "run")
        return _trainer(*at, *callbacks, model=model, **saving | {"max_steps": 8} | changed)

    with pytest.raises(Stop):
        trainer(_probe(texts, results), Stopper()).train()
    assert _steps(results) == [0, 2, 4]
    before = _rows("geometry", results)
    trainer(_probe(texts, results)).train(
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")
    )
    after = _rows("geometry", results)
    assert [row["step"] for row in after] == [0, 2, 4, 6, 8]
    assert [row["cell_id"] for row in after[:3]] == [row["cell_id"] for row in before]
    for old, new in zip(before, after, strict=False):
        assert new["rankme"] == pytest.approx(old["rankme"], rel=1e-6)
    with pytest.raises(UsageError, match="has rows of suite 'mine', model 'tiny' already"):
        trainer(_probe(texts, results)).train()
    trainer(_probe(texts, results, model="other"), max_steps=5).train()
    assert len(_rows("geometry", results)) == 5 + 4


def test_errors_never_end_the_training(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Breaker(probes.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            with torch.no_grad():
                given["model"].get_output_embeddings().weight[3] = torch.nan

    trainer = _trainer(
        tiny_series, texts, tokenizer, tmp_path / "run", Breaker(), _probe(texts, results)
    )
    with caplog.at_level(logging.WARNING, "eigentrace"):
        assert trainer.train().global_step == 5
    failures = _rows("failures", results)
    assert {row["kind"] for row in failures} == {"geometry", "head"}
    assert sorted({row["step"] for row in failures}) == [0, 2, 4, 5]
    assert all(row["message"] and row["traceback"] for row in failures)
    told = [r.getMessage() for r in caplog.records if r.name == "eigentrace"]
    assert len(told) == len(set(told)) >= 2
    assert "token ids 3" in "".join(told)

    def full(*_: Any) -> None:
        raise StoreError("the disk is full", "make room")

    caplog.clear()
    probe = _probe(texts, results, model="second")
    assert probe._store is not None
    monkeypatch.setattr(probe._store, "_write", full)
    assert _trainer(tiny_series, texts, tokenizer, tmp_path / "2", probe).train().global_step == 5
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"suite": " "}, "suite is ' '"),
        ({"stage": "rl"}, "stage is 'rl'"),
        ({"overlaps": "often"}, "overlaps is 'often'"),
        ({"sequences": 3}, "sequences is 3"),
        ({"sequences": 100}, "only 80 texts for 100"),
        ({"tokenizer": 3}, "no tokenizer"),
    ],
)
def test_wrong_arguments_are_refused(
    texts: Texts, results: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        _probe(texts, results, **changed)
    assert error.value.remedy
    assert not results.exists()


def test_wrong_texts_and_places_are_refused(texts: Texts, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "broken.jsonl").write_text("{")
    for given, place, message in (
        (texts.txt, "other", "not a results folder"),
        ("a text", "new", "no .txt or .jsonl"),
        (tmp_path / "missing.txt", "new", "there is no file"),
        (tmp_path / "broken.jsonl", "new", "cannot be read"),
        ([1, 2], "new", "texts hold int"),
    ):
        with pytest.raises(EigentraceError, match=message):
            GeometryProbe(given, results=tmp_path / place, suite="mine", **_DRAW)  # type: ignore[arg-type]


def test_every_kind_of_text_gives_the_sequences_of_a_study(
    tokenizer: Any, texts: Texts, results: Path
) -> None:
    files = TextFiles(((str(texts.jsonl), _sha256(texts.jsonl)),), "text", "\n\n")
    drawn = cut_sequences(
        list(read_documents(files, silent)),
        Sequences(**_DRAW),
        tokenizer,
        silent,  # type: ignore[arg-type]
    )
    column = datasets.Dataset.from_dict({"text": texts.documents})["text"]
    for given in (texts.txt, str(texts.jsonl), list(texts.documents), column):
        probe = GeometryProbe(given, results=results, suite="mine", **_DRAW)  # type: ignore[arg-type]
        found = probes.probe_sequences(probe._texts, probe._draw, tokenizer)
        assert found.fingerprint == drawn.fingerprint


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_trainings_that_cannot_be_probed_are_refused(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = (tiny_series, texts, tokenizer, tmp_path / "run")
    for name in ("FSDP", "DEEPSPEED"):
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{name}", "true")
            with pytest.raises(UsageError, match=name):
                probes.check_model(_model(tiny_series), TrainingArguments(str(tmp_path / "a")))
    prompted = get_peft_model(
        _model(tiny_series), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(UsageError, match="prompts"):
        probes.check_model(prompted, TrainingArguments(str(tmp_path / "a")))
    with pytest.raises(UsageError, match="runs in float64"):
        probes.check_model(_model(tiny_series).double(), TrainingArguments(str(tmp_path / "a")))
    trainer = _trainer(*at, _probe(texts, results))
    trainer.callback_handler.processing_class = None
    with pytest.raises(UsageError, match="no tokenizer"):
        trainer.train()
    assert not _rows("geometry", results)


def test_only_the_first_process_measures(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    probe = _probe(texts, results)
    monkeypatch.delenv("RANK")
    _trainer(tiny_series, texts, tokenizer, tmp_path / "run", probe).train()
    assert not results.exists()


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
    probe = _probe(texts, results, model=None, overlaps="never")
    shared: dict[str, Any] = {**_SHARED, "max_steps": 3, "save_strategy": "no", "bf16": False}
    # On the head as well, whose adapter has to be in effect.
    adapter = LoraConfig(r=2, target_modules=["query_key_value", "lm_head"], task_type="CAUSAL_LM")
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
    geometry, head = _rows("geometry", results), _rows("head", results)
    assert not _rows("failures", results)
    assert [row["step"] for row in geometry] == [row["step"] for row in head] == [0, 2, 3]
    assert {row["stage"] for row in geometry} == {kind}
    assert {row["model"] for row in geometry} == {"step100"}
    assert all(row["overlap_mean"] is None for row in head)
    merged = trainer.model.merge_and_unload() if lora else trainer.model
    norms = merged.get_output_embeddings().weight[: len(tokenizer)].double().norm(dim=1)
    np.testing.assert_allclose(head[-1]["token_norms"], norms.detach(), rtol=1e-5)
    assert head[0]["norm_mean"] != head[-1]["norm_mean"]
