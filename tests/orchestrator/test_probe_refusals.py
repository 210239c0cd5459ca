"""What a probe refuses, and what it takes for texts."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from peft import PromptTuningConfig, get_peft_model

from jobs.errors import EigentraceError, UsageError
from jobs.sources import TextFiles
from jobs.text_spec import Sequences
from orchestrator.probe import GeometryProbe
from tests.conftest import Texts
from tests.orchestrator.probed import (
    DRAW,
    dropping_model,
    padded_tokenizer,
    probe_of,
    rows_of,
    trainer_of,
)
from tests.workers.models import silent
from workers.documents import read_documents
from workers.probe import check_model, probe_sequences
from workers.sequences import cut_sequences


@pytest.fixture
def tokenizer(tiny_series: Path) -> Any:
    return padded_tokenizer(tiny_series)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


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
        probe_of(texts, results, **changed)
    assert error.value.remedy
    assert not results.exists()


def test_wrong_texts_and_places_are_refused(texts: Texts, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "broken.jsonl").write_text("{")
    cases: tuple[tuple[Any, str, str], ...] = (
        (texts.txt, "other", "not a results folder"),
        ("a text", "new", "no .txt or .jsonl"),
        (tmp_path / "missing.txt", "new", "there is no file"),
        (tmp_path / "broken.jsonl", "new", "cannot be read"),
        ([1, 2], "new", "texts hold int"),
    )
    for given, place, message in cases:
        with pytest.raises(EigentraceError, match=message):
            GeometryProbe(given, results=tmp_path / place, suite="mine", **DRAW)


def test_every_kind_of_text_gives_the_sequences_of_a_study(
    tokenizer: Any, texts: Texts, results: Path
) -> None:
    files = TextFiles(((str(texts.jsonl), _sha256(texts.jsonl)),), "text", "\n\n")
    drawn = cut_sequences(
        list(read_documents(files, silent)),
        Sequences(**DRAW),
        tokenizer,
        silent,
    )
    column = datasets.Dataset.from_dict({"text": texts.documents})["text"]
    for given in (texts.txt, str(texts.jsonl), list(texts.documents), column):
        probe = GeometryProbe(given, results=results, suite="mine", **DRAW)
        found = probe_sequences(probe._texts, probe._draw, tokenizer)
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
    plain = SimpleNamespace(fsdp=None, deepspeed=None)
    for name, spread in (
        ("FSDP", SimpleNamespace(fsdp="full_shard", deepspeed=None)),
        ("DEEPSPEED", SimpleNamespace(fsdp=None, deepspeed={"zero_optimization": {"stage": 3}})),
    ):
        with pytest.raises(UsageError, match=name):
            check_model(dropping_model(tiny_series), spread)
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{name}", "true")
            with pytest.raises(UsageError, match=name):
                check_model(dropping_model(tiny_series), plain)
    prompted = get_peft_model(
        dropping_model(tiny_series), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(UsageError, match="prompts"):
        check_model(prompted, plain)
    with pytest.raises(UsageError, match="runs in float64"):
        check_model(dropping_model(tiny_series).double(), plain)
    trainer = trainer_of(*at, probe_of(texts, results))
    trainer.callback_handler.processing_class = None
    with pytest.raises(UsageError, match="no tokenizer"):
        trainer.train()
    assert not rows_of("geometry", results)


def test_only_the_first_process_measures(
    tiny_series: Path,
    texts: Texts,
    tokenizer: Any,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    probe = probe_of(texts, results)
    monkeypatch.delenv("RANK")
    trainer_of(tiny_series, texts, tokenizer, tmp_path / "run", probe).train()
    assert not results.exists()
