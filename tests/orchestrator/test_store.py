"""The store: rows come back as they went in, whole or not at all, and what is wrong is named."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cells import Cell
from jobs.errors import StoreError
from jobs.events import Failed, Finished
from jobs.records import MARKER, SCHEMA_VERSION, TABLES, rows_table
from jobs.work import GeometryWork
from orchestrator.store import Store
from tests.orchestrator.fake_cells import making, measuring
from tests.orchestrator.local_study import environment

PROVENANCE = {"eigentrace": "0", "seconds": 1.5}


def _loss(cell: Cell, value: float = 0.5) -> Finished:
    rows = rows_table("evals", [{"task": "words", "metric": "loss", "value": value, "n": 3}])
    return Finished(cell.id, (("evals", rows),), PROVENANCE)


def _geometry() -> tuple[Cell, Finished]:
    cell = Cell(GeometryWork("words", "0" * 64, "last", "float32"), checkpoint=_checkpointed())
    side = rows_table("influences", [{"layer": -1, "influence_rankme": [0.5, -0.5]}])
    main = rows_table("geometry", [{"layer": -1, "rankme": 3.0}, {"layer": 0, "rankme": 2.0}])
    # The primary table is given first here; the store puts it last all the same.
    return cell, Finished(cell.id, (("geometry", main), ("influences", side)), PROVENANCE)


def _checkpointed() -> Any:
    return measuring(0, 7).checkpoint


def _names(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_rows_come_back_with_keys_units_and_provenance(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    cell, finished = _geometry()
    store.commit(cell, finished)
    (path,) = (tmp_path / "results" / "geometry").iterdir()
    assert path.name == f"{cell.id}.parquet"
    found = pq.read_table(path, partitioning=None)
    assert found.schema.equals(TABLES["geometry"])
    rows = found.to_pylist()
    assert [(r["row"], r["layer"], r["rankme"]) for r in rows] == [(0, -1, 3.0), (1, 0, 2.0)]
    assert {
        (r["cell_id"], r["suite"], r["model"], r["revision"], r["step"], r["tokens"], r["stage"])
        for r in rows
    } == {(cell.id, "suite", "model", "step7", 7, None, "pretrain")}
    assert rows[0]["alpha_req"] is None
    metadata = found.schema.metadata
    assert json.loads(metadata[b"eigentrace_provenance"]) == PROVENANCE
    assert metadata[b"eigentrace_schema_version"] == str(SCHEMA_VERSION).encode()
    assert found.schema.field("tokens").metadata[b"unit"] == b"tokens"


def test_a_row_may_set_its_own_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = making(0)
    rows = rows_table("training_log", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    store.commit(cell, Finished(cell.id, (("training_log", rows),)))
    found = pq.read_table(tmp_path / "training_log" / f"{cell.id}.parquet").to_pylist()
    assert [(r["suite"], r["model"], r["step"]) for r in found] == [
        ("suite", "", 1),
        ("suite", "", 2),
    ]


def test_a_cell_is_done_only_with_its_primary_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell, finished = _geometry()
    side = tuple(t for t in finished.tables if t[0] == "influences")
    store.commit(cell, Finished(cell.id, side))
    assert store.ledger().done == frozenset()
    store.commit(cell, finished)
    assert store.ledger().done == {cell.id}


def test_side_tables_are_written_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = Path.replace

    def watched(path: Path, target: Path) -> Path:
        written.append(path.parent.name)
        return real(path, target)

    store = Store(tmp_path)
    monkeypatch.setattr(Path, "replace", watched)
    store.commit(*_geometry())
    assert written == ["influences", "geometry"]


def test_a_second_commit_replaces_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = measuring(0, 1)
    for value in (0.5, 0.25):
        store.commit(cell, _loss(cell, value))
    assert _names(tmp_path) == [MARKER, f"evals/{cell.id}.parquet"]
    found = pq.read_table(tmp_path / "evals" / f"{cell.id}.parquet")
    assert found.column("value").to_pylist() == [0.25]


def test_a_failure_is_a_row_until_the_cell_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = measuring(0, 1)
    store.fail(cell, Failed(cell.id, "data", "what", "remedy", "trace"), 2)
    row = store.ledger().failed[cell.id]
    assert {key: row[key] for key in ("kind", "cause", "attempts", "message", "remedy")} == {
        "kind": "loss",
        "cause": "data",
        "attempts": 2,
        "message": "what",
        "remedy": "remedy",
    }
    assert (row["traceback"], row["revision"], row["step"]) == ("trace", "step1", 1)
    store.commit(cell, _loss(cell))
    assert store.ledger().failed == {}
    assert not list((tmp_path / "failures").iterdir())


def test_failures_are_forgotten_one_by_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [measuring(number, 1) for number in range(3)]
    for cell in cells:
        store.fail(cell, Failed(cell.id, "user", "what"), 1)
    assert store.forget_failures([cells[0].id, "f" * 64]) == 1
    assert set(store.ledger().failed) == {cells[1].id, cells[2].id}


def test_files_of_many_cells_count_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [measuring(number, 1) for number in range(3)]
    for cell in cells:
        store.commit(cell, _loss(cell))
    folder = tmp_path / "evals"
    whole = pa.concat_tables(pq.read_table(path) for path in sorted(folder.iterdir()))
    for path in list(folder.iterdir()):
        path.unlink()
    pq.write_table(whole, folder / "compacted-1.parquet")
    assert store.ledger().done == {cell.id for cell in cells}


def test_a_folder_named_like_a_partition_is_no_column(tmp_path: Path) -> None:
    store = Store(tmp_path / "run=3")
    cell = measuring(0, 1)
    store.fail(cell, Failed(cell.id, "user", "what"), 1)
    assert "run" not in store.ledger().failed[cell.id]


def test_unfinished_files_are_not_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / f".{'a' * 64}.123.tmp").write_bytes(b"torn")
    (tmp_path / "evals" / f"_{'a' * 63}.parquet").write_bytes(b"torn")
    assert store.ledger().done == frozenset()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for table in ("failures", "evals"):
        (tmp_path / table).mkdir()
        damaged = tmp_path / table / "compacted-1.parquet"
        damaged.write_bytes(b"PAR1 torn")
        with pytest.raises(StoreError, match=f"cannot read {damaged}") as caught:
            store.ledger()
        assert "\n" not in str(caught.value)
        damaged.unlink()


def test_stale_temporaries_are_removed_and_fresh_ones_kept(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "evals").mkdir()
    stale = [tmp_path / "evals" / ".a.1.tmp", tmp_path / ".eigentrace.2.tmp"]
    fresh = tmp_path / "evals" / ".b.3.tmp"
    other = tmp_path / "evals" / "mine.tmp"
    for path in (*stale, fresh, other):
        path.write_bytes(b"x")
    long_ago = time.time() - 4000
    for path in (*stale, other):
        os.utime(path, (long_ago, long_ago))
    Store(tmp_path, write=False)
    assert all(path.exists() for path in stale)
    Store(tmp_path)
    assert _names(tmp_path) == sorted(["evals/.b.3.tmp", "evals/mine.tmp", MARKER])


def test_a_beginning_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / ".eigentrace.0123.tmp").write_bytes(b"")
    assert Store(tmp_path).ledger().done == frozenset()
    assert (tmp_path / MARKER).is_file()


def test_a_store_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps({"format": SCHEMA_VERSION, "note": "kept"}))
    assert Store(tmp_path, write=False).id == ""
    name = Store(tmp_path).id
    assert len(name) == 32
    assert Store(tmp_path).id == Store(tmp_path, write=False).id == name
    assert json.loads((tmp_path / MARKER).read_text()) == {
        "format": SCHEMA_VERSION,
        "note": "kept",
        "store": name,
    }
    assert Store(tmp_path / "nowhere", write=False).id == ""


def test_reading_makes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    ledger = Store(place, write=False).ledger()
    assert (ledger.done, ledger.failed) == (frozenset(), {})
    assert not place.exists()


@pytest.mark.parametrize("write", [True, False])
def test_foreign_folders_are_refused_and_left_alone(tmp_path: Path, write: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not a results folder"):
        Store(tmp_path, write=write)
    with pytest.raises(StoreError, match="is not a results folder"):
        Store(tmp_path / "thesis.txt", write=write)
    assert _names(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (json.dumps({"format": SCHEMA_VERSION + 1}), "was written by a newer"),
        (json.dumps({"format": "x"}), "is malformed"),
        ("{}", "is malformed"),
        ("[]", "is malformed"),
        ("", "is malformed"),
    ],
)
def test_a_marker_that_cannot_be_followed_is_refused(
    tmp_path: Path, marker: str, said: str
) -> None:
    (tmp_path / MARKER).write_text(marker)
    with pytest.raises(StoreError, match=said):
        Store(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "results", Path("/proc/eigentrace")):
        with pytest.raises(StoreError, match="cannot use the results folder") as caught:
            Store(place)
        assert "--results" in caught.value.remedy


def test_a_file_in_the_way_of_a_table_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "evals").write_text("in the way")
    cell = measuring(0, 1)
    with pytest.raises(StoreError, match=f"cannot write to {tmp_path / 'evals'}"):
        store.commit(cell, _loss(cell))


def test_a_full_disk_publishes_nothing_by_half(tmp_path: Path) -> None:
    # A limit on the size of files makes the kernel refuse writes, as a full disk does.
    code = """
import resource, signal, sys
from pathlib import Path
from jobs.errors import StoreError
from tests.orchestrator.test_store import _geometry
from orchestrator.store import Store
store = Store(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    store.commit(*_geometry())
except StoreError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "results")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=True,
    )
    assert "File too large; finished cells are kept" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert _names(tmp_path / "results") == [MARKER]
