"""Suites and studies that ship, against a hub whose revisions are named as they say."""

from collections import Counter
from pathlib import Path

import pytest

from jobs.capability_work import ChatsWork
from jobs.hub_spec import HubSuite
from jobs.posttrain_work import PosttrainWork, SampleWork
from jobs.published import published_suites
from jobs.study import load_study
from orchestrator.hub_index import HubIndex
from orchestrator.hub_suites import hub_checkpoints
from orchestrator.plan import Plan, make_plan
from tests.hub.published import publish_series, publish_study
from tests.hub.server import LocalHub


def test_suites_that_ship_find_what_their_names_say(local_hub: LocalHub, tmp_path: Path) -> None:
    every = ",".join(f'{{use="{name}"}}' for name in published_suites())
    suites = load_study("norms", [f"suites=[{every}]"]).suites
    for suite in suites:
        assert isinstance(suite, HubSuite)
        for series in (suite, *suite.more):
            publish_series(local_hub, series)
    for suite in suites:
        assert isinstance(suite, HubSuite)
        found, missing = hub_checkpoints(suite, HubIndex(tmp_path / "memory"))
        asked = [len(series.scheduled_steps) for series in (suite, *suite.more)]
        assert len(missing) == sum(max(0, count - 3) for count in asked)
        assert len({checkpoint.label for checkpoint in found}) == len(found)
        wants_steps = {series.stage for series in (suite, *suite.more) if series.pattern}
        assert all(c.step is not None for c in found if c.stage in wants_steps)
    assert local_hub.sent() == 0


@pytest.mark.parametrize("name", ["norms", "tracing", "other-families", "overtraining", "tulu"])
def test_studies_that_ship_find_their_checkpoints(
    local_hub: LocalHub, tmp_path: Path, name: str
) -> None:
    suites = load_study(name).suites
    index = HubIndex(tmp_path / "memory")
    for suite in suites:
        assert isinstance(suite, HubSuite)
        for series in (suite, *suite.more):
            publish_series(local_hub, series)
    for suite in suites:
        assert isinstance(suite, HubSuite)
        assert hub_checkpoints(suite, index)[0]


def _planned(hub: LocalHub, memory: Path, name: str, *overrides: str) -> Plan:
    """A shipped study's plan, against a hub that has what it names, with nothing in it."""
    study = load_study(name, overrides)
    publish_study(hub, study, every=True)
    return make_plan(study, HubIndex(memory))


def test_fine_tuning_of_checkpoint_after_checkpoint_is_planned(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    cells = _planned(local_hub, tmp_path, "overtraining").cells
    counts = Counter(cell.work.kind for cell in cells)
    starts, seeds = 8, 5
    tuned = 2 * starts * seeds
    assert counts["posttrain"] == tuned
    steps = Counter(
        (cell.work.records.name, cell.work.training.steps, cell.work.seed)
        for cell in cells
        if isinstance(cell.work, PosttrainWork)
    )
    assert steps == {
        (name, count, seed): starts
        for name, count in (("hh", 1257), ("alpaca-farm", 138))
        for seed in (0, 7, 8, 42, 420)
    }
    assert counts["geometry"] == counts["checkpoint"] == starts + tuned
    assert counts["chats"] == 2
    assert counts["loss"] == 2 * (starts + tuned)
    assert counts["respond"] == tuned
    assert counts["winrate"] == starts * seeds + (starts - 1) * seeds
    drawn = [cell.work for cell in cells if isinstance(cell.work, ChatsWork)]
    assert [(w.dataset, w.draw.sequences, w.draw.sequence_length) for w in drawn] == [
        ("hh-test", 10_000, 1024),
        ("alpaca-farm", 10_000, 1024),
    ]
    assert local_hub.sent() == 0


def test_tulus_stages_are_planned_and_its_published_ones_sampled(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    rlvr = '{ use = "tulu3.1-rlvr", data = "rlvr", save_steps = [1200] }'
    cells = _planned(
        local_hub,
        tmp_path,
        "tulu",
        'training.rlvr={ use = "tulu3-rlvr" }',
        f'posttrain.tulu.stages=[{{ use="tulu3-sft", data="sft" }}, {rlvr}]',
    ).cells
    assert sum(isinstance(cell.work, PosttrainWork) for cell in cells) == 2
    cells = _planned(local_hub, tmp_path, "tulu").cells
    stages = [cell.work.training for cell in cells if isinstance(cell.work, PosttrainWork)]
    assert [(stage.method, stage.steps) for stage in stages] == [("sft", 14_678), ("dpo", 2_121)]
    made = {c.checkpoint.label for c in cells if c.checkpoint and c.checkpoint.suite == "tulu"}
    assert len(made) == 11 + 10
    sampled = [cell.work for cell in cells if isinstance(cell.work, SampleWork)]
    # SFT, DPO, and every 240th of RLVR's steps; 40 problems in two batches.
    assert len(sampled) == 2 * (2 + 10)
    assert {(work.count, work.sampling.samples) for work in sampled} == {(32, 512), (8, 512)}
    assert local_hub.sent() == 0
