"""Data and stages of post-training that ship: valid, and what a study says wins."""

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from jobs.errors import StudyError
from jobs.posttrain_spec import HubExamples, TrainingStage
from jobs.published import expand, published_data, published_stages
from jobs.study import load_study, schema

DATA = (
    *("anthropic-hh", "anthropic-hh-test", "alpaca-farm", "alpaca-farm-preferences"),
    *("ultrafeedback", "tulu3-sft", "tulu3-preferences", "tulu3-rlvr", "gsm8k", "gsm8k-test"),
    *("math", "math-500", "amc23", "alpaca-eval"),
)


def _data(use: str, **fields: Any) -> HubExamples:
    (given,) = expand({"training": {"mine": {"use": use, **fields}}})["training"].values()
    return HubExamples.model_validate(given)


def _stage(use: str, **fields: Any) -> TrainingStage:
    document = {"posttrain": [{"stages": [{"use": use, "data": "mine", **fields}]}]}
    return TrainingStage.model_validate(expand(document)["posttrain"][0]["stages"][0])


@pytest.mark.parametrize("name", published_data())
def test_data_is_valid_and_has_a_number(name: str) -> None:
    data = _data(name)
    assert (data.limit is None) != (data.records is None)


def test_all_of_it_is_there() -> None:
    assert set(published_data()) == set(DATA)
    assert published_stages() == ("tracing-sft", "tulu3-sft", "tulu3-dpo", "tulu3.1-rlvr")


def test_the_papers_fine_tuning_is_table_6() -> None:
    stage = _stage("tracing-sft")
    assert (stage.method, stage.learning_rate, stage.epochs) == ("sft", 1e-5, 2)
    assert (stage.batch_size, stage.accumulation, stage.max_length) == (16, 16, 4096)
    assert (stage.schedule, stage.warmup_share, stage.loss_reduction) == ("linear", 0.1, "sum")


def test_tulus_stages_have_its_batches() -> None:
    found = {name: _stage(name) for name in published_stages() if name.startswith("tulu")}
    batches = {name: s.batch_size * s.accumulation for name, s in found.items()}
    assert batches == {"tulu3-sft": 128, "tulu3-dpo": 128, "tulu3.1-rlvr": 768}
    assert found["tulu3-dpo"].length_normalized
    assert (found["tulu3-dpo"].beta, found["tulu3.1-rlvr"].beta) == (5, 0.01)


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        ({"split": "test"}, {"records", "limit"}),
        ({"revision": "v2"}, {"records", "limit"}),
        ({"config": "socratic"}, {"records", "limit"}),
        ({"repository": "mine/copy"}, {"records", "limit", "config"}),
        ({"limit": 7}, set[str]()),
    ],
)
def test_a_number_holds_only_for_what_was_counted(fields: dict[str, Any], gone: set[str]) -> None:
    before, after = _data("gsm8k"), _data("gsm8k", **fields)
    assert before.records == 7473
    for name in ("records", "config"):
        expected = None if name in gone else getattr(before, name)
        assert getattr(after, name) == fields.get(name, expected)


def test_files_and_splits_put_each_other_out_of_force() -> None:
    assert _data("alpaca-farm", split="test").files == ()
    assert _data("gsm8k", files=["a.json"]).config is None
    assert _data("tulu3-sft", records=939_344).limit is None
    assert _stage("tracing-sft", steps=3).epochs is None
    assert _stage("tulu3.1-rlvr", epochs=1).steps == 0


@pytest.mark.parametrize(
    ("document", "said", "remedy"),
    [
        ({"training": {"a": {"use": "gsm8"}}}, "no training data 'gsm8' ships.*'gsm8k'", "amc23"),
        (
            {"posttrain": [{"stages": [{"use": "tulu3-dop"}]}]},
            "no stage 'tulu3-dop' ships.*'tulu3-dpo'",
            "or write the stage down",
        ),
    ],
)
def test_an_unknown_name_gets_the_nearest(document: Any, said: str, remedy: str) -> None:
    with pytest.raises(StudyError, match=said) as caught:
        expand(document)
    assert remedy in caught.value.remedy


