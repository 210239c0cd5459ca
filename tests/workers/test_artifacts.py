"""Artifacts appear whole or not at all."""

from pathlib import Path

import pytest

from jobs.errors import DataError
from jobs.work import Folder, Produced
from workers.artifacts import artifact_folder, fresh_artifact, locate, publish, resumable_artifact

CELL = "c" * 64


def test_where_sources_lie(tmp_path: Path) -> None:
    assert locate(tmp_path, Folder("/somewhere/else", ())) == Path("/somewhere/else")
    made = tmp_path / "artifacts" / CELL / "step8"
    with pytest.raises(DataError, match="lacks step8 → remove that folder"):
        locate(tmp_path, Produced(CELL, "step8"))
    made.mkdir(parents=True)
    assert locate(tmp_path, Produced(CELL, "step8")) == made


def test_a_fresh_artifact_appears_when_it_is_whole(tmp_path: Path) -> None:
    published = artifact_folder(tmp_path, CELL)
    with fresh_artifact(tmp_path, CELL) as folder:
        (folder / "a").write_text("1")
        assert not published.exists()
    assert {f.name: f.read_text() for f in published.iterdir()} == {"a": "1"}
    assert list((tmp_path / "work").iterdir()) == []


def test_a_failed_fresh_artifact_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError), fresh_artifact(tmp_path, CELL) as folder:
        fail(folder)
    assert not artifact_folder(tmp_path, CELL).exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_attempt_left_goes_with_the_next_one(tmp_path: Path) -> None:
    left, other = tmp_path / "work" / f"{CELL}.0123", tmp_path / "work" / f"{'d' * 64}.0123"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    with fresh_artifact(tmp_path, CELL) as folder:
        assert list(folder.iterdir()) == []
    assert not left.exists()
    assert other.exists()


def test_a_resumable_artifact_gives_back_what_a_failed_attempt_left(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError), resumable_artifact(tmp_path, CELL) as folder:
        fail(folder)
    assert not artifact_folder(tmp_path, CELL).exists()
    with resumable_artifact(tmp_path, CELL) as folder:
        assert (folder / "half").read_text() == "1"
        (folder / "whole").write_text("2")
    names = {f.name for f in artifact_folder(tmp_path, CELL).iterdir()}
    assert names == {"half", "whole"}
    assert list((tmp_path / "work").iterdir()) == []


def test_an_earlier_publication_wins(tmp_path: Path) -> None:
    with fresh_artifact(tmp_path, CELL) as first, fresh_artifact(tmp_path, CELL) as second:
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    published = artifact_folder(tmp_path, CELL)
    assert (published / "a").read_text() == "second"
    assert list((tmp_path / "work").iterdir()) == []


def test_a_publication_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "missing", tmp_path / "artifacts" / CELL)
