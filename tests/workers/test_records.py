"""Records from the hub in the very forms in which known data sets are published."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DataError
from jobs.posttrain_spec import HubExamples
from jobs.posttrain_work import HubRecords
from jobs.published import expand, published_data
from tests.hub.client import no_waiting
from tests.hub.server import LocalHub
from workers.artifacts import SharedFiles
from workers.finetune.chats import preferences, supervised
from workers.hub import load_tokenizer
from workers.problems import read_problems
from workers.records import load_records

SCRIPT = b"raise RuntimeError('code of a data set was run')"
SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)
_ASKED = "\n\nHuman: Is it raining?\n\nAssistant: No.\n\nHuman: And there?\n\nAssistant:"
HH = {"chosen": f"{_ASKED} Yes.", "rejected": f"{_ASKED} Go away."}
TALK = [{"content": "Say it.", "role": "user"}, {"content": "It.", "role": "assistant"}]
OTHER = [TALK[0], {"content": "No.", "role": "assistant"}]
JUDGED = {"instruction": "Say it.", "output_1": "No.", "output_2": "It.", "preference": 2}
ANNOTATED = JUDGED | {
    **{"annotator_index": 3, "dataset": "koala", "datasplit": "eval"},
    **{"generator": "davinci", "sample_mode": "temp"},
}
GSM8K = {"question": "How many clips?", "answer": "She sold 48+24 = <<48+24=72>>72.\n#### 72"}
MATH = {
    "problem": "Halve one.",
    "level": "Level 1",
    "type": "Algebra",
    "solution": r"It is $\boxed{\frac{1}{2}}$.",
}
RLVR: list[dict[str, Any]] = [
    {
        "messages": [{"content": "Question: 1+1?\nAnswer:", "role": "user"}],
        "ground_truth": "2",
        "dataset": "gsm8k",
        "constraint_type": None,
        "constraint": None,
    },
    {
        "messages": [{"content": "Speak softly.", "role": "user"}],
        "ground_truth": '{"func_name": "validate_lowercase"}',
        "dataset": "ifeval",
        "constraint_type": "All Lowercase",
        "constraint": "Your entire response should be in lowercase letters.",
    },
    {
        "messages": [{"content": "Problem:\nHalve one.", "role": "user"}],
        "ground_truth": r"\frac{1}{2}",
        "dataset": "MATH",
        "constraint_type": None,
        "constraint": None,
    },
]


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(*records: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue()


def listed(*records: dict[str, Any]) -> bytes:
    """As these files are: one indented list."""
    return json.dumps(records, indent=2).encode()


_HH_FILES = {
    f"{part}/{split}.jsonl.gz": gzip.compress(jsonl(HH), mtime=0)
    for part in ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
    for split in ("train", "test")
} | {"red-team-attempts/red_team_attempts.jsonl.gz": gzip.compress(jsonl({"transcript": "x"}))}
_GSM8K_CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""
_GSM8K_FILES = {
    "README.md": _GSM8K_CARD,
    "main/train-00000-of-00001.parquet": parquet(GSM8K, GSM8K),
    "main/test-00000-of-00001.parquet": parquet(GSM8K),
    "socratic/train-00000-of-00001.parquet": parquet({"question": "no", "answer": "no"}),
}
_ULTRAFEEDBACK_CARD = b"""---
configs:
- config_name: default
  data_files:
  - {split: train_prefs, path: data/train_prefs-*}
  - {split: train_sft, path: data/train_sft-*}
