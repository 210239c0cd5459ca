"""Joining results: what becomes one, what is a conflict, and that nothing is picked."""

import math
from pathlib import Path

import pytest

from dashboards.atlas_tables import CONFLICTS, JOINED, NAMES, PARAMETERS
from dashboards.query import load, merge
from jobs.errors import StoreError, UsageError
from jobs.records import SIDE_TABLES, TABLES
from tests.dashboards import synthetic
from tests.dashboards.atlas_scenarios import A, checkpoint, joined, rows_of, told
from tests.dashboards.finetune_scenarios import finetune


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "alice")


@pytest.fixture
def bob(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "bob")


def test_equal_cells_become_one_and_others_are_put_together(alice: Path, bob: Path) -> None:
    for results in (alice, bob):
        checkpoint(results, A)
        synthetic.head(results, "pico-64", 512, 0.3)
    synthetic.head(alice, "pico-64", 256, 0.2)
    synthetic.head(bob, "pico-64", 1024, 0.4)
    atlas = joined(alice, bob)
    assert atlas.sources == ("alice", "bob")
    found = [(r["step"], r["source"], r["weights_fingerprint"]) for r in rows_of(atlas, "head")]
    assert found == [(256, "alice", None), (512, "alice+bob", A), (1024, "bob", None)]
    assert rows_of(atlas, "checkpoints")[0]["source"] == "alice+bob"
    assert atlas.conflicts.num_rows == 0
    assert atlas.conflicts.schema.equals(CONFLICTS)


def test_one_place_alone_keeps_its_rows_and_names_no_folder(tmp_path: Path) -> None:
    results = synthetic.pico_like(tmp_path / "carol", steps=(0, 2, 64))
    atlas = merge(results)
    for table in TABLES:
        whole = atlas.tables[table]
        own = whole.select(range(len(JOINED), whole.num_columns))
        assert own.equals(load(table, results)), table
        assert whole.column_names[: len(JOINED)] == JOINED.names
        assert set(whole["source"].to_pylist()) <= {"1"}
        assert whole.schema.metadata == TABLES[table].metadata
    assert atlas.tables["geometry"].num_rows > 0
    assert {record["source"] for record in atlas.provenance} == {"1"}


def test_tables_of_results_with_themselves_do_not_grow(tmp_path: Path) -> None:
    results = synthetic.pico_like(tmp_path / "carol", steps=(0, 2, 64))
    atlas = merge(results, results, results)
    for table, whole in atlas.tables.items():
        assert whole.num_rows == load(table, results).num_rows
        assert set(whole["source"].to_pylist()) <= {"1+2+3"}
    assert atlas.conflicts.num_rows == 0


def test_other_values_of_a_cell_are_kept_marked_and_listed(alice: Path, bob: Path) -> None:
    for results, cv in ((alice, 0.30), (bob, 0.31)):
        checkpoint(results, A)
        synthetic.head(results, "pico-64", 512, cv, norm_mean=1.0)
        synthetic.head(results, "pico-64", 256, 0.2)
    atlas = joined(alice, bob)
    found = [(r["step"], r["source"], r["norm_cv"], r["conflict"]) for r in rows_of(atlas, "head")]
    assert found == [
        (256, "alice+bob", 0.2, None),
        (512, "alice", 0.30, "values"),
        (512, "bob", 0.31, "values"),
    ]
    (row,) = atlas.conflicts.to_pylist()
    assert (row["kind"], row["table"], row["column"]) == ("values", "head", "norm_cv")
    assert (row["values"], row["sources"]) == (["0.3", "0.31"], ["alice", "bob"])
    assert (row["fingerprint"], row["rows"]) == (A, 1)
    assert row["labels"] == ["pico/pico-64@step512"] * 2


