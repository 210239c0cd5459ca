"""Results in an object store: as on disk, over a real server; what is wrong with it is named."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from dashboards import report
from dashboards.about import existing_digest
from dashboards.query import load, provenance
from jobs import outage
from jobs.cells import PRIMARY_TABLES
from jobs.errors import StoreError
from jobs.events import Failed, Finished
from jobs.place import Place
from jobs.records import MARKER, SCHEMA_VERSION, TABLES, rows_table
from orchestrator.store import Store
from tests.dashboards import synthetic
from tests.orchestrator.fake_cells import making, measuring
from tests.orchestrator.local_study import environment
from tests.orchestrator.object_store import ObjectStore
from tests.orchestrator.test_store import PROVENANCE, _geometry, _loss


@pytest.fixture(autouse=True)
def _no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has nobody wait for a server that refuses: what is told of it at last is told at once."""
    monkeypatch.setattr(outage, "OUTAGE_SECONDS", 0.0)


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/my/results"


def test_rows_come_back_from_a_url(url: str, object_store: ObjectStore, bucket: str) -> None:
    store = Store(url)
    cell, finished = _geometry()
    loss = measuring(0, 1)
    object_store.requests.clear()
    store.commit(cell, finished)
    written = [path for method, path in object_store.requests if method == "PUT"]
    # One request each, and the primary table last.
    start = f"/{bucket}/my/results"
    assert written == [f"{start}/{t}/{cell.id}.parquet" for t in ("influences", "geometry")]
    store.commit(loss, _loss(loss))
    assert Store(url, write=False).ledger().done == {cell.id, loss.id}
    assert load("geometry", url).column("rankme").to_pylist() == [3.0, 2.0]
    assert load("influences", url).num_rows == 1
    assert load("evals", url).schema.equals(TABLES["evals"], check_metadata=True)
    assert provenance(url) == [PROVENANCE, PROVENANCE]


def test_a_url_and_a_folder_hold_the_same(url: str, tmp_path: Path) -> None:
    folder = synthetic.pico_like(tmp_path / "results", steps=(0, 1, 8))
    place = Place(url)
    for path in folder.rglob("*.*"):
        place.upload(path, str(path.relative_to(folder)))
    for table in TABLES:
        assert load(table, url).equals(load(table, folder)), table
    assert load("geometry", url).num_rows > 0
    assert provenance(url) == provenance(folder)
    assert existing_digest(url) is None
    assert report.render(url, "pico", digest="0f") == f"{url}/report.html"
    assert existing_digest(url) == "0f"
    page = Path(report.render(folder, "pico", digest="0f"))
    assert place.read("report.html") == page.read_bytes()


def test_failures_are_kept_and_forgotten(url: str) -> None:
    store = Store(url)
    cells = [measuring(number, 1) for number in range(3)]
    for cell in cells:
        store.fail(cell, Failed(cell.id, "data", "what"), 2)
    assert store.ledger().failed[cells[0].id]["attempts"] == 2
    store.commit(cells[0], _loss(cells[0]))
    assert store.forget_failures([cells[1].id, "f" * 64]) == 1
    ledger = store.ledger()
    assert ledger.done == {cells[0].id}
    assert ledger.failed.keys() == {cells[2].id}


def test_an_artifact_is_there_with_its_manifest(url: str, object_store: ObjectStore) -> None:
    corpus = making(0)
    drawn = making(1, (corpus.id,))
    loss = measuring(0, 7, (drawn.id,))
    cells = [corpus, drawn, loss]
    store = Store(url)
    for cell in cells[:2]:
        rows = rows_table("sequences", [{"dataset": "words"}])
        store.commit(cell, Finished(cell.id, (("sequences", rows),), {}))
        store.place.write(f"artifacts/{cell.id}/weights/model", b"x")
        store.place.write(f"artifacts/{cell.id}/manifest.json", b"{}")
    assert store.ledger(cells).done == {corpus.id, drawn.id}
    store.place.delete(f"artifacts/{corpus.id}/manifest.json")
    assert store.ledger(cells).done == {corpus.id, drawn.id}
    store.place.delete(f"artifacts/{drawn.id}/manifest.json")
    assert store.ledger(cells).done == frozenset()
    object_store.requests.clear()
    assert store.ledger(cells[:2]).done == {corpus.id, drawn.id}
    assert not [path for _, path in object_store.requests if "artifacts" in path]


