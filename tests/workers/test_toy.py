"""Sweeps of the tractable model: their rows, and the setting that is named when one diverges."""

from typing import Any

import numpy as np
import pytest

from jobs.errors import DivergedError
from jobs.records import rows_table
from jobs.toy_spec import ToySweep
from jobs.toy_work import ToyWork
from workers.kernels.toy import Run, descend, log_schedule
from workers.toy import skew, toy_rows

SWEEP: dict[str, Any] = {
    "name": "small",
    "description": "two shapes",
    "counts": [[4, 2, 1], [3, 3]],
    "widths": [2],
    "scales": [0.3, 0.5],
    "learning_rates": [0.02],
    "seeds": 3,
    "first_seed": 7,
    "last_step": 50,
    "points": 8,
    "keep": 1,
}


def rows_of(**change: Any) -> list[dict[str, Any]]:
    told: list[tuple[int, int]] = []
    work = ToyWork(ToySweep(**{**SWEEP, **change}))
    rows = toy_rows(work, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(rows), len(rows))
    return rows


def test_rows_come_setting_by_setting_and_fit_the_table() -> None:
    rows = rows_of()
    rows_table("toy", rows)
    found = [(row["counts"], row["scale"], row["seed"]) for row in rows]
    settings = [([4, 2, 1], 0.3), ([4, 2, 1], 0.5), ([3, 3], 0.3), ([3, 3], 0.5)]
    assert found == [(*setting, seed) for setting in settings for seed in (7, 8, 9)]


def test_a_row_is_what_its_run_did() -> None:
    row = rows_of()[3]
    steps = log_schedule(50, 8)
    alone = descend([Run((4, 2, 1), 2, 0.5, 0.02, 7)], steps, keep=(0,))
    assert row["steps"] == list(steps)
    for name in ("rankme", "sigma_features", "sigma_weights", "probabilities", "loss"):
        np.testing.assert_allclose(row[name], getattr(alone, name).flatten(), rtol=1e-10)
    np.testing.assert_allclose(row["features"], alone.features.flatten(), rtol=1e-10)
    np.testing.assert_allclose(row["weights"], alone.weights.flatten(), rtol=1e-10)


def test_only_kept_seeds_have_their_features() -> None:
    assert [row["seed"] for row in rows_of() if "features" in row] == [7, 7, 7, 7]


def test_a_setting_that_diverges_is_named() -> None:
    with pytest.raises(DivergedError, match="squared error, counts 4-2-1, d 2, scale"):
        rows_of(learning_rates=[9.0], loss="squared_error", scales=[0.5], last_step=400)


def test_skew_is_the_slope_of_the_counts() -> None:
    assert skew((12, 6, 4, 3)) == pytest.approx(1.0)
    assert skew((2, 2, 2)) == 0
    assert skew((5,)) == 0