---
"""
_PREFERRED = {"prompt": "Say it.", "chosen": TALK, "rejected": OTHER}
_ULTRAFEEDBACK = _PREFERRED | {
    "prompt_id": "a",
    "messages": TALK,
    "score_chosen": 8.0,
    "score_rejected": 2.0,
}
_ALPACA_EVAL_FILES = {
    "alpaca_eval.py": SCRIPT,
    "alpaca_eval.json": listed({"instruction": "another reference", "output": "x"}),
    "alpaca_eval_gpt4_baseline.json": listed(
        {"instruction": "Say it.", "output": "It.", "generator": "gpt4", "dataset": "koala"}
    ),
    "alpaca_farm_human_annotations.json": listed(ANNOTATED, ANNOTATED | {"preference": 1}),
}
FILES: dict[str, dict[str, bytes]] = {
    "anthropic-hh": _HH_FILES,
    "anthropic-hh-test": _HH_FILES,
    "alpaca-farm": _ALPACA_EVAL_FILES,
    "alpaca-eval": _ALPACA_EVAL_FILES,
    "alpaca-farm-preferences": {
        "alpaca_farm.py": SCRIPT,
        "alpaca_human_preference.json": listed(
            JUDGED | {"input": "", "raw_preference": 2},
            JUDGED | {"input": "Loud.", "preference": 1},
        ),
        "alpaca_gpt4_preference.json": listed(JUDGED),
        "alpaca_instructions/sft.json": listed({"instruction": "no", "output": "no"}),
    },
    "ultrafeedback": {
        "README.md": _ULTRAFEEDBACK_CARD,
        "data/train_prefs-00000-of-00001.parquet": parquet(_ULTRAFEEDBACK),
        "data/train_sft-00000-of-00001.parquet": parquet({"prompt": "no"}),
    },
    "tulu3-sft": {
        "data/train-00000-of-00001.parquet": parquet({"id": "a", "messages": TALK, "source": "x"})
    },
    "tulu3-preferences": {
        "data/train-00000-of-00001.parquet": parquet({"id": "a", "source": "x", **_PREFERRED})
    },
    "tulu3-rlvr": {"data/train-00000-of-00001.parquet": parquet(*RLVR)},
    "gsm8k": _GSM8K_FILES,
    "gsm8k-test": _GSM8K_FILES,
    "math": {
        "hendrycks_math.py": SCRIPT,
        **{
            f"{subject}/{split}-00000-of-00001.parquet": parquet(MATH | {"type": subject})
            for subject in SUBJECTS
            for split in ("train", "test")
        },
    },
    "math-500": {"test.jsonl": jsonl(MATH | {"answer": r"\frac{1}{2}", "subject": "Algebra"})},
    "amc23": {
        "test-00000-of-00001.parquet": parquet(
            {"id": 0, "question": "How far?", "answer": "27", "url": "u"}
        )
    },
}
COUNTS = {
    **dict.fromkeys(FILES, 1),
    **{"anthropic-hh": 4, "anthropic-hh-test": 4, "gsm8k": 2, "math": 7},
    **{"alpaca-farm": 2, "alpaca-farm-preferences": 2, "tulu3-rlvr": 2},
}


def published(hub: LocalHub, name: str, **changes: Any) -> HubRecords:
    """A data set's files on the hub, and what a study that takes it by name reads of them."""
    (given,) = expand({"training": {"data": {"use": name, **changes}}})["training"].values()
    asked = HubExamples.model_validate(given)
    return HubRecords(
        "data",
        asked.repository,
        asked.config,
        asked.split,
        hub.dataset(asked.repository).commit("main", FILES[name]),
        asked.limit,
        asked.files,
        tuple(asked.where.items()),
        asked.records,
    )


def read(records: HubRecords, folder: Path) -> list[dict[str, Any]]:
    return load_records(records, SharedFiles(folder))


def test_all_that_ships_is_tried() -> None:
    assert set(FILES) == set(published_data())


@pytest.mark.parametrize("name", FILES)
def test_known_data_is_read(local_hub: LocalHub, tmp_path: Path, name: str) -> None:
    found = read(published(local_hub, name, records=COUNTS[name]), tmp_path)
    assert len(found) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "anthropic-hh",
            [
                *(("user", "Is it raining?"), ("assistant", "No.")),
                *(("user", "And there?"), ("assistant", "Yes.")),
            ],
        ),
        *(
            (name, [("user", "Say it."), ("assistant", "It.")])
            for name in ("alpaca-farm", "alpaca-farm-preferences", "ultrafeedback", "tulu3-sft")
        ),
        ("tulu3-preferences", [("user", "Say it."), ("assistant", "It.")]),
        ("alpaca-eval", [("user", "Say it."), ("assistant", "It.")]),
    ],
)
def test_chats_are_what_their_makers_meant(
    local_hub: LocalHub,
    tmp_path: Path,
    tokenizer: Path,
    name: str,
    expected: list[tuple[str, str]],
) -> None:
    found = read(published(local_hub, name, records=COUNTS[name]), tmp_path)
    examples = supervised(found, name, load_tokenizer(tokenizer))
    turns = [(turn["role"], turn["content"]) for turn in examples[0]["messages"]]
    assert turns == expected
    if name in ("alpaca-farm", "alpaca-farm-preferences"):
        assert examples[1]["messages"][-1]["content"] == "No."


