"""Cells: every parameter is part of an id, no label, path or resource is."""

import dataclasses
from typing import Any

import pytest

from jobs.capability_work import (
    AblationWork,
    EvalWork,
    ForeignIndex,
    GenerateWork,
    IndexWork,
    InfinigramWork,
    MemorizationWork,
)
from jobs.cells import PRIMARY_TABLES, Cell, Checkpoint
from jobs.findings import AuditWork
from jobs.finetune_work import FinetuneWork, PicoPairs, Recipe, SensitivityWork
from jobs.pico_spec import PicoCorpus, PicoModel
from jobs.questions import HarnessQuestions, HubData, PicoQuestions
from jobs.records import SIDE_TABLES, TABLES
from jobs.sources import Folder, Produced, TextFiles
from jobs.text_spec import PicoText
from jobs.toy_spec import ToySweep
from jobs.toy_work import ToyWork
from jobs.work import (
    CheckpointWork,
    CorpusWork,
    GeometryWork,
    HeadWork,
    LossWork,
    PretrainWork,
    SequencesWork,
    Work,
)
from tests.jobs.posttrain_works import POSTTRAIN_WORKS
from tests.jobs.winrate_works import WINRATE_WORKS

A, B = "a" * 64, "b" * 64
FOLDER = Folder("/one", (("config.json", A), ("model.safetensors", B)))
TOKENIZER = Folder("/one", (("tokenizer.json", A),))
CHECKPOINT = Checkpoint("suite", "model", "step1", 1, 64, "pretrain", FOLDER, TOKENIZER)
DRAW = PicoText(sequences=100, sequence_length=32)
TEXT = TextFiles((("/text.txt", A),), "text", "\n\n")
ASKED = PicoQuestions("facts", A, "open", "heldout", 3)
NAMED = HarnessQuestions("mine", "sciq", None, TEXT, 0, None)
FOREIGN = ForeignIndex("/one", (("table.0", 3, A),), 2)
SWEEP = ToySweep(
    name="two", counts=((2, 1),), widths=(1,), scales=(0.1,), learning_rates=(0.1,), seeds=2
)
PAIRS = PicoPairs("facts", A, "open")
RECIPE = Recipe(
    method="lora",
    intervention="none",
    clip=None,
    rank=8,
    targets=("attention",),
    groups=None,
    alpha=16.0,
    dropout=0.05,
    epochs=3,
    batch_size=16,
    learning_rate=2e-4,
    weight_decay=0.01,
    seed=0,
    threads=1,
    dtype="float32",
)
TRIAL = FinetuneWork(PAIRS, RECIPE, 512, 256, 512, "{prompt}", "heldout", A, 256)
SENSITIVITY = SensitivityWork("heldout", A, 256, (0.01, 0.1), (0, 1), "float32")
WORKS: tuple[Work, ...] = (
    CorpusWork(PicoCorpus(), A),
    PretrainWork(PicoModel(), A),
    SequencesWork("heldout", TEXT, DRAW, TOKENIZER),
    CheckpointWork(),
    GeometryWork("heldout", A, "last", "float32"),
    LossWork("heldout", A, "float32"),
    HeadWork("heldout", A, 20, False),
    AuditWork(A, 3, 0, ()),
    EvalWork(ASKED, "float32"),
    AblationWork("heldout", A, ASKED, (1, 2), "keep", "float32"),
    IndexWork(TEXT, TOKENIZER),
    InfinigramWork(ASKED, Produced(A, ""), TOKENIZER),
    MemorizationWork("facts", A, "float32"),
    GenerateWork(("Once",), 8, "float32"),
    ToyWork(SWEEP),
    TRIAL,
    SENSITIVITY,
    *WINRATE_WORKS,
    *POSTTRAIN_WORKS,
)

