"""What checkpoints can do, in the report: beside chance, with no claim that luck could make."""

import json
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from dashboards import capabilities
from dashboards.report import render
from dashboards.tables import Measured, read
from tests.dashboards import synthetic

STEPS = (0, 8, 64)


def _accuracy(step: int, value: float, **columns: Any) -> dict[str, Any]:
    return {
        **synthetic.keys("eval", "pico-64", step),
        "task": "facts",
        "metric": "acc_tie",
        "value": value,
        "stderr": 0.03,
        "n": 256,
        "shots": 0,
        "chance": 0.25,
        "n_truncated": 0,
        "subset": "all",
        **columns,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = synthetic.start(tmp_path / "results")
    for step, value in zip(STEPS, (0.25, 0.31, 0.6), strict=True):
        rows = [
            _accuracy(step, 0.9, metric="acc"),
            _accuracy(step, value, row=1),
            _accuracy(step, value + 0.2, row=2, subset="frequent", n=128),
            _accuracy(step, value - 0.2, row=3, subset="rare", n=128),
        ]
        synthetic.write(folder, "evals", rows)
        base = synthetic.keys("ablation", "pico-64", step)
        shared = {"task": "facts", "dataset": "heldout", "ablation_mean": "keep", "chance": 0.25}
        synthetic.write(
            folder,
            "ablation",
            [
                {**base, **shared, "row": 0, "mode": "none", "acc_tie": value},
                {**base, **shared, "row": 1, "mode": "removed", "rank": 10, "acc_tie": 0.5},
                {**base, **shared, "row": 2, "mode": "retained", "rank": 10, "acc_tie": 0.26},
            ],
        )
        base = synthetic.keys("memorization", "pico-64", step)
        policies = ("drop_token_both", "floor")
        rows = [
            {**base, "row": n, "task": "facts", "zero_policy": policy, "memorization": 0.1 + n}
            for n, policy in enumerate(policies)
        ]
        synthetic.write(folder, "memorization", [{**row, "n_examples": 90} for row in rows])
        base = synthetic.keys("generate", "pico-64", step)
        said = {"prompt": "Once", "text": f"<b>upon</b> {step}", "distinct_2": 0.5}
        synthetic.write(folder, "generations", [{**base, **said, "loop_length": step or None}])
    return folder


@pytest.fixture
def measured(results: Path) -> Measured:
    return read(results)


def test_one_accuracy_is_drawn_for_each_subset_beside_chance(measured: Measured) -> None:
    figures = {figure.key: figure for figure in capabilities.capability_figures(measured)}
    assert set(figures) == {"task-0", "memorization-0", "ablation-0"}
    task = figures["task-0"]
    assert {row["variant"] for row in task.rows} == {"all", "frequent", "rare"}
    assert [row["value"] for row in task.rows if row["variant"] == "all"] == [0.25, 0.31, 0.6]
    assert "256 questions" in task.caption
    assert '"chance"' in json.dumps(task.specs["step"])
    assert [row["value"] for row in figures["memorization-0"].rows] == [0.1, 0.1, 0.1]
    assert {(p["mode"], p["value"]) for p in figures["ablation-0"].rows} == {
        ("removed", 0.5),
        ("retained", 0.26),
    }
    for figure in figures.values():
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown))


def test_more_than_chance_is_said_only_where_luck_would_not_do(tmp_path: Path) -> None:
    for value, verdict in ((0.31, "more than chance"), (0.30, "no more than chance")):
        folder = synthetic.start(tmp_path / str(value))
        synthetic.write(folder, "evals", [_accuracy(1, value)])
        ((label, (sentence,)),) = capabilities.capability_sentences(read(folder))
        assert label == "pico-64"
        assert sentence.endswith(f"chance 0.250: {verdict}.")


def test_the_words_name_the_halves_and_what_ablation_leaves(measured: Measured) -> None:
    ((_, (accuracy, ablation)),) = capabilities.capability_sentences(measured)
    assert "0.600 ± 0.030 of 256 questions at the end" in accuracy
    assert "frequent facts 0.800 ± 0.030, rare ones 0.400 ± 0.030" in accuracy
    assert "from 0.600 to 0.500 without the top 10, 0.260 with only the top 10" in ablation


def test_generations_pair_the_first_and_the_last_checkpoint(measured: Measured) -> None:
    (row,) = capabilities.generation_table(measured)
    assert (row["first"]["revision"], row["last"]["revision"]) == ("step0", "step64")


def test_the_page_shows_them_and_quotes_what_models_say(results: Path) -> None:
    page = Path(render(results, "test")).read_text(encoding="utf-8")
    assert "&lt;b&gt;upon&lt;/b&gt; 64" in page
    assert "<b>upon</b>" not in page
    assert "loops over 64 tokens" in page
    assert "What they can do" in page


def test_without_tasks_nothing_is_said(tmp_path: Path) -> None:
    empty = read(synthetic.pico_like(tmp_path / "results", steps=STEPS))
    assert capabilities.capability_figures(empty) == []
    assert capabilities.capability_sentences(empty) == []
    assert capabilities.generation_table(empty) == []
