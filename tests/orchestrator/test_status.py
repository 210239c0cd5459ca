"""Which study `status` counts where none is named."""

import json
from pathlib import Path

import pytest

from jobs.place import Place
from jobs.study import load_study
from orchestrator.live import telling
from orchestrator.plan import make_plan
from orchestrator.progress import Snapshot
from orchestrator.report_command import report
from tests.dashboards import synthetic
from tests.orchestrator.local_study import Outcome, run_here

RUNNING = Snapshot("running", (), (), (), 0, 0, 0.0, 0, 0.0)


def _status(capsys: pytest.CaptureFixture[str], results: Path) -> tuple[str, int, Outcome]:
    outcome = run_here(capsys, "status", "--json", "--results", str(results))
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    return found["study"], found["cells"], outcome


def _cells(study: str) -> int:
    return len(make_plan(load_study(study)).cells)


def test_it_is_pico_where_nothing_tells(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _status(capsys, tmp_path)[:2] == ("pico", _cells("pico"))


def test_it_is_that_of_the_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    synthetic.trajectory(results, (43.0, 42.0), steps=(0, 1))
    report(Place(results), load_study("smoke"))
    assert _status(capsys, results)[:2] == ("smoke", _cells("smoke"))


def test_it_is_that_of_the_run_at_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    synthetic.trajectory(results, (43.0, 42.0), steps=(0, 1))
    report(Place(results), load_study("pico"))
    with telling(Place(results), "smoke", print) as publish:
        publish(lambda: RUNNING)
        assert _status(capsys, results)[:2] == ("smoke", _cells("smoke"))


def test_a_study_that_is_no_shipped_one_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = synthetic.start(tmp_path / "results")
    with telling(Place(results), "mine", print) as publish:
        publish(lambda: RUNNING)
        study, _, outcome = _status(capsys, results)
    assert study == "pico"
    assert "these results are of study mine, and what is counted is pico" in outcome.err
