"""Win rates: what is part of an id, what is not, and what a study may ask."""

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.cells import Cell
from jobs.sources import Folder, TextFiles
from jobs.winrate_spec import EndpointJudge, LocalJudge, Winrates, shared_cost
from tests.jobs.winrate_works import ENDPOINT, LOCAL, RECORDS, RESPOND, SIDES, WINRATE, A, B

DIFFICULTIES = TextFiles((("/d.csv", A),), "", "")
DRAWN = dataclasses.replace(RESPOND, temperature=1.0)


def _id(work: Any) -> str:
    return Cell(work).id


def _changed(**changes: Any) -> Any:
    return dataclasses.replace(WINRATE, judge=ENDPOINT.model_copy(update=changes))


@pytest.mark.parametrize(
    ("work", "change"),
    [
        (RESPOND, {"records": dataclasses.replace(RECORDS, limit=3)}),
        (RESPOND, {"new_tokens": 8}),
        (RESPOND, {"temperature": 1.0}),
        (RESPOND, {"dtype": "bfloat16"}),
        (DRAWN, {"seed": 1}),
        (WINRATE, {"responses": (B, A)}),
        (WINRATE, {"difficulties": DIFFICULTIES}),
        (WINRATE, {"judge": LOCAL}),
    ],
)
def test_parameters_are_part_of_an_id(work: Any, change: dict[str, Any]) -> None:
    assert _id(dataclasses.replace(work, **change)) != _id(work)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"prompt": ENDPOINT.prompt + " "},
        {"temperature": 0.5},
        {"answer_tokens": 2},
        {"logprobs": False},
    ],
)
def test_who_judges_is_part_of_an_id(change: dict[str, Any]) -> None:
    assert _id(_changed(**change)) != _id(WINRATE)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://elsewhere.example.com/v1"},
        {"api_key_env": "OTHER_KEY"},
        {"input_price": 3.0},
        {"output_price": 3.0},
        {"most_cost": 1.0},
        {"retries": 1},
        {"timeout": 1.0},
        {"concurrency": 1},
    ],
)
def test_where_and_for_how_much_is_no_part_of_an_id(change: dict[str, Any]) -> None:
    assert _id(_changed(**change)) == _id(WINRATE)


@pytest.mark.parametrize("field", ["source", "tokenizer", "dtype"])
def test_a_local_judge_counts_by_its_contents(field: str) -> None:
    before = dataclasses.replace(WINRATE, judge=LOCAL)
    other = "bfloat16" if field == "dtype" else Folder("/judge", (("w", B),))
    moved = dataclasses.replace(LOCAL, source=Folder("/elsewhere", (("w", A),)))
    changed = dataclasses.replace(LOCAL, **{field: other})  # type: ignore[arg-type]
    assert _id(dataclasses.replace(before, judge=changed)) != _id(before)
    assert _id(dataclasses.replace(before, judge=moved)) == _id(before)


def test_labels_are_no_part_of_an_id() -> None:
    named = dataclasses.replace(RESPOND, records=dataclasses.replace(RECORDS, name="other"))
    assert _id(named) == _id(RESPOND)
    assert _id(dataclasses.replace(RESPOND, seed=1)) == _id(RESPOND)  # Nothing is drawn.
    for change in (
        {"comparison": "last"},
        {"instructions": "other"},
        {"sides": (SIDES[1], SIDES[0])},
    ):
        assert _id(dataclasses.replace(WINRATE, **change)) == _id(WINRATE)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:80/v1",
    ],
)
def test_addresses_that_may_be_asked(url: str) -> None:
    assert EndpointJudge(base_url=url, model="judge").base_url == url


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://api.example.com/v1", "unencrypted"),
        ("http://10.0.0.1/v1", "unencrypted"),
        ("http://localhost.example.com/v1", "unencrypted"),
        ("ftp://127.0.0.1/v1", "no http"),
        ("file:///etc/passwd", "no http"),
        ("https:///v1", "no http"),
        ("nothing", "no http"),
        ("https://[/v1", "no URL"),
    ],
)
def test_addresses_that_may_not(url: str, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        EndpointJudge(base_url=url, model="judge")


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://user:sk-secret@api.example.com/v1"},
        {"base_url": "https://api.example.com/v1?key=sk-secret"},
        {"api_key_env": "sk-secret"},
        {"api_key_env": "Bearer sk-secret"},
    ],
)
def test_a_key_in_a_study_is_refused_unseen(change: dict[str, Any]) -> None:
    asked = {"base_url": "https://api.example.com/v1", "model": "judge", **change}
    with pytest.raises(ValidationError) as found:
        EndpointJudge(**asked)
    shown = [error["msg"] for error in found.value.errors()]
    assert "secret" not in "".join(shown)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompt": "{instruction} {output_1}"}, "lacks {output_2}"),
        ({"most_cost": 1.0}, "needs input_price"),
        ({"api_key_env": "MY-KEY"}, "no name"),
    ],
)
def test_judges_that_can_not_be_asked(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        EndpointJudge(base_url="https://api.example.com/v1", model="judge", **change)


def test_something_must_be_compared() -> None:
    judge = LocalJudge(checkpoint="/judge")
    with pytest.raises(ValidationError, match="nothing to compare"):
        Winrates(instructions="asked", judge=judge)
    with pytest.raises(ValidationError, match="'hh' with itself"):
        Winrates(instructions="asked", judge=judge, pairs=(("hh", "hh"),))


def test_comparisons_share_what_they_may_cost() -> None:
    judge = EndpointJudge(
        base_url="https://api.example.com/v1", model="judge", input_price=1, most_cost=12
    )
    assert shared_cost(judge, 4).most_cost == 3
    assert shared_cost(ENDPOINT, 4) == ENDPOINT


def test_labels_for_people() -> None:
    label = Cell(WINRATE, suite="hh", model="tiny").label
    assert label == "winrate asked sft-step8 over af/tiny hh/tiny"
