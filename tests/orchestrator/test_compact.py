"""Compaction: fewer files, the same rows and provenance, whatever happens on the way."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.provenance import provenance_table
from dashboards.query import load, provenance
from jobs import layout
from jobs.cells import Cell
from jobs.errors import StoreError
from jobs.events import Failed, Finished
from jobs.folders import listed_files
from jobs.place import Place
from jobs.records import TABLES, rows_table
from jobs.work import GeometryWork
from orchestrator import compact as compact_module
from orchestrator.compact import Compacted, compact
from orchestrator.store import Store
from tests.orchestrator.fake_cells import measuring

Tables = dict[str, pa.Table]


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def loss(store: Store, number: int, value: float = 0.5, rows: int = 1) -> Cell:
    cell = measuring(number, number % 3)
    row = {"task": "words", "metric": "loss", "value": value, "n": number}
    made = {"device": "cpu", "threads": 1 + number % 2, "seconds": 1.25 * number}
    store.commit(cell, Finished(cell.id, (("evals", rows_table("evals", [row] * rows)),), made))
    return cell


def geometry(store: Store, number: int) -> Cell:
    cell = Cell(
        GeometryWork("words", f"{number:064}", "last", "float32"),
        checkpoint=measuring(0, number).checkpoint,
    )
    influence = {"layer": -1, "influence_rankme": [0.5, float(number)]}
    tables = {
        "influences": rows_table("influences", [influence]),
        "geometry": rows_table("geometry", [{"layer": -1, "rankme": 3.0}, {"layer": 0}]),
    }
    store.commit(cell, Finished(cell.id, tuple(tables.items()), {"device": "cpu", "seconds": 0.5}))
    return cell


def filled(place: str | Path, losses: int = 7, geometries: int = 4) -> Store:
    store = Store(place)
    for number in range(losses):
        loss(store, number)
    for number in range(geometries):
        geometry(store, number)
    failed = measuring(99, 9)
    store.fail(failed, Failed(failed.id, "user", "what"), 1)
    return store


def tables(place: str | Path | Place) -> Tables:
    return {table: load(table, place) for table in TABLES}


@pytest.fixture(params=["folder", "URL"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return filled(tmp_path / "results")
    return filled(f"s3://{request.getfixturevalue('bucket')}/results")


def test_rows_and_provenance_stay_as_they_are(store: Store) -> None:
    rows, records, shown = (
        tables(store.place),
        provenance(store.place),
        provenance_table(store.place),
    )
    ledger = store.ledger()
    steps: list[tuple[int, int]] = []
    assert compact(store, lambda *step: steps.append(step)) == Compacted(15, 3)
    for table in ("evals", "geometry", "influences"):
        (name,) = store.place.names(table)
        assert name.startswith("compact-")
    assert len(store.place.names("failures")) == 1
    assert tables(store.place) == rows
    assert provenance(store.place) == records
    assert provenance_table(store.place) == shown
    assert store.ledger() == ledger
    assert steps == sorted(steps)
    assert steps[-1] == (30, 30)
    # Again there is nothing to do.
    assert compact(store, quiet) == Compacted(3, 3)
    assert tables(store.place) == rows


def test_later_cells_are_merged_with_the_earlier_ones(store: Store) -> None:
    compact(store, quiet)
    added = {loss(store, number).id for number in (20, 21)} | {geometry(store, 20).id}
    rows, records = tables(store.place), provenance(store.place)
    assert compact(store, quiet) == Compacted(7, 3)
    assert tables(store.place) == rows
    assert provenance(store.place) == records
    assert added <= store.ledger().done


def test_a_cell_that_ran_again_replaces_its_merged_rows(store: Store) -> None:
    for number in range(3):
        loss(store, number, rows=3)
    compact(store, quiet)
    again = loss(store, 1, value=0.25)
    rows = tables(store.place)
    of_cell = [row for row in rows["evals"].to_pylist() if row["cell_id"] == again.id]
    assert [(row["row"], row["value"]) for row in of_cell] == [(0, 0.25)]
    records = provenance(store.place)
    compact(store, quiet)
    assert tables(store.place) == rows
    assert provenance(store.place) == records
    assert len(store.place.names("evals")) == 1


def test_a_large_merged_file_is_rewritten_only_where_a_cell_ran_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_module, "_FILE_BYTES", 1)
    store = filled(tmp_path)
    compact(store, quiet)
    large = store.place.names("evals")
    loss(store, 20)
    loss(store, 21)
    compact(store, quiet)
    assert set(large) < set(store.place.names("evals"))
    loss(store, 1, value=0.25)
    rows = tables(tmp_path)
    compact(store, quiet)
    assert not set(large) & set(store.place.names("evals"))
    assert tables(tmp_path) == rows


def test_rows_are_divided_into_files_and_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    for number in range(30):
        loss(store, number, rows=5)
    rows, records = tables(tmp_path), provenance(tmp_path)
    for name, size in {"_BATCH_FILES": 2, "_GROUP_BYTES": 2000, "_FILE_BYTES": 4000}.items():
        monkeypatch.setattr(compact_module, name, size)
    compact(store, quiet)
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "evals").iterdir())]
    assert 1 < len(files) < 15
    assert max(file.num_row_groups for file in files) > 1
    assert sum(file.metadata.num_rows for file in files) == 150
    assert tables(tmp_path) == rows
    assert provenance(tmp_path) == records
    monkeypatch.setattr(compact_module, "_FILE_BYTES", 10**9)
    compact(store, quiet)
    assert len(store.place.names("evals")) == 1
    assert tables(tmp_path) == rows
    assert provenance(tmp_path) == records


def test_what_would_lose_something_is_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    empty = loss(store, 30, rows=0)
    path = tmp_path / "evals" / f"{loss(store, 31).id}.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.append_column("from_the_future", pa.array([1])), path)
    ledger = store.ledger()
    compact(store, quiet)
    own, merged = layout.divided(store.place.names("evals"))
    assert own.keys() == {empty.id, path.stem}
    assert len(merged) == 1
    assert store.ledger() == ledger


def test_columns_that_older_files_lack_become_null(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = tmp_path / "evals" / f"{loss(store, 1).id}.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["stderr"]), path)
    rows = tables(tmp_path)
    compact(store, quiet)
    assert tables(tmp_path) == rows


def test_a_damaged_file_stops_it_and_nothing_is_lost(tmp_path: Path) -> None:
    store = filled(tmp_path)
    rows = load("geometry", tmp_path)
    damaged = tmp_path / "evals" / f"{measuring(3, 0).id}.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20])
    with pytest.raises(StoreError, match=f"cannot read {damaged}"):
        compact(store, quiet)
    assert len(store.place.names("evals")) == 7
    damaged.write_bytes(content)
    assert compact(store, quiet).files_after == 3
    assert load("geometry", tmp_path) == rows


def test_readers_see_every_row_all_the_while(store: Store) -> None:
    expected, done = tables(store.place), store.ledger().done
    with ThreadPoolExecutor(1) as aside:
        for round_ in range(3):
            merging = aside.submit(compact, store, quiet)
            reads = 0
            while not merging.done() or not reads:
                for table in ("evals", "influences"):
                    assert load(table, store.place) == expected[table]
                assert store.ledger().done == done
                assert len(provenance(store.place)) == 12
                reads += 1
            assert merging.result().files_after == 3
            for number in range(7):
                if round_ < 2:
                    loss(store, number)


def test_a_reader_bears_that_a_file_goes_between_its_listing_and_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "results")
    for number in range(3):
        loss(store, number)
    expected = load("evals", store.place)

    def merged_meanwhile(folder: Path) -> Iterator[Any]:
        entries = list(listed_files(folder))
        monkeypatch.setattr("jobs.place.listed_files", listed_files)
        compact(store, quiet)
        yield from entries

    monkeypatch.setattr("jobs.place.listed_files", merged_meanwhile)
    assert load("evals", store.place) == expected
    assert len(store.place.names("evals")) == 1


_RECORDS = st.dictionaries(
    st.sampled_from(["device", "threads", "seconds", "libraries"]),
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers()),
)


@given(st.dictionaries(st.text(), _RECORDS))
def test_packed_provenance_comes_back(records: dict[str, dict[str, Any]]) -> None:
    packed = layout.pack(records)
    assert layout.unpack({layout.PROVENANCE: packed}, None) == records
    distinct = {
        json.dumps({k: v for k, v in record.items() if k != "seconds"}, sort_keys=True)
        for record in records.values()
    }
    assert len(json.loads(packed)["records"]) == len(distinct)
