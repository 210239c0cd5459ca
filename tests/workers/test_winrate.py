"""Win rates end to end: a plan, its answers, its judgements, on tiny checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.events import Failed
from jobs.posttrain_spec import Chain, LocalExamples, TrainingStage
from jobs.winrate_spec import SuiteJudge
from jobs.winrate_work import WinrateWork
from orchestrator.plan import Plan, make_plan
from tests.judge.server import LocalEndpoint, completion, prefers_first, prefers_longer
from tests.judge.studies import INSTRUCTIONS, STEPS, endpoint_judge, run_all, winrate_study
from tests.workers.tasks import run_cells
from workers import judge as judge_module

KEY = "sk-aVerySecretKey"
FIRST_ONLY = {"pairs": (), "against_last": ("hh",)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("JUDGE_KEY", KEY)


def _tables(event: Any) -> dict[str, list[dict[str, Any]]]:
    assert not isinstance(event, Failed), event
    return {name: rows.to_pylist() for name, rows in event.tables}


def _one_comparison(plan: Plan) -> Plan:
    """The answers, and the first comparison alone."""
    cells = list(plan.cells)
    (first, *others) = [c for c in cells if isinstance(c.work, WinrateWork)]
    assert first
    return Plan(plan.study, tuple(c for c in cells if c not in others))


def test_a_local_judge_end_to_end(tiny_series: Path, tmp_path: Path) -> None:
    ended = run_all(make_plan(winrate_study(tiny_series, tmp_path)), tmp_path / "results")
    answers = [_tables(event)["responses"] for event in ended["respond"]]
    assert all([row["prompt"] for row in rows] == list(INSTRUCTIONS) for rows in answers)
    assert all(row["generated_tokens"] <= 8 and not row["chat_template"] for row in answers[0])
    assert len(ended["winrate"]) == len(STEPS)
    for event in ended["winrate"]:
        tables = _tables(event)
        assert list(tables) == ["judgements", "winrates"]  # Side tables first.
        (row,) = tables["winrates"]
        judgements = tables["judgements"]
        mean = sum(j["preference"] - 1 for j in judgements) / len(judgements)
        assert row["win_rate"] == pytest.approx(100 * mean)
        assert (row["n"], row["n_null"]) == (len(INSTRUCTIONS), 0)
        assert (row["comparison"], row["baseline_suite"], row["stage"]) == ("pair", "af", "sft")
        assert (row["judge_kind"], row["weighted"], row["cost"]) == ("local", 0, 0)
        assert row["length_controlled"] is None
        assert "difficulties" in row["length_controlled_reason"]
        assert row["length_minimal"] is not None
        assert row["first_rate"] == pytest.approx(50)
        for j in judgements:  # It can't see the order.
            assert j["baseline_first"] == pytest.approx(j["baseline_second"])


def test_a_chain_answers_and_judges_in_the_template_that_it_learnt(
    tiny_series: Path, tmp_path: Path
) -> None:
    chats = tmp_path / "chats.json"
    chats.write_text(json.dumps([{"instruction": "Tell.", "output": "A stone."}] * 4))
    stage = TrainingStage(method="sft", data="chats", steps=1, batch_size=2)
    study = winrate_study(
        tiny_series,
        tmp_path,
        pairs=(),
        against_last=("told",),
        judge=SuiteJudge(suite="told", model="tiny@10"),
    )
    learnt = study.model_copy(
        update={
            "training": {**study.training, "chats": LocalExamples(paths=(str(chats),))},
            "posttrain": (Chain(name="told", suite="hh", steps=(0, 10), stages=(stage,)),),
        }
    )
    kinds = ("posttrain", "respond", "winrate")
    ended = run_all(make_plan(learnt), tmp_path / "results", kinds)
    answers = [_tables(event)["responses"] for event in ended["respond"]]
    assert len(answers) == 2
    assert all(row["chat_template"] for rows in answers for row in rows)
    (row,) = _tables(ended["winrate"][0])["winrates"]
    assert (row["comparison"], row["judge_kind"], row["n_null"]) == ("last", "local", 0)


def test_each_start_against_the_last(tiny_series: Path, tmp_path: Path) -> None:
    study = winrate_study(tiny_series, tmp_path, **FIRST_ONLY)
    ended = run_all(make_plan(study), tmp_path / "results")
    rows = [_tables(event)["winrates"][0] for event in ended["winrate"]]
    assert [row["step"] for row in rows] == [0, 10]
    assert {row["baseline_revision"] for row in rows} == {"step100"}
    assert {row["comparison"] for row in rows} == {"last"}


def test_changing_sides_mirrors_the_rate(tiny_series: Path, tmp_path: Path) -> None:
    rates = []
    for pair in (("hh", "af"), ("af", "hh")):
        study = winrate_study(tiny_series, tmp_path, pairs=(pair,))
        ended = run_all(make_plan(study), tmp_path / "results")
        rates.append([_tables(e)["winrates"][0]["win_rate"] for e in ended["winrate"]])
    assert [sum(both) for both in zip(*rates, strict=True)] == pytest.approx([100] * len(STEPS))


def test_difficulties_give_a_length_controlled_rate(tiny_series: Path, tmp_path: Path) -> None:
    path = tmp_path / "difficulties.csv"
    path.write_text("index,instruction_difficulty\n0,0.1\n1,-0.3\n2,1.5\n3,0\n")
    study = winrate_study(tiny_series, tmp_path, difficulties=str(path), **FIRST_ONLY)
    ended = run_all(make_plan(study), tmp_path / "results")
    (row,) = _tables(ended["winrate"][0])["winrates"]
    assert 0 < row["length_controlled"] < 100
    assert row["length_controlled_reason"] is None
    path.write_text("index,instruction_difficulty\n0,0.1\n")
    ended = run_all(make_plan(study), tmp_path / "results")
    assert "1 difficulties, for 4 instructions" in ended["winrate"][0].message


def test_an_endpoint_end_to_end(tiny_series: Path, tmp_path: Path) -> None:
    with LocalEndpoint() as endpoint:
        judge = endpoint_judge(
            endpoint.base_url, api_key_env="JUDGE_KEY", concurrency=3, input_price=1.0
        )
        plan = _one_comparison(make_plan(winrate_study(tiny_series, tmp_path, judge=judge)))
        endpoint.faults = [(429, {"Retry-After": "0"}, b"{}"), (500, {}, b"")]
        tables = _tables(run_all(plan, tmp_path / "results")["winrate"][0])
        asked = len(endpoint.bodies)
        assert endpoint.most_at_once <= 3
        # Again: the artifact is there, and nothing is asked.
        again = _tables(run_all(plan, tmp_path / "results")["winrate"][0])
        assert len(endpoint.bodies) == asked
    assert again == tables
    (row,) = tables["winrates"]
    for j in tables["judgements"]:
        difference = j["length"] - j["baseline_length"]
        # The judge names m where neither is longer; the mean of both orders is a draw then.
        wanted = 1.5 if difference == 0 else 1.9 if difference > 0 else 1.1
        assert j["preference"] == pytest.approx(wanted)
    assert asked == 2 + 2 * sum(not j["identical"] for j in tables["judgements"])
    assert (row["weighted"], row["judge"]) == (1, "judge")
    assert row["cost"] == pytest.approx((asked - 2) * 300 / 1e6)
    everything = json.dumps(tables) + "".join(
        path.read_text() for path in (tmp_path / "results").rglob("*.json*")
    )
    assert KEY not in everything


def test_a_love_of_the_first_place_is_averaged_out(tiny_series: Path, tmp_path: Path) -> None:
    with LocalEndpoint(prefers_first) as endpoint:
        judge = endpoint_judge(endpoint.base_url)
        plan = _one_comparison(make_plan(winrate_study(tiny_series, tmp_path, judge=judge)))
        tables = _tables(run_all(plan, tmp_path / "results")["winrate"][0])
    (row,) = tables["winrates"]
    assert (row["win_rate"], row["n_draws"], row["first_rate"]) == (50, len(INSTRUCTIONS), 100)


def test_nonsense_is_null_and_counted(tiny_series: Path, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Any:
        odd = INSTRUCTIONS[0] in body["messages"][0]["content"]
        return (200, {}, completion("I cannot say")) if odd else prefers_longer(body)

    with LocalEndpoint(answer) as endpoint:
        judge = endpoint_judge(endpoint.base_url)
        plan = _one_comparison(make_plan(winrate_study(tiny_series, tmp_path, judge=judge)))
        (row,) = _tables(run_all(plan, tmp_path / "results")["winrate"][0])["winrates"]
        assert (row["n"], row["n_null"], row["n_nonsense"]) == (len(INSTRUCTIONS) - 1, 1, 4)
        endpoint.answer = lambda _: (200, {}, completion("I cannot say"))
        failed = run_all(plan, tmp_path / "others")["winrate"][0]
    assert "none of 4 pairs" in failed.message


def test_what_the_cap_has_paid_for_is_kept(tiny_series: Path, tmp_path: Path) -> None:
    prices = {"input_price": 1000.0, "concurrency": 1}
    with LocalEndpoint() as endpoint:

        def plan_with(most_cost: float) -> Plan:
            # Three comparisons share it.
            judge = endpoint_judge(endpoint.base_url, most_cost=3 * most_cost, **prices)
            return _one_comparison(make_plan(winrate_study(tiny_series, tmp_path, judge=judge)))

        poor, rich = plan_with(1.6), plan_with(100.0)
        assert poor.cells == rich.cells or [c.id for c in poor.cells] == [c.id for c in rich.cells]
        failed = run_all(poor, tmp_path / "results")["winrate"][0]
        assert failed.cause == "data"
        asked = len(endpoint.bodies)
        assert 0 < asked < 2 * len(INSTRUCTIONS)
        assert f"has cost {asked * 0.3:.6g}" in failed.message
        failed = run_all(poor, tmp_path / "results")["winrate"][0]
        assert len(endpoint.bodies) == asked
        (row,) = _tables(run_all(rich, tmp_path / "results")["winrate"][0])["winrates"]
    assert len(endpoint.bodies) == 2 * len(INSTRUCTIONS)
    assert row["cost"] == pytest.approx(0.3 * len(endpoint.bodies))


def test_a_failure_shows_no_key(tiny_series: Path, tmp_path: Path) -> None:
    with LocalEndpoint() as endpoint:
        endpoint.faults = [(401, {}, f"bad key {KEY}".encode())] * 20
        judge = endpoint_judge(endpoint.base_url, api_key_env="JUDGE_KEY")
        plan = _one_comparison(make_plan(winrate_study(tiny_series, tmp_path, judge=judge)))
        failed = run_all(plan, tmp_path / "results")["winrate"][0]
    assert failed.cause == "user"
    assert "[key]" in failed.message
    assert KEY not in repr(failed)


def test_drawn_answers_depend_on_their_seed_alone(tiny_series: Path, tmp_path: Path) -> None:
    def drawn(results: str, temperature: float, seed: int) -> list[list[str]]:
        study = winrate_study(tiny_series, tmp_path, temperature=temperature, seed=seed)
        ended = run_all(make_plan(study), tmp_path / results, ("respond",))
        return [[r["output"] for r in _tables(e)["responses"]] for e in ended["respond"]]

    first = drawn("one", 1.0, 0)
    assert drawn("two", 1.0, 0) == first
    assert drawn("three", 1.0, 1) != first
    assert drawn("four", 0.0, 0) != first


def test_an_instruction_without_room_is_null(tiny_series: Path, tmp_path: Path) -> None:
    study = winrate_study(tiny_series, tmp_path)
    (path,) = study.training["asked"].paths  # type: ignore[union-attr]
    long = {"prompt": "river " * 200}
    Path(path).write_text(json.dumps([{"prompt": "Tell."}, long]))
    ended = run_all(make_plan(study), tmp_path / "results")
    assert [row["output"] is None for row in _tables(ended["respond"][0])["responses"]] == [
        False,
        True,
    ]
    (row,) = _tables(ended["winrate"][0])["winrates"]
    assert (row["n"], row["n_null"], row["stderr"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("records", "match"),
    [([{"text": "a"}], "neither `instruction` nor"), ([{"prompt": "the " * 300}], "room")],
)
def test_instructions_that_are_none(
    tiny_series: Path, tmp_path: Path, records: Any, match: str
) -> None:
    study = winrate_study(tiny_series, tmp_path)
    (path,) = study.training["asked"].paths  # type: ignore[union-attr]
    Path(path).write_text(json.dumps(records))
    cell = next(c for c in make_plan(study).cells if c.work.kind == "respond")
    failed = run_cells([cell], tmp_path / "results")[-1]
    assert isinstance(failed, Failed)
    assert match in failed.message
