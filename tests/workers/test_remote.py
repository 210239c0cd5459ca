"""Artifacts reach nodes that cannot see the results: through a place that all nodes reach."""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pyarrow import fs

from jobs.errors import DataError
from jobs.place import Place
from jobs.records import MARKER
from jobs.sources import Folder, Produced, TextFiles
from workers.artifacts import SharedFiles, fresh_artifact, locate, resumable_artifact, whole
from workers.manifest import MANIFEST
from workers.remote import CachedFiles, FetchedFiles, PlaceRemote, open_files

CELL = "c" * 64
STORE = "5" * 32
MADE = {
    "rows.json": b"[]",
    "step8/config.json": b"{}",
    "step8/model.safetensors": b"eight" * 999,
    "step80/model.safetensors": b"eighty" * 999,
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket behind the S3 protocol on loopback, up to the prefix."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        fs.S3FileSystem(
            endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True
        ).create_dir("results")
        yield f"s3://results/{{}}?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for results, new for each test."""
    if request.param == "folder":
        return Place(tmp_path / "results")
    return Place(request.getfixturevalue("bucket").format(tmp_path.name))


def node(results: Place, cache: Path) -> CachedFiles:
    return CachedFiles(PlaceRemote(results), cache, STORE)


def make(files: CachedFiles | SharedFiles, made: dict[str, bytes]) -> None:
    with fresh_artifact(files, CELL) as folder:
        for name, data in made.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def contents(folder: Path | None) -> dict[str, bytes]:
    assert folder is not None
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_what_one_node_makes_another_one_reads(results: Place, tmp_path: Path) -> None:
    maker, reader = node(results, tmp_path / "maker"), node(results, tmp_path / "reader")
    assert reader.artifact(CELL) is None
    make(maker, MADE)
    assert contents(reader.artifact(CELL)) == MADE
    assert contents(maker.artifact(CELL)) == MADE
    assert list(maker.work.iterdir()) == []


_names = st.text("ab.é ", min_size=1, max_size=5).filter(lambda n: n not in {".", ".."})


@settings(max_examples=30)
@given(st.dictionaries(st.tuples(_names, _names), st.binary(max_size=100), min_size=1))
def test_any_folder_arrives_as_it_was(made: dict[tuple[str, str], bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name) / "results")
        expected = {f"{folder}/{file}": data for (folder, file), data in made.items()}
        make(node(place, Path(name) / "maker"), expected)
        assert contents(node(place, Path(name) / "reader").artifact(CELL)) == expected


def test_a_node_reads_what_was_published_by_renaming(tmp_path: Path) -> None:
    make(SharedFiles(tmp_path / "results"), MADE)
    reader = node(Place(tmp_path / "results"), tmp_path / "reader")
    assert contents(reader.artifact(CELL)) == MADE


def test_only_what_is_needed_is_fetched(results: Place, tmp_path: Path) -> None:
    make(node(results, tmp_path / "maker"), MADE)
    reader = node(results, tmp_path / "reader")
    folder = locate(reader, Produced(CELL, "step8"))
    assert set(contents(folder)) == {"config.json", "model.safetensors"}
    assert contents(folder.parent) == {n: b for n, b in MADE.items() if n.startswith("step8/")}
    assert whole(reader, CELL, ("rows.json",)) == folder.parent
    assert contents(whole(reader, CELL)) == MADE


def test_what_an_artifact_lacks_is_said(results: Place, tmp_path: Path) -> None:
    make(node(results, tmp_path / "maker"), MADE)
    reader = node(results, tmp_path / "reader")
    with pytest.raises(DataError, match=f"{CELL} lacks step9 → remove artifacts/{CELL}"):
        locate(reader, Produced(CELL, "step9"))
    results.delete(f"artifacts/{CELL}/rows.json")
    with pytest.raises(DataError, match=f"artifacts/{CELL}/rows.json is gone → remove artifacts"):
        whole(reader, CELL, ("rows.json",))
    results.write(f"artifacts/{CELL}/rows.json", b"{}")
    with pytest.raises(DataError, match=r"rows\.json is not what was published"):
        whole(reader, CELL, ("rows.json",))
    results.delete(f"artifacts/{CELL}/{MANIFEST}")
    with pytest.raises(DataError, match=f"{CELL} is gone → `retry`"):
        whole(reader, CELL)


def test_an_artifact_that_was_made_again_is_not_mixed_with_the_former(
    results: Place, tmp_path: Path
) -> None:
    reader = node(results, tmp_path / "reader")
    make(node(results, tmp_path / "maker"), MADE)
    assert contents(locate(reader, Produced(CELL, "step8"))) != {}
    for name in (*MADE, MANIFEST):
        results.delete(f"artifacts/{CELL}/{name}")
    other = {name: data[::-1] for name, data in MADE.items()}
    make(node(results, tmp_path / "maker"), other)
    assert contents(reader.artifact(CELL)) == other


