"""Commands besides runs: mistakes get one line, every command helps, and JSON stands alone."""

import argparse
import re
from pathlib import Path

import pytest
import torch

from jobs.study import load_study
from orchestrator import run
from orchestrator.options import parser
from tests.orchestrator.local_study import run_here, run_process


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["full", "--study", "pic"], "did you mean 'pico'"),
        (["full", "--set", "geometry.layer=all"], "did you mean 'layers'"),
        (["full", "--set", "nonsense"], "not of the form path=value"),
        (["full", "--threads", "0"], "not a whole number above 0"),
        (["full", "--gpus-per-worker", "0"], "0 is neither a number from 0.01 to 1 nor a whole"),
        (["full", "--gpus-per-worker", "1.5"], "1.5 is neither a number from 0.01 to 1 nor"),
        (["full", "--gpus-per-worker", "inf"], "inf is neither a number from 0.01 to 1 nor"),
        (["full", "--executor", "slurm"], "invalid choice: 'slurm'"),
        (["full", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["ful"], "invalid choice: 'ful'"),
        ([], "COMMAND"),
        (["full", "--results", "ftp://host/results"], "nothing is known of ftp://"),
        (["full", "--results", "s3://"], "names no bucket"),
        (["full", "--limit", "geometry=0"], "geometry=0 is not KIND=SECONDS"),
        (["full", "--limit", "geometri=5"], "geometri=5 is not KIND=SECONDS"),
        (["full", "--results", "/proc/eigentrace"], "cannot use the results folder"),
        (["plan", "--study", "/nowhere/study.toml"], "cannot read the study"),
        (["status", "--results", __file__], "is not a results folder"),
        (["retry", "--cause", "bad luck"], "invalid choice: 'bad luck'"),
        (["retry", "--results", "/nowhere/results"], "there are no results at /nowhere/results"),
        (["compact", "--results", "/nowhere/results"], "there are no results at /nowhere/results"),
        (["logs", "00", "--results", "/nowhere/results"], "no cell whose id begins with '00'"),
        (["diff", "/nowhere/a", "/nowhere/b"], "there is no results folder /nowhere/a"),
        (["diff", "a", "b", "--tolerance", "x"], "x is not a number from 0 to below 1"),
        (["plan", "--set", "datasets.heldout.seed=-1"], "greater than or equal to 0"),
        (["report", "--results", "/nowhere/results"], "/nowhere/results"),
        (["init", "/nowhere/study.toml"], "cannot write /nowhere/study.toml"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_here(capsys, *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    assert outcome.last["error"] in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_ends_the_process_with_code_2() -> None:
    done = run_process("full", "--study", "pic")
    assert done.code == 2
    assert "Traceback" not in done.err


def test_results_go_where_they_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.results_place(None).path == tmp_path / "results"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert run.results_place(None).path == Path.home() / "eigentrace" / "results"
    monkeypatch.setenv("EIGENTRACE_RESULTS", "~/mine")
    assert run.results_place(None).path == Path.home() / "mine"
    assert run.results_place("given").path == tmp_path / "given"


def _commands() -> dict[str, argparse.ArgumentParser]:
    (subcommands,) = (
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(subcommands.choices)


@pytest.mark.parametrize("command", ["", *_commands()])
def test_every_command_helps(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main([*filter(None, [command]), "--help"])
    assert stop.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert shown.startswith("usage: eigentrace")
    description = _commands()[command].description if command else "Trace how the geometry"
    assert description
    assert description in shown


def test_init_writes_a_study_that_loads_and_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "study.toml"
    assert run_here(capsys, "init", str(path)).code == 0
    assert load_study(str(path)).suites
    written = path.read_text()
    again = run_here(capsys, "init", str(path))
    assert (again.code, again.err.startswith(f"error: {path} exists")) == (2, True)
    assert path.read_text() == written


def test_init_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert "suites" in run_here(capsys, "init", "--schema").last["schema"]["properties"]


def test_doctor_tells_what_it_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    outcome = run_here(capsys, "doctor", "--results", str(tmp_path / "results"))
    assert (outcome.code, outcome.last["problems"]) == (0, [])
    assert f"torch {torch.__version__}".split("+")[0] in outcome.out