ASKED_CHANGES: tuple[dict[str, Any], ...] = (
    {"corpus": B},
    {"form": "choice"},
    {"questions": "train"},
    {"limit": None},
)
SWEEP_CHANGES: tuple[dict[str, Any], ...] = (
    {"counts": ((1, 2),)},
    {"widths": (2,)},
    {"scales": (0.2,)},
    {"learning_rates": (0.2,)},
    {"loss": "squared_error"},
    {"start": "balanced"},
    {"seeds": 3},
    {"first_seed": 1},
    {"last_step": 5},
    {"points": 9},
    {"keep": 1},
)
NAMED_CHANGES: tuple[dict[str, Any], ...] = (
    {"task": "arc_easy"},
    {"task": None, "config": TEXT},
    {"data": HubData("a/b", "0" * 40)},
    {"shots": 1},
    {"limit": 3},
)


def _id(work: Work, checkpoint: Checkpoint | None = None) -> str:
    return Cell(work, checkpoint=checkpoint).id


def _replaced(value: Any, field: str, new: Any) -> Any:
    return dataclasses.replace(value, **{field: new})


def test_kinds_are_told_apart() -> None:
    assert len({_id(work, CHECKPOINT) for work in WORKS}) == len(WORKS)
    assert len({work.kind for work in WORKS}) == len(WORKS)


def test_every_kind_fills_a_primary_table() -> None:
    assert {work.table for work in WORKS} == set(PRIMARY_TABLES)
    assert set(TABLES) == {*PRIMARY_TABLES, *SIDE_TABLES, "failures"}


def test_a_new_version_is_a_new_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _id(CheckpointWork(), CHECKPOINT)
    monkeypatch.setattr(CheckpointWork, "version", 2)
    assert _id(CheckpointWork(), CHECKPOINT) != before


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("suite", "another"),
        ("model", "another"),
        ("revision", "step2"),
        ("step", 2),
        ("tokens", None),
        ("stage", "sft"),
        ("source", Folder("/elsewhere", FOLDER.files)),
        ("tokenizer", Folder("/elsewhere", TOKENIZER.files)),
    ],
)
def test_labels_of_a_checkpoint_are_no_part_of_an_id(field: str, new: Any) -> None:
    other = _replaced(CHECKPOINT, field, new)
    for work in WORKS:
        assert _id(work, other) == _id(work, CHECKPOINT)
    assert Cell(CheckpointWork(), checkpoint=other).group == (
        Cell(CheckpointWork(), checkpoint=CHECKPOINT).group
    )


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("source", Folder("/one", (("config.json", A), ("model.safetensors", A)))),
        ("source", Folder("/one", (("config.json", A),))),
        ("source", Folder("/one", (("config.json", A), ("other.safetensors", B)))),
        ("source", Produced(A, "step1")),
        ("source", Produced(A, "step2")),
        ("tokenizer", Folder("/one", (("tokenizer.json", B),))),
        ("tokenizer", Produced(A, "tokenizer")),
    ],
)
def test_contents_of_a_checkpoint_are_part_of_every_id(field: str, new: Any) -> None:
    other = _replaced(CHECKPOINT, field, new)
    for work in WORKS:
        assert _id(work, other) != _id(work, CHECKPOINT)


