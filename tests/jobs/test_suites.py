"""Suites that ship: each one is valid, and what is known of it follows from its numbers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs import published
from jobs.errors import StudyError
from jobs.hub_spec import HubSeries, HubSuite
from jobs.published import expand, published_suites

SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")


def _suite(use: str, **fields: Any) -> HubSuite:
    (suite,) = expand({"suites": [{"use": use, **fields}]})["suites"]
    return HubSuite.model_validate(suite)


@pytest.mark.parametrize("name", published_suites())
def test_every_suite_is_valid_and_counts_tokens_from_steps(name: str) -> None:
    suite = _suite(name)
    assert suite.name == name
    for series in (suite, *suite.more):
        if series.first_step:
            assert series.tokens_per_step is not None
            assert series.first_token == series.first_step * series.tokens_per_step
        if series.pattern is None:
            assert series.tokens_per_step is None


def test_the_families_are_whole() -> None:
    pythia = {f"pythia-{size}{tail}" for size in SIZES for tail in ("", "-deduped")}
    others = {"olmo2-1b", "olmo2-7b", "tulu3-8b", "tulu3.1-8b", "gpt2", "gpt2-medium"}
    assert pythia | others | {"gpt2-large", "gpt2-xl"} <= set(published_suites())
    for name in pythia:
        suite = _suite(name)
        assert suite.repository == f"EleutherAI/{name}"
        steps = suite.scheduled_steps
        assert len(steps) == 154
        assert steps[:4] == (0, 1, 2, 4)
        assert suite.tokens_per_step is not None
        assert steps[-1] * suite.tokens_per_step == 299_892_736_000


def test_post_training_goes_through_its_stages() -> None:
    for name in ("tulu3-8b", "tulu3.1-8b"):
        suite = _suite(name)
        assert [series.stage for series in (suite, *suite.more)] == ["sft", "dpo", "rlvr"]


def test_what_a_study_says_wins() -> None:
    suite = _suite("pythia-70m", name="mine", schedule=[0, "10:30:10"], tokens_per_step=5)
    assert (suite.name, suite.repository) == ("mine", "EleutherAI/pythia-70m")
    assert suite.scheduled_steps == (0, 10, 20, 30)
    assert suite.tokens_per_step == 5


def test_one_way_to_choose_revisions_puts_the_other_out_of_force() -> None:
    suite = _suite("pythia-70m", revisions=["step7"])
    assert (suite.revisions, suite.pattern, suite.schedule) == (("step7",), None, ())
    assert suite.tokens_per_step == 2_097_152
    suite = _suite("pythia-70m", pattern="branch{step}")
    assert (suite.pattern, len(suite.scheduled_steps)) == ("branch{step}", 154)
    with pytest.raises(ValidationError, match="either revisions or a pattern"):
        _suite("pythia-70m", revisions=["step7"], pattern="step{step}")


def test_a_change_leaves_the_shipped_suite_alone() -> None:
    before = json.dumps(published._suites())
    taken = expand({"suites": [{"use": "olmo2-1b"}]})["suites"][0]
    taken["more"][0]["schedule"] = [1]
    taken["schedule"].append(2)
    assert json.dumps(published._suites()) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [("pythia-71m", r"did you mean 'pythia-"), ("", "no suite '' ships"), (3, "no suite '3'")],
)
def test_an_unknown_name_gets_the_nearest(name: object, said: str) -> None:
    with pytest.raises(StudyError, match=said) as caught:
        expand({"suites": [{"use": name}]})
    assert "pythia-70m" in caught.value.remedy


def test_other_suites_pass_unchanged() -> None:
    for document in ({}, {"suites": 3}, {"suites": [3, {"kind": "pico"}]}):
        assert expand(document) == document


@given(
    st.lists(st.integers(0, 10**6)), st.integers(0, 10**4), st.integers(0, 99), st.integers(1, 9)
)
def test_a_schedule_is_every_step_once_in_order(
    steps: list[int], first: int, count: int, stride: int
) -> None:
    last = first + count * stride
    series = HubSeries(
        repository="a/b", pattern="{step}", schedule=(*steps, f"{first}:{last}:{stride}", *steps)
    )
    assert list(series.scheduled_steps) == sorted({*steps, *range(first, last + 1, stride)})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": [1]}, "a schedule needs a pattern"),
        ({"pattern": "step"}, r"must hold \{step\} exactly once"),
        ({"pattern": "{step}{step}"}, "exactly once"),
        ({"pattern": "{step}", "schedule": [-1]}, "member -1 is neither a step"),
        ({"pattern": "{step}", "schedule": ["1:2"]}, "member '1:2' is neither a step"),
        ({"pattern": "{step}", "schedule": ["1:9:0"]}, "a stride above 0"),
        ({"pattern": "{step}", "schedule": ["9:1:1"]}, "'9:1:1' must be first:last:stride"),
        ({"pattern": "{step}", "schedule": ["0:999999999:1"]}, "between 1 and 100000 steps"),
        ({"revisions": ["a", "a"]}, "'a' is listed twice"),
        ({"revisions": ["a"], "steps": [1, 2]}, "steps has 2 members and revisions 1"),
        ({"first_token": 5}, "first_token needs tokens_per_step"),
        ({"repository": "pythia-70m"}, "match pattern"),
    ],
)
def test_a_series_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HubSeries.model_validate({"repository": "a/b", **fields})
