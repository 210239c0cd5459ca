"""Records from the hub in the very forms in which known data sets are published."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from jobs.posttrain_spec import HubExamples
from jobs.posttrain_work import HubRecords, PicoRecords
from jobs.published import expand, published_data
from tests.hub.client import no_waiting
from tests.hub.datasets import COUNTS, FILES, GSM8K, jsonl
from tests.hub.server import LocalHub
from workers.artifacts import SharedFiles
from workers.finetune.chats import preferences, supervised
from workers.hub import load_tokenizer
from workers.problems import read_problems
from workers.records import _of_pico, load_records


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


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("instructions", [("train?", " red"), ("1+1=", "2")]),
        ("heldout_instructions", [("heldout?", " red"), ("3+3=", "6")]),
    ],
)
def test_generated_instructions_are_questions_and_sums_in_turns(
    tmp_path: Path, form: Any, expected: list[tuple[str, str]]
) -> None:
    for split, problem, answer in (("train", "1+1=", "2"), ("heldout", "3+3=", "6")):
        question = {"prompt": f"{split}?", "answer": " red", "choices": [" red", " blue"]}
        lines = jsonl(question | {"label": 0})
        (tmp_path / f"questions_{split}.jsonl").write_bytes(lines)
        sums = jsonl({"problem": problem, "answer": answer})
        (tmp_path / f"arithmetic_{split}.jsonl").write_bytes(sums)
    found = _of_pico(PicoRecords("made", "0" * 64, form, None), tmp_path)
    assert [(record["prompt"], record["completion"]) for record in found] == expected
