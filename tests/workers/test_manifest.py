"""Manifests name every file, and none outside of its artifact."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from jobs.errors import DataError
from workers.manifest import MANIFEST, Entry, check_inside, describe, entries


def test_a_manifest_names_every_file_but_itself(tmp_path: Path) -> None:
    for name, text in {"b": "two", "step8/a": "", "step8/deep/é": "three", MANIFEST: "x"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert entries(describe(tmp_path)) == {
        "b": Entry(sha256(b"two").hexdigest(), 3),
        "step8/a": Entry(sha256().hexdigest(), 0),
        "step8/deep/é": Entry(sha256(b"three").hexdigest(), 5),
    }


def test_equal_folders_have_equal_manifests(tmp_path: Path) -> None:
    for folder, order in (("one", "abc"), ("two", "cba")):
        (tmp_path / folder).mkdir()
        for name in order:
            (tmp_path / folder / name).write_text(name)
    assert describe(tmp_path / "one") == describe(tmp_path / "two")
    (tmp_path / "two" / "a").write_text("b")
    assert describe(tmp_path / "one") != describe(tmp_path / "two")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"{}", b'{"files": []}', b'{"files": {"a": {"size": 1}}}', b"\xff"],
)
def test_a_malformed_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is malformed.*remove that artifact"):
        entries(manifest)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "", "."])
def test_a_path_out_of_the_artifact_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="is no path within an artifact"):
        check_inside(name)
    manifest = json.dumps({"files": {name: {"size": 1, "sha256": "0" * 64}}}).encode()
    with pytest.raises(DataError, match="is no path within an artifact"):
        entries(manifest)
