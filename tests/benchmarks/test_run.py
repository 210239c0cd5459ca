"""The run of the rows: what crashes takes no other along, and what is written tells all."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import run
from benchmarks.limits import Figure, alone
from benchmarks.run import ROWS, Row, measure
from benchmarks.table import as_markdown

FIGURES = {
    "fast": [
        Figure("speed | of it", 2.0, "×", "≥ 1.5", (1.9, 2.1), "1 s against 2 s"),
        Figure("what it comes of", 1.0, "s"),
    ],
    "slow": [Figure("time", 12.0, "s", "≤ 10")],
}


def _killed(row: Row, _device: str) -> list[Figure]:
    if row.name == "killed":
        alone(os._exit, 1)
    if row.name == "broken":
        raise RuntimeError("no such thing")
    return FIGURES[row.name]


def test_a_crash_takes_no_other_row_along(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(name, 60) for name in ("killed", "fast", "broken", "slow")]
    *_, found = measure(rows, "cpu", Console(), _killed)
    assert [(row["row"], row["met"]) for row in found["rows"]] == [
        ("fast", True),
        ("fast", None),
        ("slow", False),
    ]
    assert set(found["crashed"]) == {"killed", "broken"}
    assert "BrokenProcessPool" in found["crashed"]["killed"]
    assert set(found["seconds"]) == {"killed", "fast", "broken", "slow"}
    told = capsys.readouterr().out
    assert "1 of 4: killed, about 60 s; then, about 3 min: fast, broken, slow" in told
    assert "broken crashed: RuntimeError: no such thing" in told


def test_the_page_holds_what_the_json_does() -> None:
    rows = [Row(name, 60) for name in ("fast", "broken", "slow")]
    *_, found = measure(rows, "cpu", Console(quiet=True), _killed)
    page = as_markdown(json.loads(json.dumps(found)), "# Head\n")
    assert page.startswith("# Head\n\n- date: ")
    assert "- goals: 1 of 2 met" in page
    lines = page.splitlines()
    assert "| fast | speed \\| of it | 2 × | 1.9–2.1 | ≥ 1.5 | 1 s against 2 s | met |" in lines
    assert "|  | what it comes of | 1 s |  |  |  |  |" in lines
    assert "| slow | time | 12 s |  | ≤ 10 |  | **missed** |" in lines
    assert "| broken | crashed: RuntimeError: no such thing | | | | | |" in lines
    cells = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
    assert cells == {8}


def test_exit_codes_and_what_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "ROWS", tuple(Row(name, 1) for name in ("fast", "slow", "broken")))
    monkeypatch.setattr(run, "_in_own_process", _killed)
    monkeypatch.setattr(run, "_HERE", tmp_path)
    path = tmp_path / "some.json"
    assert run.main(["--only", "slow", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["rows"][0]["met"] is False
    assert [each.name for each in tmp_path.iterdir()] == ["some.json"]
    assert run.main([]) == 1
    assert "RuntimeError: no such thing" in capsys.readouterr().err
    assert {each.name for each in tmp_path.iterdir()} == {"some.json", "figures.json", "README.md"}
    assert "| slow | time |" in (tmp_path / "README.md").read_text()


def test_a_gpu_is_asked_for_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--gpu", "--only", "planning"]) == 2
    assert "a GPU doesn't help the row 'planning'" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert run.main(["--gpu"]) == 2
        assert "torch finds no CUDA GPU here" in capsys.readouterr().err


def test_every_row_has_a_module_and_the_whole_its_time() -> None:
    for row in ROWS:
        assert importlib.util.find_spec(f"benchmarks.{row.name.replace('-', '_')}") is not None
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert sum(row.seconds for row in ROWS) < 20 * 60
