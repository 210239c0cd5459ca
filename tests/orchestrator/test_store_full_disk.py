"""A disk that is really full: nothing is published by half, nothing that was there is lost."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.query import load
from jobs.cells import Cell
from jobs.errors import StoreError
from jobs.events import Finished
from jobs.place import TEMPORARY
from jobs.records import rows_table
from orchestrator.compact import compact
from orchestrator.store import Store
from tests.orchestrator.test_store import _geometry


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(disk: Path, left: int) -> Path:
    """Leaves so many bytes free; returns the file that takes the rest."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - left))
    return ballast


def _large(number: int) -> tuple[Cell, Finished]:
    """A cell whose side table is small and whose primary one takes about 160 KB."""
    cell, finished = _geometry()
    generator = random.Random(number)
    row = {"layer": -1, "spectrum": [generator.random() for _ in range(20_000)]}
    tables = {**dict(finished.tables), "geometry": rows_table("geometry", [row])}
    return cell, Finished(cell.id, tuple(tables.items()), finished.provenance)


def test_a_commit_on_a_full_disk_can_be_made_again(disk: Path) -> None:
    store = Store(disk / "results")
    ballast = _fill(disk, 80_000)
    cell, finished = _large(0)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.commit(cell, finished)
    assert f"cannot write to {disk}" in caught.value.message
    assert "make room" in caught.value.remedy
    assert store.place.names("influences") == [f"{cell.id}.parquet"]
    assert list((disk / "results" / "geometry").iterdir()) == []
    assert store.ledger().done == frozenset()
    assert load("influences", disk / "results").num_rows == 0
    ballast.unlink()
    store.commit(cell, finished)
    assert store.ledger().done == {cell.id}
    assert load("geometry", disk / "results").num_rows == 1


def test_a_compaction_on_a_full_disk_changes_nothing(disk: Path) -> None:
    store = Store(disk / "results")
    cell, finished = _large(0)
    store.commit(cell, finished)
    own = store.place.path / "geometry" / f"{cell.id}.parquet"
    # A second file of the same rows, which belong to another cell by its name.
    own.with_name(f"{'f' * 64}.parquet").write_bytes(own.read_bytes())
    before, files = load("geometry", store.place), sorted(store.place.path.rglob("*.*"))
    ballast = _fill(disk, 80_000)
    with pytest.raises(StoreError, match="No space left on device"):
        compact(store, lambda done, total: None)
    assert sorted(store.place.path.rglob("*.*")) == files
    assert not [path for path in files if path.suffix == TEMPORARY]
    assert load("geometry", store.place) == before
    ballast.unlink()
    compact(store, lambda done, total: None)
    assert len(store.place.names("geometry")) == 1