def test_the_ledger_of_many_cells_asks_for_no_single_one(
    url: str, bucket: str, object_store: ObjectStore
) -> None:
    store = Store(url)
    for number in range(1500):
        object_store.put(bucket, f"my/results/evals/{number:064}.parquet", b"unread")
    object_store.requests.clear()
    assert len(store.ledger().done) == 1500
    # One list for each primary table and the failures, and a second page: one holds 1,000 names.
    assert [method for method, _ in object_store.requests] == ["GET"] * (len(PRIMARY_TABLES) + 2)


def test_a_store_is_begun_once_and_keeps_its_name(url: str) -> None:
    first = Store(url)
    assert len(first.id) == 32
    assert Store(url).id == Store(url, write=False).id == first.id
    assert Store(f"{url}/other").id != first.id
    with first.lease(lambda: pytest.fail("nobody holds it")):
        pass


def test_a_missing_prefix_is_an_empty_store(url: str, bucket: str, object_store: Any) -> None:
    store = Store(url, write=False)
    assert (store.id, store.ledger().done) == ("", frozenset())
    assert object_store.names(bucket) == []
    with pytest.raises(StoreError, match="has no eigentrace"):
        load("evals", url)


def test_a_prefix_with_other_things_is_refused(url: str, bucket: str) -> None:
    Place(url).write("thesis/chapter-1", b"years of work")
    for write in (True, False):
        with pytest.raises(StoreError, match="is not a results folder"):
            Store(url, write=write)
    assert Store(f"{url}/new").ledger().done == frozenset()
    assert Place(url).entries("") == {"thesis", "new"}


def test_a_newer_store_is_refused(url: str) -> None:
    Place(url).write(MARKER, b'{"format": %d}' % (SCHEMA_VERSION + 1))
    for opened in (lambda: Store(url), lambda: load("evals", url)):
        with pytest.raises(StoreError, match=f"{url}/{MARKER} was written by a newer version"):
            opened()


