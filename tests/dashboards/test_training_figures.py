"""Pretraining's log, thinned evenly on a logarithmic axis."""

from pathlib import Path

import numpy as np
import pytest

from dashboards.tables import read
from dashboards.training_figures import training_figures
from tests.dashboards import synthetic


def write_log(results: Path, steps: range, model: str = "pico-64", **columns: object) -> None:
    rows = [
        {**synthetic.keys("log", model, step), "cell_id": synthetic.cell_id("log", model),
         "row": n, "loss": 9.0 / (1 + step), "gradient_norm": 1.0, "learning_rate": 1e-3, **columns}
        for n, step in enumerate(steps)
    ]  # fmt: skip
    synthetic.write(results, "training_log", rows)


def test_three_quantities_are_drawn(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.head(results, "pico-64", 8, 0.1)
    write_log(results, range(1, 50))
    drawn = {figure.key: figure for figure in training_figures(read(results))}
    assert list(drawn) == ["training-loss", "gradient-norm", "learning-rate"]
    loss = drawn["training-loss"]
    assert {row["label"] for row in loss.rows} == {"pico-64"}
    assert [row["step"] for row in loss.rows] == list(range(1, 50))
    assert "49 of 49 logged steps are drawn" in loss.caption
    assert list(loss.specs) == ["step", "tokens"]


def test_a_long_log_is_thinned_evenly_in_the_logarithm(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    write_log(results, range(1, 20_001))
    loss = training_figures(read(results))[0]
    steps = np.array([row["step"] for row in loss.rows])
    assert len(steps) <= 300
    assert (steps[0], steps[-1]) == (1, 20_000)
    assert np.diff(np.log1p(steps[steps > 500])).max() < 0.05
    assert loss.rows[7]["value"] == pytest.approx(9.0 / (1 + steps[7]), rel=1e-5)
    assert "of 20,000 logged steps" in loss.caption


def test_a_suite_without_a_quantity_has_no_figure_of_it(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    write_log(results, range(1, 5), gradient_norm=None)
    keys = [figure.key for figure in training_figures(read(results))]
    assert keys == ["training-loss", "learning-rate"]
    assert training_figures(read(synthetic.start(tmp_path / "empty"))) == []