@pytest.mark.parametrize(
    ("work", "field", "new"),
    [
        (WORKS[0], "source", B),
        (WORKS[1], "corpus", B),
        (WORKS[2], "text", Produced(A, "heldout.jsonl")),
        (WORKS[2], "text", TextFiles((("/text.txt", B),), "text", "\n\n")),
        (WORKS[2], "text", TextFiles((("/text.txt", A),), "body", "\n\n")),
        (WORKS[2], "text", TextFiles((("/text.txt", A),), "text", "\n")),
        (WORKS[2], "text", TextFiles((("/t", A), ("/u", B)), "text", "\n\n")),
        (WORKS[2], "tokenizer", Folder("/one", (("tokenizer.json", B),))),
        (WORKS[4], "sequences", B),
        (WORKS[4], "layers", "all"),
        (WORKS[4], "dtype", "bfloat16"),
        (WORKS[5], "sequences", B),
        (WORKS[5], "dtype", "float16"),
        (WORKS[6], "sequences", None),
        (WORKS[6], "sequences", B),
        (WORKS[6], "extreme_tokens", 21),
        (WORKS[6], "drop_zero_rows", True),
        (WORKS[4], "sample_counts", (10,)),
        (WORKS[4], "sequence_lengths", (10,)),
        (WORKS[8], "questions", NAMED),
        (WORKS[8], "dtype", "bfloat16"),
        *(
            (WORKS[8], "questions", dataclasses.replace(ASKED, **change))
            for change in ASKED_CHANGES
        ),
        *(
            (EvalWork(NAMED, "float32"), "questions", dataclasses.replace(NAMED, **change))
            for change in NAMED_CHANGES
        ),
        (WORKS[9], "sequences", B),
        (WORKS[9], "questions", NAMED),
        (WORKS[9], "ranks", (1, 3)),
        (WORKS[9], "mean", "drop"),
        (WORKS[9], "dtype", "bfloat16"),
        (WORKS[10], "corpus", Produced(A, "train.safetensors")),
        (WORKS[10], "tokenizer", Produced(A, "tokenizer")),
        (WORKS[11], "questions", NAMED),
        (WORKS[11], "index", FOREIGN),
        (WORKS[11], "tokenizer", Produced(A, "tokenizer")),
        (WORKS[12], "answers", B),
        (WORKS[12], "dtype", "bfloat16"),
        (WORKS[13], "prompts", ("Twice",)),
        (WORKS[13], "new_tokens", 9),
        (WORKS[13], "dtype", "bfloat16"),
        (SENSITIVITY, "sequences", B),
        (SENSITIVITY, "dataset_sequences", 255),
        (SENSITIVITY, "scales", (0.01,)),
        (SENSITIVITY, "seeds", (0,)),
        (SENSITIVITY, "dtype", "bfloat16"),
        *((WORKS[14], "sweep", SWEEP.model_copy(update=change)) for change in SWEEP_CHANGES),
    ],
)
def test_parameters_are_part_of_an_id(work: Work, field: str, new: Any) -> None:
    assert _id(_replaced(work, field, new)) != _id(work)


@pytest.mark.parametrize(
    ("work", "field", "new"),
    [
        (WORKS[2], "dataset", "another"),
        (WORKS[2], "text", TextFiles((("/elsewhere.txt", A),), "text", "\n\n")),
        (WORKS[2], "tokenizer", Folder("/elsewhere", TOKENIZER.files)),
        (WORKS[4], "dataset", "another"),
        (WORKS[5], "dataset", "another"),
        (WORKS[6], "unigram_dataset", "another"),
        (WORKS[8], "questions", dataclasses.replace(ASKED, name="another")),
        (EvalWork(NAMED, "float32"), "questions", dataclasses.replace(NAMED, name="another")),
        (WORKS[9], "dataset", "another"),
        (WORKS[12], "task", "another"),
        (SENSITIVITY, "dataset", "another"),
        (
            InfinigramWork(ASKED, FOREIGN, TOKENIZER),
            "index",
            dataclasses.replace(FOREIGN, path="/elsewhere"),
        ),
    ],
)
def test_names_and_paths_are_no_part_of_an_id(work: Work, field: str, new: Any) -> None:
    assert _id(_replaced(work, field, new)) == _id(work)


def test_the_order_of_text_files_counts() -> None:
    turned = _replaced(WORKS[2], "text", TextFiles((("/u", B), ("/t", A)), "text", "\n\n"))
    straight = _replaced(WORKS[2], "text", TextFiles((("/t", A), ("/u", B)), "text", "\n\n"))
    assert _id(turned) != _id(straight)


def test_cells_of_a_checkpoint_share_a_group_and_others_stand_alone() -> None:
    measured = {Cell(work, checkpoint=CHECKPOINT).group for work in WORKS[3:7]}
    assert len(measured) == 1
    assert Cell(TRIAL, checkpoint=CHECKPOINT).group not in measured
    alone = [Cell(work) for work in WORKS[:3]]
    assert [cell.group for cell in alone] == [cell.id for cell in alone]


def test_labels_for_people() -> None:
    assert Cell(WORKS[4], checkpoint=CHECKPOINT).label == "geometry suite/model@step1"
    assert Cell(WORKS[2], suite="suite").label == "sequences heldout"
    assert Cell(WORKS[0], suite="suite").label == "corpus suite"
    assert Cell(WORKS[1], suite="suite", model="model").label == "pretrain suite/model"
