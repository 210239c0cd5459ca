"""The summary: a turn is claimed only beyond its paired uncertainty."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.summary import Difference, difference, summary
from dashboards.tables import read
from tests.dashboards import synthetic

FALL = (43.0, 42.0, 30.0, 10.0, 25.0, 44.0)
STEPS = (0, 1, 8, 32, 128, 512)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def told(results: Path, name: str = "pico-64") -> str:
    return " ".join(dict(summary(read(results)))[name])


def test_summary_tells_a_fall_and_a_rise(results: Path) -> None:
    synthetic.trajectory(results, FALL, steps=STEPS)
    words = told(results)
    assert "43.00 ± 0.10 at step 0" in words
    assert "lowest value is 10.00 ± 0.10 at step 32" in words
    assert "ends at 44.00 ± 0.10 at step 512" in words
    assert "(−33.00 ± 0.14, paired) exceeds its uncertainty, and so does the rise after it" in words


def test_summary_denies_a_fall_within_its_uncertainty(results: Path) -> None:
    synthetic.trajectory(results, (43.0, 42.9, 43.2), steps=(0, 1, 8))
    assert "does not exceed its uncertainty: no early fall is shown" in told(results)


def test_summary_denies_a_fall_of_a_rising_series(results: Path) -> None:
    synthetic.trajectory(results, (10.0, 20.0, 40.0), steps=(0, 1, 8))
    words = told(results)
    assert "never falls below its first value: there is no early fall" in words
    assert "(+30.00 ± 0.14, paired) exceeds its uncertainty" in words


def test_summary_of_a_falling_series_claims_no_recovery(results: Path) -> None:
    synthetic.trajectory(results, (40.0, 20.0, 10.0), steps=(0, 1, 8))
    assert "lasts to the end: there is no recovery" in told(results)


def test_summary_of_a_fall_without_a_shown_recovery(results: Path) -> None:
    synthetic.trajectory(results, (40.0, 10.0, 10.1), steps=(0, 1, 8))
    assert "does not, so no recovery is shown" in told(results)


def test_lowest_of_many_is_judged_more_strictly(results: Path) -> None:
    # 2.5 standard errors are enough for one comparison, not for the lowest of 20.
    fall = 2.5 * math.hypot(0.1, 0.1)
    level = [43.0] * 20
    synthetic.trajectory(results, [43.0, 43.0 - fall], model="two", steps=(0, 1))
    level[7] -= fall
    synthetic.trajectory(results, level, model="twenty")
    assert "exceeds its uncertainty and lasts to the end" in told(results, "two")
    assert "does not exceed its uncertainty" in told(results, "twenty")


def test_paired_errors_show_a_fall_that_separate_ones_hide(results: Path) -> None:
    synthetic.trajectory(results, (43.0, 41.0, 43.0), steps=(0, 1, 8), shared=4.0, own=0.05)
    assert re.search(r"\(−2\.00\d* ± 0\.0\d+, paired\)", told(results))
    assert "exceeds its uncertainty, and so does the rise" in told(results)
    shutil.rmtree(results / "influences")
    assert "does not exceed its uncertainty" in told(results)
    assert re.search(r"\(−2\.0 ± 5\.\d, separate errors\)", told(results))


def row(cell: str, rankme: float, se: float | None, fingerprint: str = "f") -> dict[str, Any]:
    return {
        "cell_id": cell,
        "dataset": "heldout",
        "layer": -1,
        "rankme": rankme,
        "rankme_se": se,
        "sequences_fingerprint": fingerprint,
    }


def test_difference_by_hand() -> None:
    u, v = np.array([3.0, 4.0, 1.0]), np.array([3.0, 2.0, 0.0])
    influences = {("a", "heldout", -1): u, ("b", "heldout", -1): v}
    a, b = row("a", 10.0, float(np.linalg.norm(u))), row("b", 7.0, float(np.linalg.norm(v)))
    assert difference(a, b, influences) == Difference(-3.0, math.sqrt(5.0), paired=True)
    separate = math.hypot(a["rankme_se"], b["rankme_se"])
    other = {**b, "sequences_fingerprint": "another draw"}
    assert difference(a, other, influences) == Difference(-3.0, separate, paired=False)
    assert difference(a, b, {}) == Difference(-3.0, separate, paired=False)
    assert difference(a, row("c", 7.0, None), {}) == Difference(-3.0, None, paired=False)


def test_summary_without_errors_leaves_the_fall_open(results: Path) -> None:
    for step, value in ((0, 40.0), (1, 10.0), (8, 30.0)):
        synthetic.geometry(results, "pico-64", step, value)
    assert "has no known standard error: whether it is more than noise is open" in told(results)


def test_summary_warns_of_few_sequences_and_a_late_start(results: Path) -> None:
    for step, value in ((1000, 40.0), (2000, 50.0)):
        synthetic.geometry(results, "pico-64", step, value, se_reliable=False)
    assert "M is below 10 d" in told(results)
    assert "starts at step 1,000: what came before is unseen" in told(results)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.06, 0.32), "grows from 0.06 at step 0 to 0.32 at step 1 (× 5.33)"),
        ((0.32, 0.06), "does not grow, it falls from 0.32"),
        ((0.32, 0.3205), "does not grow: from 0.32 at step 0 to 0.321 at step 1"),
        ((0.32,), "Norm CV of the LM head is 0.32 at step 0."),
    ],
)
def test_summary_of_the_norms(results: Path, values: tuple[float, ...], words: str) -> None:
    for step, value in enumerate(values):
        synthetic.head(results, "pico-64", step, value)
    assert words in told(results)
