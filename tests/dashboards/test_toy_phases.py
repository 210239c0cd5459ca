"""Phases of the toy's runs: the same as turn by turn, and counted with their intervals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dashboards.query import load
from dashboards.toy_phases import COMPRESSES, FIGURE_5, signs, toy_phases, verdicts, wilson
from dashboards.turns import find_swings
from tests.dashboards import synthetic

COURSES = {
    FIGURE_5: [1.5, 1.2, 1.8, 1.6],
    "warmup, entropy_seeking": [1.5, 1.2, 1.8, 1.9],
    "entropy_seeking": [1.1, 1.2, 1.8, 1.9],
    "entropy_seeking, compression_seeking": [1.1, 1.5, 1.9, 1.3],
    "warmup": [1.9, 1.5, 1.2, 1.1],
    "flat": [1.5, 1.5, 1.505, 1.5],
}


def test_verdicts_name_the_courses() -> None:
    assert verdicts(np.array(list(COURSES.values()))) == list(COURSES)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(90, 110), min_size=1, max_size=14))
def test_all_runs_at_once_give_what_the_dynamic_programme_gives(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.float64)
    swings = find_swings(values, np.zeros((len(values), len(values))))
    assert signs(values[None]) == [tuple(swing.sign for swing in swings)]


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_scipys(hits: int, more: int) -> None:
    count = hits + more
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_runs_are_counted_by_setting(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    courses = [COURSES[FIGURE_5]] * 3 + [COURSES["warmup"]]
    synthetic.toy(results, "figure-5", courses)
    synthetic.toy(results, "control", [COURSES["entropy_seeking"]] * 2, counts=(2, 2))
    rows = toy_phases(results).to_pylist()
    told = [(row["model"], row["verdict"], row["runs"], row["n"]) for row in rows]
    assert told == [
        ("control", COMPRESSES, 0, 2),
        ("control", FIGURE_5, 0, 2),
        ("control", "entropy_seeking", 2, 2),
        ("figure-5", COMPRESSES, 3, 4),
        ("figure-5", FIGURE_5, 3, 4),
        ("figure-5", "warmup", 1, 4),
    ]
    assert rows[4]["fraction"] == 0.75
    assert rows[4]["fraction_low"] < 0.75 < rows[4]["fraction_high"]
    assert rows[0]["last_step"] == 10
    assert load("toy_phases", results).equals(toy_phases(results))
