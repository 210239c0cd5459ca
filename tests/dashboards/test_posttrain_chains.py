"""Chains: stages in order, what each started from, seeds of one chain together."""

from pathlib import Path

import pytest

from dashboards.posttrain_chains import Chain
from dashboards.posttrain_read import Posttrained, read_posttrained
from dashboards.tables import read
from tests.dashboards import posttrain_scenarios as scenarios
from tests.dashboards import synthetic

FLAT = dict.fromkeys(scenarios.METHODS, 0.0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def known(results: Path) -> Posttrained:
    found = read_posttrained(read(results))
    assert found is not None
    return found


def chains(results: Path) -> tuple[Chain, ...]:
    return known(results).chains


def test_without_rows_there_is_nothing(results: Path) -> None:
    synthetic.geometry(results, "pico-64", 100, 40.0)
    assert read_posttrained(read(results)) is None


def test_each_stage_starts_from_the_end_of_the_one_before(results: Path) -> None:
    scenarios.write_chain(results, FLAT)
    (chain,) = chains(results)
    (run,) = chain.runs
    assert chain.label == "tuned: pico-64 from step100"
    assert run.base is not None
    assert (run.base.key, run.base.step) == (("pico", "pico-64", "pretrain", "step100"), 0)
    assert [stage.method for stage in run.stages] == ["sft", "dpo", "rlvr"]
    assert [stage.start and stage.start.step for stage in run.stages] == [0, 10, 20]
    assert [[p.step for p in stage.kept] for stage in run.stages] == [[5, 10], [15, 20], [25, 30]]
    assert [[row["at"] for row in s.log][::9] for s in run.stages] == [[1, 10], [11, 20], [21, 30]]
    assert not any(stage.partial for stage in run.stages)


def test_seeds_are_runs_of_one_chain(results: Path) -> None:
    scenarios.write_chain(results, FLAT, seeds=(0, 7, 42))
    (chain,) = chains(results)
    assert [run.seed for run in chain.runs] == [0, 7, 42]
    assert len({run.base for run in chain.runs}) == 1
    assert all(len(stage.log) == scenarios.STEPS for run in chain.runs for stage in run.stages)


def test_an_earlier_beginning_is_told_by_the_name(results: Path) -> None:
    for step in (50, 100):
        start = synthetic.keys("begin", "pico-64", step)
        scenarios.write_log(results, start, "sft")
        made = scenarios.checkpoint("sft", 10, f"pico-64@{step}")
        scenarios.write_geometry(results, made, 41.0)
    found = {chain.label: chain for chain in chains(results)}
    assert set(found) == {"tuned: pico-64 from step50", "tuned: pico-64 from step100"}
    for step in (50, 100):
        (run,) = found[f"tuned: pico-64 from step{step}"].runs
        assert run.model == f"pico-64@{step}"


def test_without_a_step_in_the_name_a_chain_begins_from_the_last(results: Path) -> None:
    for step in (50, 100):
        scenarios.write_log(results, synthetic.keys("begin", "pico-64", step), "sft")
    scenarios.write_geometry(results, scenarios.checkpoint("sft", 10), 41.0)
    found = {chain.label: chain.runs[0] for chain in chains(results)}
    assert len(found["tuned: pico-64 from step100"].stages[0].kept) == 1
    # The other one has its curve, and no checkpoint yet.
    assert found["pico-64 from step50"].stages[0].kept == ()


def test_an_unmeasured_end_is_no_reason_to_take_another_start(results: Path) -> None:
    scenarios.write_log(results, scenarios.begin(), "sft")
    scenarios.write_geometry(results, scenarios.checkpoint("sft", 5), 41.0)
    scenarios.write_log(results, scenarios.checkpoint("sft", 10), "dpo")
    scenarios.write_geometry(results, scenarios.checkpoint("dpo", 10, taken=10), 45.0)
    (run,) = chains(results)[0].runs
    start = run.stages[1].start
    assert start is not None
    assert start.key[3] == "sft-step10"


def test_published_stages_count_their_own_steps(results: Path) -> None:
    for method, steps in (("sft", (5, 10)), ("rlvr", (3, 8))):
        for step in steps:
            scenarios.write_geometry(results, scenarios.checkpoint(method, step), 40.0)
    scenarios.write_passk(results, scenarios.checkpoint("rlvr", 8), (0.1, 0.2, 0.3, 0.4))
    (run,) = chains(results)[0].runs
    assert run.base is None
    assert [stage.method for stage in run.stages] == ["sft", "rlvr"]
    assert [stage.partial for stage in run.stages] == [True, True]
    assert [stage.start and stage.start.step for stage in run.stages] == [5, 3]


def test_stages_without_checkpoints_have_their_curves(results: Path) -> None:
    scenarios.write_log(results, scenarios.begin(), "sft")
    (chain,) = chains(results)
    (stage,) = chain.runs[0].stages
    assert (stage.kept, len(stage.log)) == ((), scenarios.STEPS)
    scenarios.write_geometry(results, scenarios.checkpoint("sft", 10), 41.0)
    scenarios.write_log(results, scenarios.checkpoint("sft", 10), "rlvr")
    (chain,) = chains(results)
    assert [(s.method, len(s.kept)) for s in chain.runs[0].stages] == [("sft", 1), ("rlvr", 0)]


def test_changes_are_paired_by_sequence(results: Path) -> None:
    scenarios.write_chain(results, {**FLAT, "sft": 3.0})
    found = known(results)
    start, end = (
        next(iter(found.geometry[key].values()))
        for key in (found.chains[0].runs[0].base.key, ("tuned", "pico-64", "sft", "sft-step10"))  # type: ignore[union-attr]
    )
    for metric, value in (("rankme", 3.0), ("alpha_req", 0.0)):
        change = found.change(start, end, metric)
        assert change.paired
        assert change.value == pytest.approx(value)
        # Two independent parts of 0.05 each; the shared error is 1.
        assert change.se == pytest.approx(0.05 * 2**0.5, rel=0.1)
