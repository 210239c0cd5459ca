"""Reading tables: unfinished files, duplicates, versions, order."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboards import query
from jobs.errors import StoreError, UsageError
from jobs.records import MARKER, SCHEMA_VERSION, TABLES
from tests.dashboards import synthetic


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


@pytest.mark.parametrize("table", sorted(TABLES))
def test_missing_table_is_empty_with_its_schema(results: Path, table: str) -> None:
    loaded = query.load(table, results)
    assert loaded.num_rows == 0
    assert loaded.schema.equals(TABLES[table], check_metadata=True)


def test_rows_keep_schema_metadata(results: Path) -> None:
    synthetic.head(results, "pico-64", 0, 0.06)
    loaded = query.load("head", str(results))
    assert loaded.schema.equals(TABLES["head"], check_metadata=True)
    assert loaded.column("norm_cv").to_pylist() == [0.06]


def test_rows_are_deduplicated_by_cell_and_row(results: Path) -> None:
    row = {**synthetic.keys("head", "pico-64", 0), "norm_cv": 0.06}
    other = {**synthetic.keys("head", "pico-64", 1), "norm_cv": 0.07}
    synthetic.write(results, "head", [row, other], name="compact-7.parquet")
    synthetic.write(results, "head", [row, {**row, "row": 1}], name="compact-8.parquet")
    loaded = query.load("head", results, columns=["cell_id", "row"]).to_pylist()
    pairs = [(row["cell_id"], 0), (row["cell_id"], 1), (other["cell_id"], 0)]
    assert [(r["cell_id"], r["row"]) for r in loaded] == pairs


def test_a_cells_own_file_outranks_merged_rows(results: Path) -> None:
    row = synthetic.head(results, "pico-64", 0, 0.06)
    old = {**row, "norm_cv": 0.5}
    synthetic.write(results, "head", [old, {**old, "row": 1}], name="compact-7.parquet")
    assert query.load("head", results, columns=["row", "norm_cv"]).to_pylist() == [
        {"row": 0, "norm_cv": 0.06}
    ]


@pytest.mark.parametrize(
    "name", [".half.parquet", "_half.parquet", "half.parquet.tmp", "half.tmp", ".parquet"]
)
def test_unfinished_files_are_not_read(results: Path, name: str) -> None:
    row = synthetic.head(results, "pico-64", 0, 0.06)
    (results / "head" / name).write_bytes(b"PAR1 half a file")
    assert query.load("head", results).column("cell_id").to_pylist() == [row["cell_id"]]


def test_side_rows_count_only_with_their_primary(results: Path) -> None:
    synthetic.trajectory(results, [43.0, 10.0], steps=(0, 1))
    lonely = synthetic.cell_id("geometry", "pico", "pico-64", 1)
    (results / "geometry" / f"{lonely}.parquet").unlink()
    loaded = query.load("influences", results)
    assert loaded.column("step").to_pylist() == [0]
    assert len(loaded.column("influence_rankme")[0]) == synthetic.SEQUENCES


def test_order_does_not_depend_on_file_names(results: Path) -> None:
    rows = [
        {**synthetic.keys("head", model, step), "cell_id": cell}
        for cell, model, step in [("c", "b", 4), ("a", "b", None), ("d", "a", 100), ("b", "b", 0)]
    ]
    for place, row in enumerate(rows):
        synthetic.write(results, "head", [row], name=f"{place}.parquet")
    loaded = query.load("head", results)
    assert loaded.column("cell_id").to_pylist() == ["d", "b", "c", "a"]


def test_only_the_wanted_columns_are_read(results: Path) -> None:
    synthetic.trajectory(results, [43.0, 10.0], steps=(2, 1))
    loaded = query.load("geometry", results, columns=["rankme", "layer"])
    assert loaded.column_names == ["layer", "rankme"]
    assert loaded.column("rankme").to_pylist() == [10.0, 43.0]


def test_columns_that_older_files_lack_are_null(results: Path) -> None:
    path = synthetic.write(results, "head", [synthetic.keys("head", "pico-64", 0)])
    old = pq.read_table(path).drop_columns(["norm_cv"])
    pq.write_table(old, path)
    assert query.load("head", results).column("norm_cv").to_pylist() == [None]


def test_unknown_table_names_the_nearest(results: Path) -> None:
    with pytest.raises(UsageError) as caught:
        query.load("geometri", results)
    assert not isinstance(caught.value, StoreError)
    assert "'geometri'" in caught.value.message
    assert "did you mean geometry?" in caught.value.remedy


def test_missing_folder_and_missing_marker(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no results folder"):
        query.load("head", tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"has no eigentrace\.json"):
        query.load("head", tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "x"}', "{"])
def test_unreadable_marker(results: Path, text: str) -> None:
    (results / MARKER).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=r"eigentrace\.json is malformed"):
        query.load("head", results)


def test_newer_marker_and_newer_file_are_refused(results: Path) -> None:
    path = synthetic.write(results, "head", [synthetic.keys("head", "pico-64", 0)])
    table = pq.read_table(path)
    newer = {b"eigentrace_schema_version": str(SCHEMA_VERSION + 1).encode()}
    pq.write_table(table.replace_schema_metadata(newer), path)
    with pytest.raises(StoreError, match="newer version") as caught:
        query.load("head", results)
    assert str(path) in caught.value.message
    assert "update Eigentrace" in caught.value.remedy
    marker = results / MARKER
    marker.write_text(json.dumps({"format": SCHEMA_VERSION + 1}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"eigentrace\.json was written by a newer version"):
        query.load("geometry", results)


def test_damaged_file_is_named(results: Path) -> None:
    path = synthetic.write(results, "head", [synthetic.keys("head", "pico-64", 0)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"cannot read {path}") as caught:
        query.load("head", results)
    assert "delete it" in caught.value.remedy


def test_column_of_another_type_is_damage(results: Path) -> None:
    path = synthetic.write(results, "head", [synthetic.keys("head", "pico-64", 0)])
    place = TABLES["head"].names.index("norm_cv")
    table = pq.read_table(path).set_column(place, "norm_cv", pa.array(["much"]))
    pq.write_table(table, path)
    with pytest.raises(StoreError, match="cannot read"):
        query.load("head", results)


def test_provenance_of_cells_and_of_compacted_files(results: Path) -> None:
    row = synthetic.keys("head", "pico-64", 0)
    synthetic.write(results, "head", [row], provenance={"device": "cpu"})
    # A merged file says each record once; what it says of a cell with a file of its own is old.
    merged = {
        "records": [{"device": "cpu", "threads": 1}, {}],
        "cells": {"y": [0], row["cell_id"]: [0, 9.5], "z": [0, 1.5], "zz": [1]},
    }
    synthetic.write(results, "head", [row], name="compact-1.parquet", provenance=merged)
    shared = {"device": "cpu", "threads": 1}
    assert query.provenance(results) == [
        {"device": "cpu"},
        shared,
        {**shared, "seconds": 1.5},
        {},
    ]


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"records": []}', '{"records": [], "cells": {"a": [0]}}']
)
def test_malformed_provenance_is_named(results: Path, text: str) -> None:
    row = synthetic.keys("head", "pico-64", 0)
    path = synthetic.write(results, "head", [row], name="compact-1.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"eigentrace_provenance": text}), path)
    with pytest.raises(StoreError, match=f"cannot read {path}"):
        query.provenance(results)


def test_import_is_light() -> None:
    code = (
        "import sys, dashboards.query; "
        "print([m for m in ('altair', 'pandas', 'jinja2', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_read_once_is_the_same_and_stays_so(results: Path) -> None:
    synthetic.geometry(results, "pico-64", 0, 20.0)
    light = ["rankme", "step"]
    before = query.load("geometry", results, columns=light)
    with query.read_once():
        first = query.load("geometry", results, columns=light)
        assert first.equals(before, check_metadata=True)
        synthetic.geometry(results, "pico-64", 1, 30.0)
        assert query.load("geometry", str(results), columns=light).equals(before)
        assert query.load("geometry", results, columns=["d"]).num_rows == 1
        assert query.load("geometry", results, columns=[*light, "spectrum"]).num_rows == 2
        phases = query.load("phases", results)
        assert query.load("phases", results, columns=["model"]).equals(phases.select(["model"]))
    assert query.load("geometry", results, columns=light).num_rows == 2
