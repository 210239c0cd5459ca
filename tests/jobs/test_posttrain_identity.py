"""Post-training: every parameter is part of an id, labels are not; what shares a group."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.capability_spec import ChatLoss
from jobs.cells import Cell
from jobs.posttrain_spec import Adapters, Chain, PassK, TrainingStage
from jobs.posttrain_work import HubRecords
from jobs.sources import Produced
from jobs.work import Work, gpus
from tests.jobs.posttrain_works import (
    CHATS,
    FILES,
    PASSK,
    POSTTRAIN,
    SAMPLE,
    SAMPLING,
    STAGE,
    SUMS,
    A,
    B,
)
from tests.jobs.test_cells import CHECKPOINT

STAGE_CHANGES: tuple[dict[str, Any], ...] = (
    {"method": "dpo"},
    {"steps": 9},
    {"save_steps": (4,)},
    {"learning_rate": 1e-4},
    {"schedule": "constant"},
    {"warmup_share": 0.0},
    {"batch_size": 8},
    {"accumulation": 2},
    {"weight_decay": 0.1},
    {"max_length": 64},
    {"loss_reduction": "sum"},
    {"beta": 0.1},
    {"completions": 8},
    {"completion_tokens": 9},
    {"temperature": 0.7},
    {"length_normalized": True},
    {"adapters": Adapters()},
)
SAMPLING_CHANGES: tuple[dict[str, Any], ...] = (
    {"samples": 8},
    {"temperature": 0.6},
    {"top_p": 0.9},
    {"new_tokens": 8},
    {"seed": 1},
    {"engine": "transformers"},
    {"threads": 2},
    {"time_limit": 1.0},
    {"dtype": "bfloat16"},
    {"tensor_parallel": 2},
)
HUB = HubRecords("hub", "a/b", None, "train", "0" * 40, None)


def _chain(processes: int, **stage: Any) -> Chain:
    stages = (TrainingStage(data="sums", steps=8, **stage),)
    return Chain(name="tuned", suite="tiny", stages=stages, processes=processes)


def _id(work: Work) -> str:
    return Cell(work, checkpoint=CHECKPOINT).id


@pytest.mark.parametrize("change", STAGE_CHANGES)
def test_every_setting_of_a_stage_is_part_of_an_id(change: dict[str, Any]) -> None:
    changed = STAGE.model_copy(update=change)
    assert _id(replace(POSTTRAIN, training=changed)) != _id(POSTTRAIN)


@pytest.mark.parametrize("change", SAMPLING_CHANGES)
def test_every_setting_of_the_sampling_is_part_of_an_id(change: dict[str, Any]) -> None:
    assert _id(replace(SAMPLE, sampling=replace(SAMPLING, **change))) != _id(SAMPLE)


@pytest.mark.parametrize(
    ("work", "change"),
    [
        (POSTTRAIN, {"seed": 1}),
        (POSTTRAIN, {"threads": 2}),
        (POSTTRAIN, {"dtype": "bfloat16"}),
        (POSTTRAIN, {"processes": 2}),
        (POSTTRAIN, {"records": FILES}),
        (POSTTRAIN, {"records": HUB}),
        (POSTTRAIN, {"records": replace(SUMS, corpus=B)}),
        (POSTTRAIN, {"records": replace(SUMS, form="instructions")}),
        (POSTTRAIN, {"records": replace(SUMS, limit=3)}),
        (SAMPLE, {"records": FILES}),
        (SAMPLE, {"first": 32}),
        (SAMPLE, {"count": 16}),
        (PASSK, {"samples": (B,)}),
        (PASSK, {"samples": (A, B)}),
        (PASSK, {"k": (1,)}),
        (CHATS, {"records": SUMS}),
        (CHATS, {"draw": CHATS.draw.model_copy(update={"sequences": 9})}),
        (CHATS, {"draw": CHATS.draw.model_copy(update={"sequence_length": 9})}),
        (CHATS, {"draw": CHATS.draw.model_copy(update={"seed": 9})}),
        (CHATS, {"tokenizer": Produced(A, "tokenizer")}),
    ],
)
def test_parameters_are_part_of_an_id(work: Any, change: dict[str, Any]) -> None:
    assert _id(replace(work, **change)) != _id(work)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, "another") for name in ("repository", "config", "split", "commit")),
        ("limit", 7),
        ("files", ("a.json",)),
        ("where", (("dataset", ("a",)),)),
    ],
)
def test_all_of_a_dataset_on_the_hub_counts(field: str, value: object) -> None:
    new: dict[str, Any] = {field: value}
    assert _id(replace(POSTTRAIN, records=replace(HUB, **new))) != (
        _id(replace(POSTTRAIN, records=HUB))
    )


def test_what_a_study_expects_is_no_part_of_an_id() -> None:
    work = replace(POSTTRAIN, records=replace(HUB, expected=3))
    assert _id(work) == _id(replace(POSTTRAIN, records=HUB))


def test_new_settings_leave_older_ids_alone() -> None:
    training = POSTTRAIN.parameters["training"]
    assert isinstance(training, dict)
    assert not training.keys() & {"data", "epochs", "length_normalized"}
    assert HUB.identity.keys() == {"repository", "config", "split", "commit", "limit"}


def test_one_process_and_one_gpu_go_without_saying() -> None:
    assert "processes" not in POSTTRAIN.parameters
    assert SAMPLING.parameters.keys() == vars(SAMPLING).keys() - {"tensor_parallel"}
    assert (gpus(POSTTRAIN), gpus(SAMPLE), gpus(PASSK)) == (1, 1, 1)
    assert gpus(replace(POSTTRAIN, processes=4)) == 4
    assert gpus(replace(SAMPLE, sampling=replace(SAMPLING, tensor_parallel=2))) == 2


def test_names_are_no_part_of_an_id() -> None:
    renamed = STAGE.model_copy(update={"data": "others"})
    for records in (SUMS, FILES, HUB):
        work = replace(POSTTRAIN, records=records)
        other = replace(records, name="others")
        assert _id(replace(work, training=renamed, records=other)) == _id(work)
        assert _id(replace(SAMPLE, records=other)) == _id(replace(SAMPLE, records=records))
    assert _id(replace(PASSK, problems="others")) == _id(PASSK)
    several = ChatLoss(data=("chats", "others"))
    assert _id(replace(CHATS, dataset="others", draw=several)) == _id(CHATS)
    assert Cell(CHATS, suite="suite").label == "chats chats"


def test_samples_of_a_checkpoint_share_a_group_and_stages_stand_alone() -> None:
    one, two = (Cell(replace(SAMPLE, first=first), checkpoint=CHECKPOINT) for first in (0, 32))
    assert one.group == two.group == Cell(PASSK, checkpoint=CHECKPOINT).group
    stage = Cell(POSTTRAIN, checkpoint=CHECKPOINT)
    assert stage.group == stage.id
    assert stage.label == "posttrain sft on sums seed 0 suite/model@step1"
    assert one.label == "sample sums from 0 suite/model@step1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PassK(problems=("sums",), samples=8, k=(1, 16)), "pass@16 needs 16 samples"),
        (
            lambda: TrainingStage(method="sft", data="sums", steps=8, save_steps=(9,)),
            "beyond the last step 8",
        ),
        (
            lambda: TrainingStage(method="rlvr", data="sums", steps=8, batch_size=24),
            "must be a multiple of completions",
        ),
        (
            lambda: PassK(problems=("sums",), tensor_parallel=2, engine="transformers"),
            "tensor_parallel = 2 is for vLLM alone, and engine is transformers",
        ),
        (
            lambda: _chain(3, method="dpo"),
            "batch_size = 16 of stage dpo must be a multiple of processes = 3",
        ),
        (
            lambda: _chain(4, method="rlvr", completions=8),
            "accumulation / processes = 4 of stage rlvr must be a multiple of completions = 8",
        ),
    ],
)
def test_mistakes_are_told_in_words(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()
