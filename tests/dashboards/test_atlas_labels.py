"""Labels and weights: the same weights under two labels, and two weights under one."""

from pathlib import Path

import pytest

from dashboards.query import merge
from tests.dashboards import synthetic
from tests.dashboards.atlas_scenarios import A, B, checkpoint, joined, rows_of, told


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "alice")


@pytest.fixture
def bob(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "bob")


def test_a_label_that_stands_for_other_weights_is_a_conflict(alice: Path, bob: Path) -> None:
    checkpoint(alice, A)
    checkpoint(bob, B)
    for results in (alice, bob):
        checkpoint(results, "c" * 64, step=256)
        # Known by who made them, both are the same cell, though the weights are not the same.
        synthetic.head(results, "pico-64", 512, 0.3)
        synthetic.head(results, "pico-64", 256, 0.2)
    atlas = joined(alice, bob)
    (row,) = atlas.conflicts.to_pylist()
    assert (row["kind"], row["table"], row["column"]) == ("label", "checkpoints", "weights_sha256")
    assert (row["values"], row["sources"]) == ([A, B], ["alice", "bob"])
    assert (row["labels"], row["parameters"]) == (["pico/pico-64@step512"] * 2, "step=512")
    found = [(r["step"], r["source"], r["weights_fingerprint"], r["conflict"])
             for r in rows_of(atlas, "head")]  # fmt: skip
    assert found == [
        (256, "alice+bob", "c" * 64, None),
        (512, "alice", A, "label"),
        (512, "bob", B, "label"),
    ]


def test_a_step_means_the_same_weights_whatever_its_revision(alice: Path, bob: Path) -> None:
    checkpoint(alice, A)
    checkpoint(bob, B, revision="main-512", cell_id=synthetic.cell_id("other"))
    atlas = joined(alice, bob)
    (row,) = atlas.conflicts.to_pylist()
    assert row["labels"] == ["pico/pico-64@step512", "pico/pico-64@main-512"]
    assert [r["conflict"] for r in rows_of(atlas, "checkpoints")] == ["label", "label"]
    # Where a source itself has two revisions of a step, the step names none of them.
    checkpoint(alice, "c" * 64, revision="again", cell_id=synthetic.cell_id("again"))
    assert told(joined(alice, bob)) == []


def test_the_same_weights_under_other_labels_are_joined(alice: Path, bob: Path) -> None:
    checkpoint(alice, A)
    checkpoint(bob, A, suite="mine", model="small", revision="checkpoint-512",
               cell_id=synthetic.cell_id("local"))  # fmt: skip
    row = synthetic.head(alice, "pico-64", 512, 0.3)
    mine = {**row, "suite": "mine", "model": "small", "revision": "checkpoint-512"}
    synthetic.write(bob, "head", [{**mine, "cell_id": synthetic.cell_id("head", "local")}])
    atlas = joined(alice, bob)
    assert told(atlas) == []
    found = {r["source"]: (r["weights_fingerprint"], r["also_known_as"], r["conflict"])
             for r in rows_of(atlas, "head")}  # fmt: skip
    assert found == {
        "alice": (A, ["mine/small@checkpoint-512"], None),
        "bob": (A, ["pico/pico-64@step512"], None),
    }
    # What they measured differs: cells have other ids, weights and parameters are the same.
    synthetic.write(bob, "head", [{**mine, "cell_id": synthetic.cell_id("head", "local"),
                                   "norm_cv": 0.5}])  # fmt: skip
    (conflict,) = joined(alice, bob).conflicts.to_pylist()
    # Rows are in the order of sources, and the first one of the weights is compared with.
    assert (conflict["values"], conflict["sources"]) == (["0.3", "0.5"], ["alice", "bob"])
    assert conflict["labels"] == ["pico/pico-64@step512", "mine/small@checkpoint-512"]
    assert {r["conflict"] for r in rows_of(joined(alice, bob), "head")} == {"values"}


def test_the_same_cell_under_other_labels_becomes_one(alice: Path, bob: Path) -> None:
    checkpoint(alice, A)
    row = {**synthetic.keys("checkpoints", "pico-64", 512), "weights_sha256": A, "d": 64}
    synthetic.write(bob, "checkpoints", [{**row, "suite": "mine"}])
    (found,) = rows_of(joined(alice, bob), "checkpoints")
    assert (found["source"], found["suite"]) == ("alice+bob", "pico")
    assert found["also_known_as"] == ["mine/pico-64@step512"]


def test_weights_that_a_source_has_twice_under_a_label_are_nobodys(alice: Path) -> None:
    checkpoint(alice, A)
    checkpoint(alice, B, cell_id=synthetic.cell_id("replaced"))
    synthetic.head(alice, "pico-64", 512, 0.3)
    atlas = merge(alice)
    (head,) = rows_of(atlas, "head")
    assert (head["weights_fingerprint"], head["conflict"]) == (None, "label")
    assert [kind for kind, *_ in told(atlas)] == ["label"]
