"""The derived table of correlations: which trials count, what stands beside them, what lacks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.correlations import SCHEMA, correlations
from dashboards.finetune_trials import read_arms
from dashboards.query import load
from dashboards.series_correlations import correlate
from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import finetune

STEPS = (256, 512, 1024, 2048, 4096)
CVS = (0.1, 0.3, 0.2, 0.5, 0.4)
NULLS = {"log_step", "loss_pre", "learning_rate"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def heads(results: Path, steps: tuple[int, ...] = STEPS, **columns: Any) -> None:
    for step, cv in zip(steps, CVS, strict=False):
        synthetic.head(results, "pico-64", step, cv, **columns)


def rows_of(results: Path, **wanted: Any) -> list[dict[str, Any]]:
    rows = load("correlations", results).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def one(results: Path, **wanted: Any) -> dict[str, Any]:
    (row,) = rows_of(results, **wanted)
    return row


def test_on_the_norm_papers_table_2_the_step_alone_does_as_well() -> None:
    steps = [1000, 25000, 75000, 143000]
    baseline = [0.353, 0.274, 0.261, 0.259]
    norm_cv = [0.092, 0.119, 0.126, 0.139]
    by_cv, by_step = correlate(steps, baseline, [norm_cv, [math.log1p(step) for step in steps]])
    assert round(by_step["pearson"], 2) == -0.98
    assert round(by_cv["pearson"], 2) == -0.95
    assert not by_cv["independent"]
    assert by_step["partial_given_log_step"] is None
    assert by_cv["pearson_pvalue"] == 1 / 24


def test_the_outcome_is_the_mean_over_seeds(results: Path) -> None:
    heads(results)
    gains = np.random.default_rng(0).uniform(0.1, 0.5, (5, 3))
    for step, seeds in zip(STEPS, gains, strict=True):
        for seed, gain in enumerate(seeds):
            finetune(results, step, seed, gain, finetunability=gain**2)
    row = one(results, predictor="norm_cv", outcome="net_gain")
    assert row["pearson"] == pytest.approx(np.corrcoef(CVS, gains.mean(axis=1))[0, 1])
    other = one(results, predictor="norm_cv", outcome="finetunability")
    assert other["pearson"] == pytest.approx(np.corrcoef(CVS, (gains**2).mean(axis=1))[0, 1])
    assert (row["n"], row["n_seeds"], row["rate"], row["lr"]) == (5, 3, "fixed", 2e-3)
    assert row["differences_pearson"] == pytest.approx(
        np.corrcoef(np.diff(CVS), np.diff(gains.mean(axis=1)))[0, 1]
    )


def test_every_predictor_stands_beside_the_null_models(results: Path) -> None:
    noise, log = [], []
    for place, step in enumerate(STEPS):
        synthetic.head(
            results, "pico-64", step, CVS[place], norm_range=1.5 + place,
            norm_cv_invariant=CVS[place], overlap_std=0.2 + place**2,
        )  # fmt: skip
        synthetic.geometry(
            results, "pico-64", step, 20.0 + place, rankme_logits=10.0 - place,
            participation_ratio=3.0 + place,
        )  # fmt: skip
        finetune(results, step, 0, 0.1 + 0.05 * place, loss_none=3.0 - 0.1 * place**2)
        key = synthetic.keys("sensitivity", "pico-64", step)
        shared = {"dataset": "heldout", "forward_dtype": "float32"}
        for row, (scale, seed) in enumerate((s, d) for s in (0.01, 0.1) for d in (0, 1)):
            rise = scale * (place + 1) * (1 + seed)
            noise.append({**key, **shared, "row": row, "scale": scale, "seed": seed,
                          "loss_increase": rise})  # fmt: skip
        log.append({**synthetic.keys("pretrain", "pico-64", step), "learning_rate": 1.0 / step})
    synthetic.write(results, "sensitivity", noise)
    synthetic.write(results, "training_log", log)
    rows = rows_of(results, outcome="net_gain")
    names = [row["predictor"] for row in rows]
    assert set(names) >= NULLS | {"norm_range", "norm_cv_invariant", "overlap_std", "rankme_logits"}
    assert names.count("sensitivity") == 2
    assert {row["predictor"] for row in rows if row["is_null_model"]} == NULLS
    assert {row["dataset"] for row in rows if row["predictor"] == "rankme"} == {"heldout"}
    assert {row["scale"] for row in rows if row["predictor"] == "sensitivity"} == {0.01, 0.1}
    found = {row["predictor"]: row for row in rows}
    steps = np.log1p(STEPS)
    gains = [0.1 + 0.05 * place for place in range(5)]
    assert found["log_step"]["pearson"] == pytest.approx(np.corrcoef(steps, gains)[0, 1])
    assert found["log_step"]["partial_given_log_step"] is None
    assert found["sensitivity"]["pearson"] == pytest.approx(1)
    assert found["alpha_req"]["pearson"] is None
    assert not found["norm_range"]["independent"]
    assert found["norm_range"]["predictor_trend"] == pytest.approx(1)


def test_a_series_without_a_trend_is_independent(results: Path) -> None:
    heads(results)
    for step, gain in zip(STEPS, (0.3, 0.1, 0.5, 0.2, 0.4), strict=True):
        finetune(results, step, 0, gain)
    assert one(results, predictor="norm_cv", outcome="net_gain")["independent"]


def test_trials_that_were_stopped_or_searched_at_another_rate_do_not_count_as_fixed(
    results: Path,
) -> None:
    heads(results)
    for place, step in enumerate(STEPS):
        finetune(results, step, 0, 0.1 * place)
        finetune(results, step, 0, 0.9, lr=1e-3, searched=True, epochs_run=1)
        finetune(results, step, 0, 0.1 * place + 0.05 * (place % 2), lr=5e-3,
                           searched=True)  # fmt: skip
        finetune(results, step, 0, None, lr=2e-2, searched=True)
        # The search stopped what was made without it as well.
        finetune(results, step, 0, 0.0, searched=True, epochs_run=1)
    fixed = one(results, predictor="norm_cv", outcome="net_gain", rate="fixed")
    best = one(results, predictor="norm_cv", outcome="net_gain", rate="best")
    assert (fixed["lr"], best["lr"]) == (2e-3, None)
    gains = [0.1 * place for place in range(5)]
    assert fixed["pearson"] == pytest.approx(np.corrcoef(CVS, gains)[0, 1])
    gains = [0.1 * place + 0.05 * (place % 2) for place in range(5)]
    assert best["pearson"] == pytest.approx(np.corrcoef(CVS, gains)[0, 1])


def test_seeds_that_diverged_are_left_out_and_counted(results: Path) -> None:
    heads(results)
    for place, step in enumerate(STEPS):
        finetune(results, step, 0, 0.1 * place)
        bad = None if place == 2 else math.nan if place == 3 else 0.1 * place
        finetune(results, step, 1, bad, epochs_run=3 if bad == bad else 2)
    row = one(results, predictor="norm_cv", outcome="net_gain")
    assert (row["n"], row["n_seeds"], row["n_diverged"]) == (5, 1, 2)
    assert row["pearson"] == pytest.approx(np.corrcoef(CVS, range(5))[0, 1])


def test_an_arm_needs_three_checkpoints_and_so_does_a_predictor(results: Path) -> None:
    for place, step in enumerate(STEPS[:2]):
        finetune(results, step, 0, 0.1 * place)
    assert rows_of(results) == []
    finetune(results, STEPS[2], 0, 0.3)
    heads(results, STEPS[:2])
    assert {row["predictor"] for row in rows_of(results)} == {"log_step", "loss_pre"}
    row = one(results, predictor="log_step", outcome="net_gain")
    assert row["n"] == 3
    assert row["pearson_low"] is None
    assert row["differences_pearson"] is None
    assert row["pearson_pvalue"] is not None
    assert one(results, predictor="loss_pre", outcome="net_gain")["pearson"] is None


def test_arms_differ_by_recipe_and_by_what_is_learned(results: Path) -> None:
    for step in STEPS:
        finetune(results, step, 0, 0.1)
        finetune(results, step, 0, 0.1, rank=16)
        finetune(results, step, 0, 0.1, intervention="equalize")
        finetune(results, step, 0, 0.1, task="sums")
        finetune(results, step, 0, 0.1, model="pico-128")
    assert len(read_arms(results)) == 5
    assert len(rows_of(results, predictor="log_step", outcome="net_gain")) == 5


def test_the_rate_of_most_trials_is_the_fixed_one_and_a_tie_is_settled(results: Path) -> None:
    for step in STEPS:
        finetune(results, step, 0, 0.1, lr=1e-3, searched=True)
        finetune(results, step, 0, 0.1, lr=5e-3)
    (arm,) = read_arms(results)
    assert arm.lr == 5e-3
    finetune(results, 8192, 0, 0.1, lr=1e-3, searched=True)
    (arm,) = read_arms(results)
    assert arm.lr == 1e-3


def test_all_stopped_or_unknown_steps_leave_nothing(results: Path) -> None:
    finetune(results, 1, 0, 0.1, epochs_run=1)
    (arm,) = read_arms(results)
    assert (arm.lr, arm.fixed, arm.best) == (None, (), ())
    key = synthetic.keys("finetune", "pico-64", None)
    synthetic.write(results, "finetunes", [{**key, "net_gain": 0.1, "lr": 1e-3}])
    assert len(read_arms(results)) == 1
    assert rows_of(results) == []


def test_metrics_that_are_not_finite_are_left_out(results: Path) -> None:
    heads(results, STEPS[:4])
    synthetic.head(results, "pico-64", STEPS[4], math.nan)
    for place, step in enumerate(STEPS):
        finetune(results, step, 0, 0.1 * place)
    assert one(results, predictor="norm_cv", outcome="net_gain")["n"] == 4
    assert one(results, predictor="log_step", outcome="net_gain")["n"] == 5


def test_the_table_is_defined_and_empty_without_trials(results: Path) -> None:
    synthetic.head(results, "pico-64", 1, 0.1)
    table = load("correlations", results)
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert all(field.metadata[b"definition"] for field in SCHEMA)
    assert load("correlations", results, columns=["n"]).column_names == ["n"]
    assert correlations(results).num_rows == 0


def test_three_checkpoints_leave_nothing_beside_the_step(results: Path) -> None:
    heads(results)
    for step, gain in zip(STEPS[:3], (0.3, 0.1, 0.5), strict=True):
        finetune(results, step, 0, gain)
    found = {row["predictor"]: row for row in rows_of(results, outcome="net_gain")}
    assert found["norm_cv"]["n"] == 3
    assert found["norm_cv"]["pearson"] is not None
    assert found["norm_cv"]["partial_given_log_step"] is None
