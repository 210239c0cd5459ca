"""Figures: verdicts of goals, medians, and processes of their own."""

import os

import pytest

from benchmarks.limits import Figure, alone, median_of, memory


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        ("≥ 0.95", 0.95, True),
        ("≥ 0.95", 0.949, False),
        ("≤ 10", 10.0, True),
        ("≤ 10", 10.1, False),
        ("> 1", 1.0, False),
        ("< 3", 2.9, True),
        ("", 1.0, None),
    ],
)
def test_a_goal_is_met_or_missed(goal: str, value: float, met: bool | None) -> None:
    assert Figure("speed", value, "×", goal).met is met


@pytest.mark.parametrize("goal", ["0.95", "~ 1", "≥", "≥ fast"])
def test_what_is_no_goal_is_refused(goal: str) -> None:
    with pytest.raises(ValueError, match=r"no comparison|could not convert"):
        _ = Figure("speed", 1.0, "×", goal).met


def test_a_median_tells_its_spread() -> None:
    found = median_of("speed", [3.0, 1.0, 2.5], "s", "≤ 2", "why")
    assert (found.value, found.spread, found.beside) == (2.5, (1.0, 3.0), "why")
    assert found.met is False


def test_a_process_of_its_own() -> None:
    assert alone(os.getpid) != os.getpid()
    assert 0 < memory("VmRSS") <= memory("VmHWM")
    with pytest.raises(OSError, match="no VmNothing"):
        memory("VmNothing")