def test_an_artifact_is_there_once_its_manifest_is(
    results: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = node(results, tmp_path / "maker")
    uploaded: list[str] = []
    upload = Place.upload

    def failing(place: Place, source: Path, name: str, **more: Any) -> None:
        assert node(results, tmp_path / "reader").artifact(CELL) is None
        if len(uploaded) == len(MADE) - 1:
            raise ConnectionError("cut off")
        upload(place, source, name, **more)
        uploaded.append(name)

    monkeypatch.setattr(Place, "upload", failing)
    with pytest.raises(ConnectionError, match="cut off"):
        make(maker, MADE)
    monkeypatch.undo()
    assert len(uploaded) == 3
    assert maker.artifact(CELL) is None
    assert list(maker.work.iterdir()) == []
    make(maker, MADE)
    assert contents(node(results, tmp_path / "reader").artifact(CELL)) == MADE


def test_a_straggler_writes_over_nothing(results: Place, tmp_path: Path) -> None:
    straggler = node(results, tmp_path / "straggler")
    with resumable_artifact(straggler, CELL) as folder:
        (folder / "rows.json").write_bytes(b"late")
        make(node(results, tmp_path / "maker"), MADE)
    assert contents(straggler.artifact(CELL)) == MADE


def test_unfinished_work_is_found_again_by_the_same_results_alone(tmp_path: Path) -> None:
    remote = PlaceRemote(Place(tmp_path / "results"))
    with pytest.raises(RuntimeError), resumable_artifact(node_of(remote, tmp_path, STORE), CELL):
        raise RuntimeError
    assert (node_of(remote, tmp_path, STORE).work / CELL).is_dir()
    assert not (node_of(remote, tmp_path, "6" * 32).work / CELL).exists()


def node_of(remote: PlaceRemote, cache: Path, store_id: str) -> CachedFiles:
    return CachedFiles(remote, cache, store_id)


class OtherDisk(PlaceRemote):
    """A driver's node whose disk is a folder."""

    def study_chunks(self, path: str, sha256: str) -> Iterator[bytes]:
        yield (Path(str(self._place)) / path.lstrip("/")).read_bytes()


def test_files_of_the_study_are_taken_where_they_are_or_fetched(tmp_path: Path) -> None:
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    (disk / "far").mkdir(parents=True)
    near = tmp_path / "near.txt"
    for path, word in ((near, "near"), (disk / "far/a.txt", "far"), (disk / "far/b", "b")):
        path.write_text(word)
    known = {word: sha256(word.encode()).hexdigest() for word in ("near", "far", "b")}
    files = FetchedFiles(OtherDisk(Place(disk)), cache)
    text = files.text(
        TextFiles(((str(near), known["near"]), ("/far/a.txt", known["far"])), "f", "s")
    )
    (same, _), (fetched, _) = text.files
    assert same == str(near)
    # The ending tells the format.
    assert fetched == str(cache / "texts" / known["far"] / "a.txt")
    assert Path(fetched).read_text() == "far"
    assert files.folder(Folder(str(tmp_path), (("near.txt", known["near"]),))) == tmp_path
    source = Folder("/far", (("a.txt", known["far"]), ("b", known["b"])))
    assert contents(files.folder(source)) == {"a.txt": b"far", "b": b"b"}
    (disk / "far/a.txt").write_text("changed")
    assert contents(files.folder(source)) == {"a.txt": b"far", "b": b"b"}
    (disk / "far/b").write_text("changed")
    with pytest.raises(DataError, match="/far/b is not what was published → run the command again"):
        files.folder(Folder("/far", (("b", known["b"]),)))


def test_a_node_knows_the_results_by_their_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    place = Place(tmp_path / "results")
    opened = partial(open_files, place, STORE, OtherDisk(place))
    assert isinstance(opened(), CachedFiles), "there is no such folder"
    for text in (b"{", b"[]", b'{"format": 1}'):
        place.write(MARKER, text)
        assert isinstance(opened(), CachedFiles), "it is no results folder, or has no id"
    place.write(MARKER, json.dumps({"format": 1, "store": "6" * 32}).encode())
    assert isinstance(opened(), CachedFiles), "it holds other results"
    assert opened().work == tmp_path / "cache" / "work" / STORE
    place.write(MARKER, json.dumps({"format": 1, "store": STORE}).encode())
    assert isinstance(opened(), SharedFiles)
    assert opened().work == tmp_path / "results" / "work"
    assert isinstance(open_files(Place("s3://bucket"), STORE), CachedFiles)
    assert isinstance(open_files(Place(tmp_path / "new"), STORE), SharedFiles)
