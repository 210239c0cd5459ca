"""Trials of fine-tuning: every parameter is part of an id, labels are not; what shares a group."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.cells import Cell
from jobs.finetune_work import FinetuneWork, Halving, HarnessPairs, PairFiles, PicoPairs
from jobs.questions import HubData
from jobs.sources import TextFiles
from tests.jobs.test_cells import CHECKPOINT, PAIRS, RECIPE, TEXT, TRIAL, A, B

RECIPE_CHANGES: tuple[dict[str, Any], ...] = (
    {"method": "dora"},
    {"intervention": "equalize"},
    {"clip": 0.1},
    {"rank": 4},
    {"targets": ("attention", "head")},
    {"groups": 2},
    {"alpha": 8.0},
    {"dropout": 0.0},
    {"epochs": 2},
    {"batch_size": 8},
    {"learning_rate": 1e-3},
    {"weight_decay": 0.0},
    {"seed": 1},
    {"threads": 2},
    {"dtype": "bfloat16"},
)
PAIR_FILES = PairFiles("mine", TEXT, TEXT, "prompt", "answer")
HARNESS_PAIRS = HarnessPairs("mine", "sciq", None, TEXT, TEXT)
OTHER_TEXT = TextFiles((("/text.txt", B),), "text", "\n\n")
TRIAL_CHANGES: tuple[dict[str, Any], ...] = (
    {"examples": PicoPairs("facts", B, "open")},
    {"examples": PicoPairs("facts", A, "sum")},
    {"examples": PAIR_FILES},
    {"examples": HARNESS_PAIRS},
    {"training_examples": None},
    {"validation_examples": 255},
    {"max_length": 64},
    {"template": "Q: {prompt}"},
    {"sequences": B},
    {"sequences": None},
    {"dataset_sequences": 255},
    {"halving": Halving(1, 3)},
    {"rivals": (A,)},
)
PAIRS_CHANGES: tuple[tuple[Any, dict[str, Any]], ...] = (
    (PAIR_FILES, {"training": OTHER_TEXT}),
    (PAIR_FILES, {"validation": OTHER_TEXT}),
    (PAIR_FILES, {"prompt": "question"}),
    (PAIR_FILES, {"answer": "reply"}),
    (HARNESS_PAIRS, {"task": "arc_easy"}),
    (HARNESS_PAIRS, {"config": TEXT}),
    (HARNESS_PAIRS, {"training": OTHER_TEXT}),
    (HARNESS_PAIRS, {"validation": HubData("a/b", "0" * 40)}),
)


def _id(work: FinetuneWork) -> str:
    return Cell(work, checkpoint=CHECKPOINT).id


@pytest.mark.parametrize("change", RECIPE_CHANGES)
def test_the_recipe_is_part_of_an_id(change: dict[str, Any]) -> None:
    assert _id(replace(TRIAL, recipe=replace(RECIPE, **change))) != _id(TRIAL)


@pytest.mark.parametrize("change", TRIAL_CHANGES)
def test_parameters_are_part_of_an_id(change: dict[str, Any]) -> None:
    assert _id(replace(TRIAL, **change)) != _id(TRIAL)


@pytest.mark.parametrize(("pairs", "change"), PAIRS_CHANGES)
def test_what_is_learned_is_part_of_an_id(pairs: Any, change: dict[str, Any]) -> None:
    changed = replace(TRIAL, examples=replace(pairs, **change))
    assert _id(changed) != _id(replace(TRIAL, examples=pairs))


@pytest.mark.parametrize("pairs", [PAIRS, PAIR_FILES, HARNESS_PAIRS])
def test_names_are_no_part_of_an_id(pairs: Any) -> None:
    renamed = replace(TRIAL, examples=replace(pairs, name="another"), dataset="another")
    assert _id(renamed) == _id(replace(TRIAL, examples=pairs))


def test_a_length_of_no_text_is_no_part_of_an_id() -> None:
    without = replace(TRIAL, sequences=None)
    assert _id(without) == _id(replace(without, dataset_sequences=3))


def test_trials_of_a_checkpoint_task_and_seed_share_a_group() -> None:
    def group(**change: Any) -> str:
        return Cell(replace(TRIAL, **change), checkpoint=CHECKPOINT).group

    recipes = [replace(RECIPE, **c) for c in ({"rank": 4}, {"intervention": "shuffle"})]
    assert {group(), *(group(recipe=recipe) for recipe in recipes)} == {group()}
    assert group(recipe=replace(RECIPE, seed=1)) != group()
    assert group(examples=PAIR_FILES) != group()


def test_a_trial_is_named_by_what_it_learns_and_how() -> None:
    assert Cell(TRIAL, checkpoint=CHECKPOINT).label == (
        "finetune facts lora rank 8 lr 0.0002 seed 0 suite/model@step1"
    )
    changed = replace(RECIPE, intervention="equalize", targets=("attention", "head"))
    assert changed.label == "lora equalize rank 8 on attention+head lr 0.0002 seed 0"
