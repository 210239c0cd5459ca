"""The table of phases: paired uncertainty, names, warm-up, and series of every kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards import phases as module
from dashboards.phases import SCHEMA, name_phases, phases
from dashboards.query import load
from tests.dashboards import synthetic

STEPS = (0, 1, 8, 32, 128, 512)
COURSE = (43.0, 30.0, 10.0, 25.0, 44.0, 35.0)
THREE = "warmup, entropy_seeking, compression_seeking"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def rows_of(results: Path, **wanted: Any) -> list[dict[str, Any]]:
    rows = phases(results).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def verdict(results: Path, **wanted: Any) -> str:
    (found,) = {row["verdict"] for row in rows_of(results, **wanted)}
    return str(found)


def test_three_phases_with_their_ends_and_changes(results: Path) -> None:
    synthetic.trajectory(results, COURSE, steps=STEPS)
    rows = rows_of(results)
    assert [row["phase"] for row in rows] == THREE.split(", ")
    assert {row["verdict"] for row in rows} == {THREE}
    assert [(row["start_step"], row["end_step"]) for row in rows] == [(0, 8), (8, 128), (128, 512)]
    assert [row["change"] for row in rows] == [-33, 34, -9]
    assert all(row["change_se"] == pytest.approx(0.14, abs=0.01) for row in rows)
    assert all(row["basis"] == "paired" and row["confidence"] > 0.99 for row in rows)
    assert rows[0]["end_tokens"] == 8 * 1024
    assert [row["alpha_req_change"] for row in rows] == [0, 0, 0]


def test_a_change_that_pairing_hides_or_shows(results: Path) -> None:
    small = (43.0, 42.0, 41.0, 40.0, 41.0, 42.0)
    synthetic.trajectory(results, small, steps=STEPS, shared=5.0, own=0.05)
    assert verdict(results) == "warmup, entropy_seeking"
    synthetic.trajectory(results, small, model="loud", steps=STEPS, shared=0.0, own=5.0)
    assert verdict(results, model="loud") == "flat"


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ((10.0, 20.0, 30.0, 40.0, 41.0, 42.0), "entropy_seeking"),
        ((42.0, 30.0, 20.0, 10.0, 9.0, 8.0), "warmup"),
        ((20.0, 20.05, 20.0, 19.95, 20.0, 20.0), "flat"),
        ((20.0, 10.0, 30.0, 15.0, 40.0, 30.0), f"{THREE}, entropy_seeking, compression_seeking"),
        ((20.0,), "flat"),
        ((20.0, 10.0), "warmup"),
    ],
)
def test_series_of_every_kind(results: Path, course: tuple[float, ...], expected: str) -> None:
    synthetic.trajectory(results, course, steps=STEPS)
    assert verdict(results) == expected


def test_a_series_that_starts_late_has_an_unobserved_warmup(results: Path) -> None:
    synthetic.trajectory(results, (30.0, 20.0, 40.0), steps=(1000, 2000, 4000))
    rows = rows_of(results)
    assert rows[0]["verdict"] == "unobserved, compression_seeking, entropy_seeking"
    assert (rows[0]["phase"], rows[0]["start_step"], rows[0]["end_step"]) == (
        "unobserved",
        None,
        1000,
    )
    assert [row["place"] for row in rows] == [0, 1, 2]


def test_the_training_log_tells_when_the_warmup_ends(results: Path) -> None:
    synthetic.trajectory(results, (30.0, 20.0, 40.0), steps=(50, 200, 400))
    log = {**synthetic.keys("pretrain", "pico-64", None)}
    rates = [min(step / 100, 1.0) for step in range(1, 401)]
    synthetic.write(
        results,
        "training_log",
        [
            {**log, "row": row, "step": row + 1, "learning_rate": rate}
            for row, rate in enumerate(rates)
        ],
    )
    assert verdict(results) == "warmup, entropy_seeking"


def test_errors_that_are_not_paired_and_layers_without_any(results: Path) -> None:
    for step, value in zip(STEPS, COURSE, strict=True):
        synthetic.geometry(results, "separate", step, value, rankme_se=0.1)
        synthetic.geometry(results, "unknown", step, value)
    (basis,) = {row["basis"] for row in rows_of(results, model="separate")}
    assert basis == "separate"
    assert verdict(results, model="separate") == THREE
    rows = rows_of(results, model="unknown")
    assert verdict(results, model="unknown") == THREE
    assert {row["basis"] for row in rows} == {"unknown"}
    assert {row["confidence"] for row in rows} == {None}
    assert {row["change_se"] for row in rows} == {None}


def test_one_missing_influence_leaves_separate_errors(results: Path) -> None:
    synthetic.trajectory(results, COURSE[:-1], steps=STEPS[:-1])
    synthetic.geometry(results, "pico-64", STEPS[-1], COURSE[-1], rankme_se=0.1)
    assert {row["basis"] for row in rows_of(results)} == {"separate"}


def test_values_that_are_not_finite_and_steps_that_are_unknown_are_left_out(results: Path) -> None:
    synthetic.trajectory(results, COURSE, steps=STEPS)
    synthetic.geometry(results, "pico-64", 600, float("nan"))
    synthetic.geometry(results, "pico-64", None, 5.0)
    assert {row["n_checkpoints"] for row in rows_of(results)} == {6}
    assert verdict(results) == THREE


def test_overlaps_crystallize_and_norms_spread(results: Path) -> None:
    for step, overlap, spread in zip(STEPS, (0.8, 0.9, 1.4, 1.2, 1.1, 1.0), range(6), strict=True):
        synthetic.head(
            results, "pico-64", step, 0.1 + 0.1 * spread, overlap_mean_scaled=overlap
        )  # fmt: skip
    rows = rows_of(results, metric="overlap_mean_scaled")
    assert [row["phase"] for row in rows] == ["expansion", "crystallization"]
    assert rows[0]["end_tokens"] == 8 * 1024
    assert {row["basis"] for row in rows} == {"exact"}
    assert verdict(results, metric="norm_cv") == "spreading"
    assert verdict(results, metric="overlap_std_scaled") == "flat"


def test_nothing_measured_gives_an_empty_table(results: Path) -> None:
    assert load("phases", results).schema.names == SCHEMA.names
    assert load("phases", results).num_rows == 0
    assert load("phases", results, columns=["phase"]).schema.names == ["phase"]


def test_names_depend_on_the_metric_and_the_start() -> None:
    assert name_phases((-1, 1), "rankme", True) == ["warmup", "entropy_seeking"]
    assert name_phases((-1, 1), "rankme", False) == ["compression_seeking", "entropy_seeking"]
    assert name_phases((1, -1), "overlap_mean_scaled", True) == ["expansion", "crystallization"]
    assert name_phases((0,), "norm_cv", True) == ["flat"]


def test_the_covariance_is_that_of_the_influences() -> None:
    import pyarrow as pa

    drawn = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    column = pa.chunked_array([pa.array(drawn.tolist(), pa.list_(pa.float32()))])
    covariance = module._paired([column[place] for place in range(3)])
    assert covariance is not None
    np.testing.assert_allclose(covariance, drawn.astype(np.float64) @ drawn.T, rtol=1e-6)
    difference = drawn[0].astype(np.float64) - drawn[2]
    paired = covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2]
    assert paired == pytest.approx(np.sum(difference**2))
    assert module._paired([column[0], None]) is None