def test_what_has_another_form_passes_unchanged() -> None:
    for document in (
        {"training": 3, "posttrain": {"stages": 1}},
        {"training": {"a": 3}, "posttrain": [3, {"stages": 3}, {"stages": [3]}, {}]},
    ):
        assert expand(document) == document


def test_overrides_reach_what_is_taken_by_name() -> None:
    study = load_study(
        "overtraining",
        [
            "training.hh.limit=100",
            "posttrain.hh.stages.tracing-sft.learning_rate=1e-4",
            "posttrain.hh.seeds=[1]",
        ],
    )
    data = study.training["hh"]
    assert isinstance(data, HubExamples)
    assert (data.limit, data.records) == (100, 160_800)
    assert study.posttrain[0].stages[0].learning_rate == 1e-4
    assert study.posttrain[1].stages[0].learning_rate == 1e-5


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({"training": {"a": {"use": "gsm8k", "split": "test"}}}, True),
        ({"training": {"a": {"use": "gsm9k"}}}, False),
        ({"training": {"a": {"use": "gsm8k", "splits": "test"}}}, False),
        ({"posttrain": [{"stages": [{"use": "tulu3-dpo", "data": "a"}]}]}, True),
        ({"posttrain": [{"stages": [{"use": "tulu3-dop", "data": "a"}]}]}, False),
    ],
)
def test_the_schema_knows_what_ships(document: dict[str, Any], valid: bool) -> None:
    chains = [{"name": "c", "suite": "pico", **chain} for chain in document.get("posttrain", ())]
    whole = {
        **{"name": "x", "suites": [{"kind": "pico"}]},
        **document,
        **({"posttrain": chains} if chains else {}),
    }
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(whole) == valid


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"files": ["a.json"], "config": "b"}, "`files` stand instead of `config`"),
        ({"files": ["a.json"], "split": "test"}, "`files` stand instead of `config`"),
        ({"files": ["a.json", "b.parquet"]}, "must all be Parquet, or all JSON"),
        ({"files": ["a.py"]}, "should match pattern"),
        ({"files": ["/a.json"]}, "should match pattern"),
        ({"files": ["a@b/c.json"]}, "should match pattern"),
        ({"files": ["*.json"]}, "should match pattern"),
    ],
)
def test_files_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HubExamples.model_validate({"repository": "a/b", **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give either `steps`, at least 1, or `epochs`"),
        ({"steps": 0}, "give either `steps`"),
        ({"steps": 1, "epochs": 1}, "give either `steps`"),
        ({"epochs": 0}, "greater than 0"),
        ({"steps": 1, "method": "sft", "length_normalized": True}, "of no use for sft"),
    ],
)
def test_stages_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingStage.model_validate({"method": "dpo", "data": "a", **fields})


@pytest.mark.parametrize(
    ("fields", "examples", "steps"),
    [
        ({"method": "sft", "epochs": 2, "accumulation": 16}, 160_800, 1257),
        ({"method": "sft", "epochs": 2, "accumulation": 16}, 17_650, 138),
        ({"method": "dpo", "epochs": 1}, 16, 1),
        ({"method": "dpo", "epochs": 1}, 17, 2),
        ({"method": "dpo", "epochs": 0.1}, 160, 1),
        ({"method": "dpo", "epochs": 0.1}, 480, 3),
        # Each problem is answered 16 times.
        ({"method": "rlvr", "epochs": 1, "accumulation": 8}, 80, 10),
    ],
)
def test_epochs_are_steps_of_all_examples(
    fields: dict[str, Any], examples: int, steps: int
) -> None:
    stage = TrainingStage.model_validate({"data": "a", **fields}).counted(examples)
    assert (stage.steps, stage.epochs) == (steps, None)