def test_the_tolerance_says_what_is_equal(alice: Path, bob: Path) -> None:
    for results, cv, pearson in ((alice, 0.3, 1e-8), (bob, 0.3001, -1e-8)):
        checkpoint(results, A)
        # Relative to itself, the second is twice as large as anything.
        synthetic.head(results, "pico-64", 512, cv, pearson_norm_token_id=pearson)
    assert told(joined(alice, bob)) == []
    assert [row["norm_cv"] for row in rows_of(joined(alice, bob), "head")] == [0.3]
    strict = told(joined(alice, bob, relative_tolerance=1e-4))
    assert strict == [("values", "head", "norm_cv", ["0.3", "0.3001"])]
    exact = told(joined(alice, bob, relative_tolerance=0, absolute_tolerance=0))
    assert [column for _, _, column, _ in exact] == ["norm_cv", "pearson_norm_token_id"]


def test_a_value_that_one_lacks_is_no_conflict_and_no_row_is_lost(alice: Path, bob: Path) -> None:
    for results, overlap in ((alice, None), (bob, 0.05)):
        checkpoint(results, A)
        synthetic.head(results, "pico-64", 512, 0.3, overlap_std=overlap)
    atlas = joined(alice, bob)
    assert told(atlas) == []
    assert [(r["source"], r["overlap_std"]) for r in rows_of(atlas, "head")] == [
        ("alice", None),
        ("bob", 0.05),
    ]


def test_nan_equals_nan_and_nothing_else(alice: Path, bob: Path) -> None:
    for results in (alice, bob):
        synthetic.head(results, "pico-64", 512, math.nan)
    assert rows_of(joined(alice, bob), "head")[0]["source"] == "alice+bob"
    synthetic.head(bob, "pico-64", 512, 0.3)
    assert told(joined(alice, bob)) == [("values", "head", "norm_cv", ["NaN", "0.3"])]


def test_lists_are_compared_where_they_differ_most(alice: Path, bob: Path) -> None:
    for results, last in ((alice, 0.1), (bob, 0.2)):
        synthetic.geometry(results, "pico-64", 512, 20.0, spectrum=[1.0, 0.5, last])
    atlas = joined(alice, bob)
    assert told(atlas) == [("values", "geometry", "spectrum[2]", ["0.1", "0.2"])]
    parameters = atlas.conflicts["parameters"][0].as_py()
    assert "dataset=heldout" in parameters
    assert "layer=-1" in parameters
    synthetic.geometry(bob, "pico-64", 512, 20.0, spectrum=[1.0, 0.5])
    lengths = ["a list of 3", "a list of 2"]
    assert told(joined(alice, bob)) == [("values", "geometry", "spectrum", lengths)]


def test_a_cell_is_one_only_as_a_whole(alice: Path, bob: Path) -> None:
    for results, values in ((alice, (1.0, 2.0, 3.0)), (bob, (1.0, 2.5, 4.5))):
        key = synthetic.keys("geometry", "pico-64", 512)
        rows = [{**key, "row": n, "layer": n, "rankme": value} for n, value in enumerate(values)]
        synthetic.write(results, "geometry", rows)
    atlas = joined(alice, bob)
    assert [r["conflict"] for r in rows_of(atlas, "geometry")] == ["values"] * 6
    (row,) = atlas.conflicts.to_pylist()
    assert (row["rows"], row["values"], row["parameters"]) == (2, ["3.0", "4.5"], "layer=2")


def test_other_numbers_of_rows_are_a_conflict(alice: Path, bob: Path) -> None:
    for results, count in ((alice, 3), (bob, 2)):
        key = synthetic.keys("evals", "pico-64", 512)
        rows = [{**key, "row": n, "metric": f"m{n}", "value": 0.5} for n in range(count)]
        synthetic.write(results, "evals", rows)
    for pair, counts in (
        ((alice, bob), ["3 rows", "2 rows"]),
        ((bob, alice), ["2 rows", "3 rows"]),
    ):
        atlas = joined(*pair)
        assert told(atlas) == [("values", "evals", "row", counts)]
        assert [r["conflict"] for r in rows_of(atlas, "evals")] == ["values"] * 5


