"""The tables of the report."""

from pathlib import Path

import pytest

from dashboards.numbers import count, plain, with_error
from dashboards.tables import checkpoint_table, natural, read
from tests.dashboards import synthetic


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def test_identical_weights_are_flagged(results: Path) -> None:
    for step, weights in ((0, "a" * 64), (1, "a" * 64), (2, "b" * 64)):
        key = synthetic.keys("checkpoints", "pico-64", step)
        synthetic.write(results, "checkpoints", [{**key, "weights_sha256": weights}])
    same = {row["revision"]: row["same_weights"] for row in checkpoint_table(read(results))}
    assert same == {"step0": ["pico-64 step1"], "step1": ["pico-64 step0"], "step2": []}


def test_table_has_a_row_per_checkpoint_and_text(results: Path) -> None:
    for dataset in ("wiki", "tales"):
        cell = synthetic.cell_id(dataset)
        synthetic.geometry(results, "pico-64", 0, 20.0, dataset=dataset, cell_id=cell)
    synthetic.head(results, "pico-64", 0, 0.06)
    synthetic.head(results, "pico-64", 1, 0.07)
    rows = checkpoint_table(read(results))
    assert [(row["revision"], row["variant"]) for row in rows] == [
        ("step0", "tales"),
        ("step0", "wiki"),
        ("step1", ""),
    ]
    assert [row["head"]["norm_cv"] for row in rows] == [0.06, 0.06, 0.07]


def test_labels_name_suite_and_stage_only_where_there_are_several(results: Path) -> None:
    base = synthetic.head(results, "pico-64", 0, 0.06)
    assert [row["label"] for row in read(results).head] == ["pico-64"]
    for suite, stage in (("other", "pretrain"), ("pico", "sft")):
        cell = synthetic.cell_id(suite, stage)
        synthetic.write(
            results, "head", [{**base, "cell_id": cell, "suite": suite, "stage": stage}]
        )
    assert sorted(row["label"] for row in read(results).head) == [
        "other/pico-64 (pretrain)",
        "pico/pico-64 (pretrain)",
        "pico/pico-64 (sft)",
    ]


def test_a_checkpoint_without_a_step_comes_last(results: Path) -> None:
    for step in (None, 10, 2):
        synthetic.geometry(results, "pico-64", step, 20.0)
    rows = checkpoint_table(read(results))
    assert [row["revision"] for row in rows] == ["step2", "step10", "final"]


def test_loss_of_another_text_has_its_own_row(results: Path) -> None:
    synthetic.geometry(results, "pico-64", 0, 20.0)
    key = synthetic.keys("evals", "pico-64", 0)
    losses = [
        {**key, "row": place, "task": task, "metric": "loss", "value": value}
        for place, (task, value) in enumerate((("heldout", 3.0), ("tales", 4.0)))
    ]
    synthetic.write(results, "evals", [*losses, {**losses[0], "row": 2, "metric": "acc"}])
    shown = [
        (row["geometry"] is not None, row["loss"]["value"])
        for row in checkpoint_table(read(results))
    ]
    assert shown == [(True, 3.0), (False, 4.0)]


def test_natural_order() -> None:
    assert sorted(["pico-128", "pico-64", "a"], key=natural) == ["a", "pico-64", "pico-128"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (43.512, 0.667, "43.51 ± 0.67"),
        (1234.5, 30.0, "1,234 ± 30"),
        (0.5, None, "0.5000"),
        (0.5, 0.0, "0.5000"),
        (None, 0.1, "–"),
        (float("nan"), 0.1, "not finite"),
    ],
)
def test_with_error(value: float | None, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


def test_plain_and_count() -> None:
    assert [plain(value) for value in (43.0, 1234.0, 0.06017, None)] == [
        "43.00",
        "1234",
        "0.06017",
        "–",
    ]
    assert [count(value) for value in (None, 0, 999_999, 2_097_152, 300 * 10**9)] == [
        "–",
        "0",
        "999,999",
        "2.10 M",
        "300 B",
    ]