def test_a_commit_that_is_killed_between_its_tables_leaves_the_cell_undone(
    url: str, object_store: ObjectStore
) -> None:
    store = Store(url)
    cell, finished = _geometry()
    code = "import sys; from tests.orchestrator.test_store import _geometry; " + (
        "from orchestrator.store import Store; Store(sys.argv[1]).commit(*_geometry())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url], env=environment())

    def kills(method: str, path: str) -> tuple[int, str] | None:
        if method != "PUT" or "/geometry/" not in path:
            return None
        process.kill()
        process.wait()
        return (500, "InternalError")

    object_store.refuses = kills
    assert process.wait(60) == -signal.SIGKILL
    object_store.refuses = lambda _method, _path: None
    assert store.place.entries("") == {MARKER, ".writable", "influences"}
    assert store.ledger().done == frozenset()
    assert load("influences", url).num_rows == 0
    store.commit(cell, finished)
    assert store.ledger().done == {cell.id}
    assert load("influences", url).num_rows == 1


def test_a_refused_primary_table_leaves_the_cell_undone(
    url: str, object_store: ObjectStore
) -> None:
    store = Store(url)
    cell, finished = _geometry()

    def refuses(method: str, path: str) -> tuple[int, str] | None:
        return (403, "AccessDenied") if method == "PUT" and "/geometry/" in path else None

    object_store.refuses = refuses
    with pytest.raises(StoreError, match=f"cannot write to {url}/geometry/") as caught:
        store.commit(cell, finished)
    assert "finished cells are kept" in caught.value.message
    assert "credentials" in caught.value.remedy
    assert store.place.names("influences") == [f"{cell.id}.parquet"]
    assert store.ledger().done == frozenset()
    assert load("influences", url).num_rows == 0


def _unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _every_way_in(url: str) -> list[Any]:
    return [
        lambda: Store(url),
        lambda: Store(url, write=False),
        lambda: load("evals", url),
        lambda: existing_digest(url),
    ]


def test_a_missing_bucket_is_named(object_store: ObjectStore) -> None:
    url = "s3://no-such-bucket/results"
    for opened in _every_way_in(url)[:3]:
        with pytest.raises(StoreError, match="bucket") as caught:
            opened()
        assert url in caught.value.message
        assert "Request ID" not in caught.value.message
        assert caught.value.remedy


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_wrong_credentials_are_named(url: str, object_store: ObjectStore, code: str) -> None:
    object_store.refuses = lambda _method, _path: (403, code)
    for opened in _every_way_in(url):
        with pytest.raises(StoreError, match="ACCESS_DENIED") as caught:
            opened()
        assert "AWS_ACCESS_KEY_ID" in caught.value.remedy


def test_a_place_that_may_only_be_read_is_refused_before_anything_runs(
    url: str, object_store: ObjectStore
) -> None:
    cell = measuring(0, 1)
    Store(url).commit(cell, _loss(cell))
    object_store.refuses = lambda method, _path: (
        (403, "AccessDenied") if method in ("PUT", "POST", "DELETE") else None
    )
    with pytest.raises(StoreError, match=f"cannot use the results at {url}: .*ACCESS_DENIED"):
        Store(url)
    store = Store(url, write=False)
    assert store.ledger().done == {cell.id}
    for change in (
        lambda: store.commit(cell, _loss(cell)),
        lambda: store.fail(cell, Failed(cell.id, "user", "what"), 1),
        lambda: report.render(url, "a study"),
    ):
        with pytest.raises(StoreError, match="cannot write"):
            change()


def test_an_address_where_nobody_listens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = _unused_port()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(StoreError, match="cannot use the results at s3://bucket") as caught:
        Store("s3://bucket/results")
    assert f"Failed to connect to 127.0.0.1:{port}" in caught.value.message
    assert "\n" not in caught.value.message
    assert "AWS_ENDPOINT_URL" in caught.value.remedy


def test_a_server_that_breaks_off_in_the_middle_of_a_run_is_named(
    url: str, object_store: ObjectStore
) -> None:
    store = Store(url)
    cells = [measuring(number, 1) for number in range(2)]
    store.commit(cells[0], _loss(cells[0]))
    object_store.refuses = lambda _method, _path: (500, "InternalError")
    with pytest.raises(StoreError, match=f"cannot write to {url}/evals/"):
        store.commit(cells[1], _loss(cells[1]))
    object_store.refuses = lambda _method, _path: None
    assert store.ledger().done == {cells[0].id}
    store.commit(cells[1], _loss(cells[1]))
    assert store.ledger().done == {cell.id for cell in cells}


def test_a_damaged_object_is_named(url: str) -> None:
    store = Store(url)
    cell = measuring(0, 1)
    store.commit(cell, _loss(cell))
    name = f"evals/{cell.id}.parquet"
    store.place.write(name, store.place.read(name)[:-20])
    with pytest.raises(StoreError, match=f"cannot read {url}/{name}"):
        load("evals", url)


def test_the_server_listens_on_loopback_alone(object_store: ObjectStore) -> None:
    host, port = object_store.address.split(":")
    assert host == "127.0.0.1"
    with urlopen(f"http://{host}:{port}/") as answer:
        assert answer.status == 200
    assert "AWS_ENDPOINT_URL" in os.environ
