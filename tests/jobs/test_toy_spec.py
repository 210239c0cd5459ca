"""Sweeps of the tractable model: which settings they spell, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.toy_spec import ToySweep, skewed_counts
from jobs.toy_work import ToyWork

GOOD: dict[str, Any] = {
    "name": "one",
    "counts": [[8, 4, 2, 1]],
    "widths": [2],
    "scales": [0.1],
    "learning_rates": [0.05],
}


def test_a_sweep_is_all_combinations() -> None:
    sweep = ToySweep(**{**GOOD, "widths": [2, 3], "scales": [0.1, 1.0]})
    found = [(setting.width, setting.scale) for setting in sweep.settings]
    assert found == [(2, 0.1), (2, 1.0), (3, 0.1), (3, 1.0)]
    assert "counts 8-4-2-1, d 2, scale 0.1, learning rate 0.05" in sweep.settings[0].label


def test_the_same_runs_are_the_same_cell_however_they_are_spelt() -> None:
    skewed = {**GOOD, "counts": [], "classes": 4, "examples": 8, "skews": [0]}
    spelt = ToyWork(ToySweep(**{**skewed, "name": "other", "description": "words"}))
    assert spelt.parameters == ToyWork(ToySweep(**{**GOOD, "counts": [[2, 2, 2, 2]]})).parameters


@given(st.integers(1, 12), st.integers(0, 40), st.floats(0, 3))
def test_skewed_counts_add_up_and_descend(classes: int, more: int, skew: float) -> None:
    counts = skewed_counts(classes, classes + more, skew)
    assert sum(counts) == classes + more
    assert min(counts) >= 1
    assert list(counts) == sorted(counts, reverse=True)
    if skew == 0:
        assert max(counts) - min(counts) <= 1


def test_more_skew_gives_more_to_the_first() -> None:
    assert [skewed_counts(4, 16, skew)[0] for skew in (0, 1, 2)] == [4, 7, 9]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"widths": [0]}, "greater than or equal to 1"),
        ({"counts": [[]]}, "at least 1 item"),
        ({"counts": [[2, 0]]}, "greater than or equal to 1"),
        ({"counts": []}, "needs either counts"),
        ({"examples": 8}, "needs either counts"),
        ({"counts": [], "classes": 4, "skews": [1]}, "needs either counts"),
        ({"classes": 4, "examples": 8, "skews": [1]}, "needs either counts"),
        ({"counts": [], "classes": 0, "examples": 8, "skews": [1]}, "greater than or equal to 1"),
        ({"counts": [], "classes": 9, "examples": 8, "skews": [1]}, "without any"),
        ({"scales": [0]}, "greater than 0"),
        ({"learning_rates": [-1]}, "greater than 0"),
        ({"seeds": 0}, "greater than or equal to 1"),
        ({"counts": [], "classes": 10**9, "examples": 10**9, "skews": [1]}, "or equal to 10000"),
        ({"counts": [], "classes": 4, "examples": 10**400, "skews": [1]}, "less than 900719925474"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToySweep(**{**GOOD, **change})