@pytest.mark.parametrize(
    "name", ["alpaca-farm", "alpaca-farm-preferences", "ultrafeedback", "tulu3-preferences"]
)
def test_preferences_are_what_their_makers_meant(
    local_hub: LocalHub, tmp_path: Path, tokenizer: Path, name: str
) -> None:
    found = read(published(local_hub, name, records=COUNTS[name]), tmp_path)
    first = preferences(found, name, load_tokenizer(tokenizer))[0]
    said = [first[key][-1]["content"] for key in ("prompt", "chosen", "rejected")]
    assert said == ["Say it.", "It.", "No."]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", [("How many clips?", "72")] * 2),
        ("gsm8k-test", [("How many clips?", "72")]),
        ("math", [("Halve one.", r"\frac{1}{2}")] * 7),
        ("math-500", [("Halve one.", r"\frac{1}{2}")]),
        ("amc23", [("How far?", "27")]),
        (
            "tulu3-rlvr",
            [("Question: 1+1?\nAnswer:", "2"), ("Problem:\nHalve one.", r"\frac{1}{2}")],
        ),
    ],
)
def test_problems_have_their_answers(
    local_hub: LocalHub, tmp_path: Path, name: str, expected: list[tuple[str, str]]
) -> None:
    found = read(published(local_hub, name, records=COUNTS[name]), tmp_path)
    assert read_problems(name, found) == expected


def test_another_number_than_the_study_counts_on_is_told(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"'data' has 2 records, .*on 7473 → set training.data.rec"):
        read(published(local_hub, "gsm8k"), tmp_path)
    with pytest.raises(DataError, match="has 2 records, and the study counts on 3"):
        read(published(local_hub, "gsm8k", records=3, limit=7), tmp_path)
    assert len(read(published(local_hub, "gsm8k", records=3, limit=2), tmp_path)) == 2
    # The shipped number is not that of another split.
    assert len(read(published(local_hub, "gsm8k", split="test"), tmp_path)) == 1


def test_what_cannot_be_rewarded_is_left_out_by_a_field_not_by_chance(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    everything = read(published(local_hub, "tulu3-rlvr", where={}), tmp_path)
    assert len(everything) == 3
    with pytest.raises(DataError, match=r"record 2 asks for the constraint 'All Lowercase'"):
        read_problems("data", everything)
    with pytest.raises(DataError, match="record 1 has no field 'origin', only messages, ground_tr"):
        read(published(local_hub, "tulu3-rlvr", where={"origin": ["x"]}), tmp_path)
    with pytest.raises(DataError, match="holds no records"):
        read(published(local_hub, "tulu3-rlvr", where={"dataset": ["none"]}), tmp_path)


def test_a_file_that_is_not_there_is_named(local_hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks one of gone.json → see its files on the hub"):
        read(published(local_hub, "alpaca-eval", files=["gone.json"]), tmp_path)
    records = published(local_hub, "gsm8k", config="mian", split="train")
    with pytest.raises(DataError, match="no config 'mian', only main, socratic"):
        read(records, tmp_path)


def test_a_folder_of_the_same_name_is_not_the_data(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "openai" / "gsm8k"
    here.mkdir(parents=True)
    (here / "train.jsonl").write_bytes(jsonl({"question": "from the disk", "answer": "1"}))
    monkeypatch.chdir(tmp_path)
    found = read(published(local_hub, "gsm8k", records=2), tmp_path)
    assert found[0]["question"] == GSM8K["question"]


def test_a_hub_that_is_away_is_no_fault_of_the_data(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = published(local_hub, "alpaca-eval", records=1)
    no_waiting(monkeypatch)
    monkeypatch.setattr("workers.hub_text._PAUSES", ())
    local_hub.close()
    with pytest.raises(OSError, match="tatsu-lab/alpaca_eval cannot be streamed from the hub"):
        read(records, tmp_path)
