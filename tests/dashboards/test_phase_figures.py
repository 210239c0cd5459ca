"""Figures and tables of phases, of compared models and of the tractable model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.phase_figures import comparisons, phase_strip
from dashboards.phase_table import phase_table, toy_sentences, toy_table
from dashboards.phases import phases
from dashboards.report import render
from dashboards.tables import read
from dashboards.toy_figures import toy_figures
from dashboards.toy_phases import FIGURE_5, toy_phases
from tests.dashboards import synthetic

STEPS = (0, 1, 8, 32, 128, 512)
COURSE = (43.0, 30.0, 10.0, 25.0, 44.0, 35.0)
EXPANDS = [1.2, 1.1, 1.5, 1.7]
RETURNS = [1.5, 1.2, 1.8, 1.6]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def toy(results: Path, sweep: str, courses: list[list[float]], **columns: Any) -> None:
    drawn = np.random.default_rng(0)
    kept = {
        "features": drawn.standard_normal(4 * 7 * 2).tolist(),
        "weights": drawn.standard_normal(4 * 2 * 3).tolist(),
    }
    synthetic.toy(results, sweep, courses, **{**kept, **columns})


def test_the_strip_has_a_bar_for_each_phase(results: Path) -> None:
    synthetic.trajectory(results, COURSE, steps=STEPS)
    figure = phase_strip(read(results), phases(results).to_pylist())
    assert figure is not None
    assert [(row["phase"], row["start"], row["end"]) for row in figure.rows] == [
        ("warmup", 0, 8),
        ("entropy_seeking", 8, 128),
        ("compression_seeking", 128, 512),
    ]
    assert "pico-64, heldout: warmup, entropy_seeking" in figure.alternative
    assert phase_strip(read(results), []) is None


def test_models_of_one_name_have_bars_of_their_own(results: Path) -> None:
    for suite in ("pico", "tuned"):
        for step, rankme in zip(STEPS, COURSE, strict=True):
            cell_id = f"{suite}{step}"
            synthetic.geometry(results, "pico-64", step, rankme, suite=suite, cell_id=cell_id)
    figure = phase_strip(read(results), phases(results).to_pylist())
    assert figure is not None
    assert {row["series"] for row in figure.rows} == {
        "pico/pico-64, heldout", "tuned/pico-64, heldout"
    }  # fmt: skip


def test_the_table_tells_each_phase_in_words(results: Path) -> None:
    synthetic.trajectory(results, COURSE, steps=STEPS)
    (row,) = phase_table(phases(results).to_pylist())
    assert row["model"] == "pico/pico-64"
    assert row["phases"][0].startswith("warmup: step 0 to 8, −33.00 ± 0.14")
    assert row["basis"] == "paired"


def test_models_that_differ_by_seed_are_compared(results: Path) -> None:
    for model in ("ordinary-0", "ordinary-1", "flat-0", "flat-1", "lonely-0"):
        synthetic.trajectory(results, COURSE, model=model, steps=STEPS)
        synthetic.head(results, model, 0, 0.1)
    figures = comparisons(read(results), phases(results).to_pylist())
    verdict = "2 × warmup, entropy_seeking, compression_seeking"
    assert f"Phases: flat: {verdict}; ordinary: {verdict}." in figures[0].caption
    assert [figure.key for figure in figures] == ["compared-rankme-pico", "compared-norm_cv-pico"]
    assert figures[0].title == "RankMe, pico: flat / ordinary"
    assert {row["model"] for row in figures[0].rows} == {
        "ordinary-0", "ordinary-1", "flat-0", "flat-1"
    }  # fmt: skip


def test_models_of_several_sizes_are_no_seeds(results: Path) -> None:
    for model in ("pico-64", "pico-128"):
        synthetic.trajectory(results, COURSE, model=model, steps=STEPS)
    assert comparisons(read(results), []) == []


def test_toy_figures_draw_what_was_kept(results: Path) -> None:
    toy(results, "figure-5", [RETURNS] * 3)
    toy(results, "figure-12a", [EXPANDS] * 3)
    figures = {figure.key: figure for figure in toy_figures(results)}
    assert list(figures) == ["toy-features", "toy-weights", "toy-singular-values", "toy-fractions"]
    first = figures["toy-weights"].rows[0]
    assert (first["sweep"], first["of"], first["step"]) == ("figure-12a", "class 1", 0)
    phases_of = [r["phase"] for r in figures["toy-weights"].rows if r["sweep"] == "figure-5"]
    assert list(dict.fromkeys(phases_of)) == FIGURE_5.split(", ")
    assert len(figures["toy-features"].rows) == 2 * 4 * 7
    assert {r["quantity"] for r in figures["toy-singular-values"].rows} == {"RankMe", "σ1", "σ2"}


def test_a_sweep_over_skews_and_widths_is_a_diagram(results: Path) -> None:
    rows = [(skew, d) for skew in (0.0, 1.0) for d in (1, 2)]
    for place, (skew, d) in enumerate(rows):
        course = RETURNS if skew else EXPANDS
        key = synthetic.keys("toy", "diagram", place, suite="toy")
        synthetic.toy(
            results, "diagram", [course] * 4, skew=skew, d=d, cell_id=key["cell_id"]
        )  # fmt: skip
    (figure,) = (figure for figure in toy_figures(results) if "diagram" in figure.key)
    told = {(row["skew"], row["d"]): row["fraction"] for row in figure.rows}
    assert told == {(0.0, 1): 0.0, (0.0, 2): 0.0, (1.0, 1): 1.0, (1.0, 2): 1.0}
    assert "diagram: of 4 settings, 2 show exactly Figure 5" in toy_table(results)[0][0]


@pytest.mark.parametrize(
    ("returning", "said"),
    [
        (0, "the control removes exactly Figure 5, as the paper says: left in 0.0%"),
        (20, "the control makes exactly Figure 5 rarer but does not remove it: 20.0%"),
        (80, "the control does not remove exactly Figure 5, against the paper: 80.0%"),
    ],
)
def test_sentences_say_what_a_control_does(results: Path, returning: int, said: str) -> None:
    toy(results, "figure-5", [RETURNS] * 80 + [EXPANDS] * 20)
    toy(results, "figure-12a", [RETURNS] * returning + [EXPANDS] * (100 - returning))
    told = toy_sentences(toy_phases(results).to_pylist())
    assert "figure-5: RankMe expands and then compresses in 80.0% [71.1%, 86.7%] of 100" in told[0]
    assert told[1].startswith(f"figure-12a: {said}")
    assert "an expansion and a compression after it" in told[1]


def test_a_control_of_what_hardly_appears_says_so(results: Path) -> None:
    toy(results, "figure-5", [EXPANDS] * 100)
    toy(results, "figure-13b", [EXPANDS] * 100)
    told = toy_sentences(toy_phases(results).to_pylist())
    assert told[1].count("it hardly appears without the control either") == 2


def test_a_report_of_the_toy_alone_misses_no_checkpoints(results: Path) -> None:
    toy(results, "figure-5", [RETURNS])
    page = Path(render(results, "toy")).read_text(encoding="utf-8")
    assert "Tractable model" in page
    assert "No checkpoint rows yet" not in page
