"""The derived table of capabilities: which rows count, and what stands beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.capability_correlations import SCHEMA
from dashboards.query import load
from tests.dashboards import synthetic

STEPS = (8, 64, 512, 4096, 32768)
RANKS = (40.0, 20.0, 30.0, 50.0, 35.0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def write_eval(results: Path, step: int, value: float | None, **columns: Any) -> None:
    row = {"task": "sciq", "metric": "acc", "subset": "all", "shots": 0, "n": 100, **columns}
    key = synthetic.keys("evals", "pico-64", step)
    cell = synthetic.cell_id(key["cell_id"], *row.values())
    synthetic.write(results, "evals", [{**key, "cell_id": cell, "value": value, **row}])


def rows_of(results: Path, **wanted: Any) -> list[dict[str, Any]]:
    rows = load("capability_correlations", results).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def write_all(results: Path) -> list[float]:
    accuracies = [0.9 - rank / 100 for rank in RANKS]
    for step, rank, accuracy in zip(STEPS, RANKS, accuracies, strict=True):
        synthetic.geometry(results, "pico-64", step, rank, alpha_req=rank**0.5)
        write_eval(results, step, accuracy)
        write_eval(results, step, 0.5, subset="rare")
        write_eval(results, step, 7.0 - rank / 100, task="heldout", metric="loss", subset=None)
    return accuracies


def test_accuracy_goes_with_rankme_beside_null_models(results: Path) -> None:
    accuracies = write_all(results)
    (row,) = rows_of(results, predictor="rankme")
    assert (row["outcome"], row["task"], row["n"], row["dataset"]) == ("acc", "sciq", 5, "heldout")
    assert row["pearson"] == pytest.approx(-1)
    trend = np.corrcoef(np.log1p(STEPS), accuracies)[0, 1]
    assert row["null_log_step"] == pytest.approx(trend)
    assert row["null_loss"] == pytest.approx(1)
    assert row["survives"] is False
    nulls = {r["predictor"] for r in rows_of(results, is_null_model=True)}
    assert nulls == {"log_step", "loss"}


def test_steps_that_are_unknown_and_values_that_are_not_finite_are_left_out(results: Path) -> None:
    write_all(results)
    write_eval(results, 16, float("nan"))
    write_eval(results, 32, None)
    (row,) = rows_of(results, predictor="rankme")
    assert row["n"] == 5


def test_memorization_and_passk_are_outcomes(results: Path) -> None:
    for place, step in enumerate(STEPS):
        synthetic.head(results, "pico-64", step, 0.1 + place)
        base = synthetic.keys("memorization", "pico-64", step)
        synthetic.write(results, "memorization", [
            {**base, "row": n, "task": "qa", "zero_policy": policy, "memorization": value}
            for n, (policy, value) in enumerate(
                (("drop_token_both", 0.1 * place), ("floor", 0.5)))
        ])  # fmt: skip
        base = synthetic.keys("passk", "pico-64", step)
        synthetic.write(results, "passk", [
            {**base, "row": n, "problems": "sums", "k": k, "pass_at_k": place / 10 + k / 100}
            for n, k in enumerate((1, 4, 16))
        ])  # fmt: skip
    found = rows_of(results, predictor="norm_cv")
    assert {(row["outcome"], row["k"]) for row in found} == {
        ("memorization", None), ("pass_at_k", 1), ("pass_at_k", 16),
    }  # fmt: skip
    assert all(row["pearson"] == pytest.approx(1) for row in found)


def test_two_checkpoints_and_no_outcomes_give_no_rows(results: Path) -> None:
    synthetic.geometry(results, "pico-64", 8, 20.0)
    assert load("capability_correlations", results).schema == SCHEMA
    for step in STEPS[:2]:
        write_eval(results, step, 0.5)
    assert load("capability_correlations", results).num_rows == 0
