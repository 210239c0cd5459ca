"""Suites and studies that ship, against a hub whose revisions are named as they say."""

from pathlib import Path

import pytest

from jobs.hub_spec import HubSeries, HubSuite
from jobs.published import published_suites
from jobs.study import load_study
from orchestrator.hub_index import HubIndex
from orchestrator.hub_suites import hub_checkpoints
from tests.hub.server import LocalHub

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def _publish(hub: LocalHub, series: HubSeries) -> None:
    """Gives the local hub some revisions that fit a series."""
    steps = series.scheduled_steps or (1000, 2000)
    names = series.revisions or ("main",)
    if series.pattern is not None:
        pattern = series.pattern.replace("*", "9B")
        names = tuple(pattern.replace("{step}", str(step)) for step in steps[:2] + steps[-1:])
    for name in (*names, "main"):
        hub.model(series.repository).commit(name, FILES)
    if isinstance(series, HubSuite) and series.tokenizer is not None:
        hub.model(series.tokenizer).commit("main", FILES)


def test_suites_that_ship_find_what_their_names_say(local_hub: LocalHub, tmp_path: Path) -> None:
    every = ",".join(f'{{use="{name}"}}' for name in published_suites())
    suites = load_study("norms", [f"suites=[{every}]"]).suites
    for suite in suites:
        assert isinstance(suite, HubSuite)
        for series in (suite, *suite.more):
            _publish(local_hub, series)
    for suite in suites:
        assert isinstance(suite, HubSuite)
        found, missing = hub_checkpoints(suite, HubIndex(tmp_path / "memory"))
        asked = [len(series.scheduled_steps) for series in (suite, *suite.more)]
        assert len(missing) == sum(max(0, count - 3) for count in asked)
        assert len({checkpoint.label for checkpoint in found}) == len(found)
        wants_steps = {series.stage for series in (suite, *suite.more) if series.pattern}
        assert all(c.step is not None for c in found if c.stage in wants_steps)
    assert local_hub.sent() == 0


@pytest.mark.parametrize("name", ["norms", "tracing", "other-families"])
def test_studies_that_ship_find_their_checkpoints(
    local_hub: LocalHub, tmp_path: Path, name: str
) -> None:
    suites = load_study(name).suites
    index = HubIndex(tmp_path / "memory")
    for suite in suites:
        assert isinstance(suite, HubSuite)
        for series in (suite, *suite.more):
            _publish(local_hub, series)
    for suite in suites:
        assert isinstance(suite, HubSuite)
        assert hub_checkpoints(suite, index)[0]
