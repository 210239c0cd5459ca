"""Artifacts appear whole or not at all."""

from hashlib import sha256
from pathlib import Path

import pytest

from jobs.errors import DataError
from jobs.sources import Folder, Produced
from workers.artifacts import SharedFiles, fresh_artifact, locate, resumable_artifact
from workers.manifest import MANIFEST, Entry, describe, entries

CELL = "c" * 64


def test_where_sources_lie(tmp_path: Path) -> None:
    assert locate(SharedFiles(tmp_path), Folder("/somewhere/else", ())) == Path("/somewhere/else")
    made = tmp_path / "artifacts" / CELL / "step8"
    with pytest.raises(DataError, match=f"{CELL} is gone → `retry`"):
        locate(SharedFiles(tmp_path), Produced(CELL, "step8"))
    made.parent.mkdir(parents=True)
    with pytest.raises(DataError, match=f"lacks step8 → remove artifacts/{CELL}"):
        locate(SharedFiles(tmp_path), Produced(CELL, "step8"))
    made.mkdir()
    assert locate(SharedFiles(tmp_path), Produced(CELL, "step8")) == made


def test_a_fresh_artifact_appears_when_it_is_whole(tmp_path: Path) -> None:
    published = tmp_path / "artifacts" / CELL
    with fresh_artifact(SharedFiles(tmp_path), CELL) as folder:
        (folder / "a").write_text("1")
        assert not published.exists()
    manifest = (published / MANIFEST).read_bytes()
    assert manifest == describe(published)
    assert entries(manifest) == {"a": Entry(sha256(b"1").hexdigest(), 1)}
    assert {f.name for f in published.iterdir()} == {"a", MANIFEST}
    assert list((tmp_path / "work").iterdir()) == []


def test_a_failed_fresh_artifact_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError), fresh_artifact(SharedFiles(tmp_path), CELL) as folder:
        fail(folder)
    assert not (tmp_path / "artifacts" / CELL).exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_attempt_left_goes_with_the_next_one(tmp_path: Path) -> None:
    left, other = tmp_path / "work" / f"{CELL}.0123", tmp_path / "work" / f"{'d' * 64}.0123"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    with fresh_artifact(SharedFiles(tmp_path), CELL) as folder:
        assert list(folder.iterdir()) == []
    assert not left.exists()
    assert other.exists()


def test_a_resumable_artifact_gives_back_what_a_failed_attempt_left(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError), resumable_artifact(SharedFiles(tmp_path), CELL) as folder:
        fail(folder)
    assert not (tmp_path / "artifacts" / CELL).exists()
    with resumable_artifact(SharedFiles(tmp_path), CELL) as folder:
        assert (folder / "half").read_text() == "1"
        (folder / "whole").write_text("2")
    names = {f.name for f in (tmp_path / "artifacts" / CELL).iterdir()}
    assert names == {"half", "whole", MANIFEST}
    assert list((tmp_path / "work").iterdir()) == []


def test_an_earlier_publication_wins(tmp_path: Path) -> None:
    with (
        fresh_artifact(SharedFiles(tmp_path), CELL) as first,
        fresh_artifact(SharedFiles(tmp_path), CELL) as second,
    ):
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    published = tmp_path / "artifacts" / CELL
    assert (published / "a").read_text() == "second"
    assert list((tmp_path / "work").iterdir()) == []


def test_a_publication_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SharedFiles(tmp_path).publish(tmp_path / "missing", CELL)
