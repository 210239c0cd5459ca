"""Where results are behind a URL, workers write the rows and the driver gets receipts."""

from pathlib import Path

import pytest

from dashboards.query import load
from jobs.cells import Cell
from jobs.errors import StoreError
from jobs.events import Alive, Failed, Finished, Started
from jobs.place import Place
from orchestrator.receipts import stream_receipts
from orchestrator.store import Store
from tests.conftest import Texts
from tests.orchestrator.object_store import ObjectStore
from tests.workers.tasks import kinds, prepare, small_study, task_of
from workers.artifacts import SharedFiles


@pytest.fixture
def cells(tiny_series: Path, texts: Texts, tmp_path: Path) -> list[Cell]:
    """The cells of one checkpoint, whose sequences are drawn."""
    return prepare(small_study(tiny_series, texts), tmp_path)[0]


def test_rows_are_written_where_they_are_made(
    cells: list[Cell], tmp_path: Path, bucket: str
) -> None:
    store = Store(f"s3://{bucket}/run")
    events = list(stream_receipts(store.place, task_of(cells), SharedFiles(tmp_path)))
    receipts = kinds(events, Finished)
    assert {event.cell_id for event in receipts} == {cell.id for cell in cells}
    assert all(event.tables == () and event.provenance for event in receipts)
    assert len(kinds(events, Started)) == len(cells)
    assert store.ledger().done == {cell.id for cell in cells}
    assert load("geometry", store.place).num_rows > 0


def test_an_outage_of_the_store_is_waited_for(
    cells: list[Cell], tmp_path: Path, bucket: str, object_store: ObjectStore
) -> None:
    store = Store(f"s3://{bucket}/run")
    left = 10  # Each request is tried four times.

    def refuse(_method: str, _path: str) -> tuple[int, str] | None:
        nonlocal left
        left -= 1
        return (503, "ServiceUnavailable") if left >= 0 else None

    object_store.refuses = refuse
    events = list(stream_receipts(store.place, task_of(cells), SharedFiles(tmp_path)))
    assert left < 0
    assert kinds(events, Alive)
    assert not kinds(events, Failed)
    assert store.ledger().done == {cell.id for cell in cells}


def test_rows_that_cannot_be_written_are_no_fault_of_the_cell(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise StoreError("cannot write to s3://bucket: refused", "mend it")

    store = Store(tmp_path / "results")
    monkeypatch.setattr(Store, "commit", refuse)
    events = list(stream_receipts(Place(store.place), task_of(cells), SharedFiles(tmp_path)))
    failures = kinds(events, Failed)
    assert {event.cell_id for event in failures} == {cell.id for cell in cells}
    assert {(event.cause, event.message) for event in failures} == {
        ("infrastructure", "cannot write to s3://bucket: refused")
    }
    assert not kinds(events, Finished)
