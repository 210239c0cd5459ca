"""The audit in the report: refusals, gaps, and loads that don't fit between their neighbours."""

from pathlib import Path

import numpy as np
import pytest

from dashboards import report
from dashboards.audit import audit_table, suspicious_loads
from dashboards.tables import read
from tests.dashboards import synthetic

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000, 4000)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def _loaded(results: Path, step: int, weights: float | None = None, **columns: object) -> None:
    """Writes a checkpoint whose 40 tensors grow with the logarithm of the step that they are of."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(0.1, 0.1, 40)
    noise = np.random.default_rng(step).normal(0, 0.002, 40)
    moved = np.log1p(step if weights is None else weights)
    profile = -3 + slopes * moved + noise
    row = {
        **synthetic.keys("checkpoints", "m", step),
        "weights_sha256": synthetic.cell_id(step),
        "refused": False,
        "weight_profile": profile.tolist(),
        **columns,
    }
    synthetic.write(results, "checkpoints", [row])


def _suspicious(results: Path) -> list[int]:
    return [row["step"] for row in suspicious_loads(results)]


def test_a_training_that_moves_on_is_not_suspicious(results: Path) -> None:
    for step in STEPS:
        _loaded(results, step)
    assert _suspicious(results) == []


@pytest.mark.parametrize("wrong", [1, 8, 64])
def test_the_final_weights_under_another_step_are_seen(results: Path, wrong: int) -> None:
    for step in STEPS:
        _loaded(results, step, weights=STEPS[-1] if step == wrong else None)
    assert _suspicious(results) == [wrong]


def test_equal_weights_under_two_steps_are_seen(results: Path) -> None:
    for step in STEPS:
        weights = "a" * 64 if step in (2000, 3000) else synthetic.cell_id(step)
        _loaded(results, step, weights_sha256=weights)
    assert _suspicious(results) == [2000, 3000]


def test_biases_that_are_still_zero_raise_no_alarm(results: Path) -> None:
    profiles = {0: [-np.inf, -4.0], 1: [-9.0, -4.0], 2: [-8.0, -4.0], 4: [-7.0, -4.1]}
    for step, profile in profiles.items():
        _loaded(results, step, weight_profile=profile)
    assert _suspicious(results) == []


def test_what_cannot_be_compared_is_left_alone(results: Path) -> None:
    for step, profile in ((0, [-4.0, -3.0]), (1, None), (2, [-9.0]), (4, [-4.0, -3.0])):
        _loaded(results, step, weight_profile=profile)
    assert _suspicious(results) == []


def _refused(results: Path, step: int) -> None:
    key = synthetic.keys("checkpoints", "m", step) | {"cell_id": synthetic.cell_id("no", step)}
    finding = "it serves the weights of <step> 4000"
    synthetic.write(results, "checkpoints", [{**key, "refused": True, "finding": finding}])


def _gap(results: Path, step: int) -> None:
    key = synthetic.keys("audit", "m", step) | {"revision": None}
    row = {**key, "verdict": "gap", "finding": "there is no such step", "refused": False}
    synthetic.write(results, "audit", [row])


def test_a_page_without_findings_says_so(results: Path) -> None:
    _loaded(results, 1)
    page = Path(report.render(results, "a study")).read_text(encoding="utf-8")
    assert "No checkpoint was refused, none is missing" in page
    assert "was refused</strong>" not in page


def test_refusals_and_gaps_are_listed_until_they_are_mended(results: Path) -> None:
    _loaded(results, 1)
    _refused(results, 2)
    _gap(results, 4)
    found = audit_table(read(results))
    assert [(row["status"], row["step"], row["label"]) for row in found] == [
        ("refused", 2, "m"),
        ("missing", 4, "m"),
    ]
    page = Path(report.render(results, "a study")).read_text(encoding="utf-8")
    assert "1 checkpoint was refused" in page
    assert "it serves the weights of &lt;step&gt; 4000" in page
    assert 'aria-labelledby="audit" tabindex="0"' in page
    _loaded(results, 2)
    _loaded(results, 4)
    assert audit_table(read(results)) == []
