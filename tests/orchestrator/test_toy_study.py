"""A study of the tractable model alone, from its file to its tables."""

from pathlib import Path

import pytest

from dashboards.query import load
from jobs.study import load_study
from orchestrator import run
from orchestrator.plan import make_plan

STUDY = """
name = "small"

[[toy]]
name = "figure-5"
counts = [[4, 2, 1]]
widths = [2]
scales = [0.3]
learning_rates = [0.05]
seeds = 5
last_step = 30
keep = 1

[[toy]]
name = "steep"
counts = [[4, 2, 1]]
widths = [2]
scales = [0.3]
learning_rates = [9.0]
loss = "squared_error"
seeds = 5
last_step = 300
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    return path


def test_what_diverges_is_a_failure_row_that_names_the_setting(study: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = ["full", "--study", str(study), "--executor", "inline", "--results", str(results)]
    assert run.main(command) == 1
    runs = load("toy", results)
    assert runs.column("seed").to_pylist() == [0, 1, 2, 3, 4]
    assert set(runs.column("model").to_pylist()) == {"figure-5"}
    (failure,) = load("failures", results).to_pylist()
    assert failure["cause"] == "diverged"
    assert "squared error, counts 4-2-1, d 2, scale 0.3, learning rate 9" in failure["message"]
    assert {row["n"] for row in load("toy_phases", results).to_pylist()} == {5}


@pytest.mark.parametrize("change", ["toy.0.widths=[0]", "toy.0.counts=[[]]", "toy.0.counts=[[0]]"])
def test_no_dimension_and_no_class_are_the_users_mistake(study: Path, change: str) -> None:
    assert run.main(["plan", "--study", str(study), "--set", change]) == 2


def test_the_shipped_studies_have_their_sweeps() -> None:
    kinds = {
        name: [c.work.kind for c in make_plan(load_study(name)).cells] for name in ("pico", "toy")
    }
    assert kinds["pico"].count("toy") == 5
    assert set(kinds["toy"]) == {"toy"}
