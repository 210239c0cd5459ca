"""Upkeep of results keeps out of the way of a run."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from jobs.errors import StoreError, UsageError
from jobs.events import Failed
from jobs.place import Place
from orchestrator import upkeep
from orchestrator.live import telling
from orchestrator.progress import Snapshot
from orchestrator.store import Store
from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import falling, write_heads, write_trials
from tests.orchestrator.hub_cells import drawing
from tests.orchestrator.local_study import run_here


def test_results_are_not_compacted_while_a_run_is_at_work(bucket: str) -> None:
    store = Store(f"s3://{bucket}/run")
    snapshot = Snapshot("running", (), (), (), 1, 1, 0.0, 0, 0.0)
    with telling(store.place, "words", print) as publish:
        publish(lambda: snapshot)
        with pytest.raises(UsageError, match="a run is at work on s3://"):
            upkeep.compact(store.place, Console(quiet=True))
    assert upkeep.compact(store.place, Console(quiet=True))["files_after"] == 0


def test_results_that_cannot_be_written_are_not_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "results")
    with pytest.raises(StoreError, match="there are no results"):
        upkeep.compact(place, Console(quiet=True))
    Store(place)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="Permission denied") as caught:
        upkeep.compact(place, Console(quiet=True))
    assert "--results" in caught.value.remedy
    assert not (tmp_path / "results" / ".lease").exists()


def test_a_retry_of_a_cell_that_did_not_fail_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    cell = drawing()
    asked = ("retry", "--results", str(tmp_path / "results"))
    for nothing in (asked, (*asked, "--cause", "memory")):
        told = run_here(capsys, *nothing)
        assert (told.code, told.last["cleared"]) == (0, 0)
    store.fail(cell, Failed(cell.id, "memory", "too large", remedy="a larger machine"), 1)
    for mistaken, said in (
        (("--cell", "zz"), "no failure at "),
        (("--cell", cell.id[:8], "--cause", "data"), "no failure of cause 'data' at "),
    ):
        told = run_here(capsys, *asked, *mistaken)
        assert told.code == 2
        assert said in told.err
        assert f"begins with '{mistaken[1]}'" in told.err
        assert "leave out --cell" in told.err
    assert run_here(capsys, *asked, "--cell", cell.id[:8]).last["cleared"] == 1


def test_advice_is_told_to_people_and_to_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = synthetic.start(tmp_path / "results")
    asked = ("advise", "--results", str(results))
    told = run_here(capsys, *asked)
    assert (told.code, told.last["series"]) == (0, [])
    assert "plain LoRA was not measured at three checkpoints" in told.out
    write_heads(results)
    write_trials(results, falling)
    told = run_here(capsys, *asked)
    (series,) = told.last["series"]
    assert (series["verdict"], series["recommended"], series["n"]) == ("skill", "step512", 7)
    assert "Fine-tune step 512" in told.out
    assert "Place  Step" in told.out
    told = run_here(capsys, *asked, "--json")
    assert len(told.out.splitlines()) == 1
    assert [row["place"] for row in told.last["advice"]] == list(range(1, 8))
    assert run_here(capsys, "advise", "--results", str(tmp_path / "nowhere")).code == 2


def test_results_of_two_are_exported_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, cv in (("alice", 0.3), ("bob", 0.4)):
        synthetic.head(synthetic.start(tmp_path / name), "pico-64", 512, cv)
        synthetic.head(tmp_path / name, "pico-64", 256, 0.2)
    places = (str(tmp_path / "alice"), str(tmp_path / "bob"))
    asked = ("export", "--to", str(tmp_path / "out"), *places)
    told = run_here(capsys, *asked, "--name", "alice", "--name", "bob", "--license", "odc-by")
    assert (told.code, told.last["conflicts"]) == (0, 1)
    assert told.last["tables"] == {"head": 3, "conflicts": 1}
    label = "pico/pico-64@step512"
    assert f"conflict: head.norm_cv: alice has 0.3 for {label}, bob has 0.4 for {label}" in told.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "conflicts.parquet", "eigentrace-export.json", "head.parquet"
    }  # fmt: skip
    assert run_here(capsys, *asked, "--name", "alice").code == 2
    assert run_here(capsys, "export", "--to", places[0], places[1]).code == 2
    # Without results it takes those that other commands would.
    monkeypatch.setenv("EIGENTRACE_RESULTS", places[0])
    told = run_here(capsys, "export", "--to", str(tmp_path / "own"), "--format", "csv")
    assert told.last["tables"] == {"head": 2}
    assert (tmp_path / "own" / "head.csv").is_file()