def test_the_third_is_compared_with_the_first_too(alice: Path, bob: Path, tmp_path: Path) -> None:
    carol = synthetic.start(tmp_path / "carol")
    for results, cv in ((alice, 0.3), (bob, 0.4), (carol, 0.3)):
        synthetic.head(results, "pico-64", 512, cv)
    atlas = joined(alice, bob, carol)
    assert [(r["source"], r["norm_cv"]) for r in rows_of(atlas, "head")] == [
        ("alice+carol", 0.3),
        ("bob", 0.4),
    ]
    assert [row["sources"] for row in atlas.conflicts.to_pylist()] == [["alice", "bob"]]


def test_other_parameters_are_no_conflict(alice: Path, bob: Path) -> None:
    for results, layer, cell in ((alice, -1, "x"), (bob, 3, "y")):
        checkpoint(results, A)
        synthetic.geometry(results, "pico-64", 512, 20.0 + layer, layer=layer,
                           cell_id=synthetic.cell_id(cell))  # fmt: skip
    assert told(joined(alice, bob)) == []
    synthetic.geometry(bob, "pico-64", 512, 30.0, cell_id=synthetic.cell_id("z"))
    assert told(joined(alice, bob)) == [("values", "geometry", "rankme", ["19.0", "30.0"])]


def test_trials_are_known_by_their_recipe(alice: Path, bob: Path) -> None:
    for results in (alice, bob):
        checkpoint(results, A)
    finetune(alice, 512, 0, 0.3)
    finetune(bob, 512, 0, 0.4, cell_id=synthetic.cell_id("other"))
    finetune(bob, 512, 1, 0.5)
    columns = [column for _, _, column, _ in told(joined(alice, bob))]
    assert columns == ["loss_post", "finetunability", "net_gain"]


def test_failures_of_cells_that_anybody_did_are_gone(alice: Path, bob: Path) -> None:
    row = synthetic.head(alice, "pico-64", 512, 0.3)
    failure = {name: row[name] for name in TABLES["failures"].names if name in row}
    other = {**failure, "cell_id": synthetic.cell_id("other"), "cause": "memory"}
    synthetic.write(bob, "failures", [failure])
    for results, attempts in ((alice, 1), (bob, 3)):
        synthetic.write(results, "failures", [{**other, "attempts": attempts}])
    atlas = joined(alice, bob)
    found = [(r["source"], r["attempts"], r["conflict"]) for r in rows_of(atlas, "failures")]
    assert found == [("alice", 1, None), ("bob", 3, None)]


def test_names_and_places_that_cannot_be(alice: Path, bob: Path) -> None:
    checkpoint(alice, A)
    for names in (["alice"], ["alice", "alice"], ["alice", "bob+carol"], ["alice", ""]):
        with pytest.raises(UsageError):
            merge(alice, bob, names=names)
    with pytest.raises(UsageError, match="no results to merge"):
        merge()
    with pytest.raises(StoreError, match="there is no results folder"):
        merge(alice, alice.parent / "nowhere")


def test_joined_columns_are_in_no_table_and_parameters_in_theirs() -> None:
    for table, schema in TABLES.items():
        assert not set(JOINED.names) & set(schema.names), table
    for table, columns in PARAMETERS.items():
        assert set(columns) <= set(TABLES[table].names)
        assert table not in SIDE_TABLES
    assert {n for schema in TABLES.values() for n in schema.names} >= NAMES
    assert all(field.metadata[b"definition"] for field in (*JOINED, *CONFLICTS))


def test_every_text_that_is_compared_says_what_was_measured() -> None:
    # A new column with a name that people choose belongs to NAMES, or every merge is a conflict.
    chosen = {
        (table, field.name)
        for table, schema in TABLES.items()
        for field in schema
        if field.metadata[b"definition"].decode().startswith("the study's name")
    }
    assert chosen
    assert {column for _, column in chosen} <= NAMES
