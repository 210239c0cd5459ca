"""Identity: equal inputs give equal hashes, and what has no stable bytes is refused."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import StudyError
from jobs.identity import FileHashes, cache_folder, digest

_SAFE = 2**53 - 1
_TEXT = st.text('ab1"\\/\n\x00\x7fé\u2028\uffff😀', max_size=6)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-_SAFE, _SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def test_the_digest_is_the_hash_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,true,null,"\xc3\xa9"],"b":1.5}').hexdigest()
    assert digest({"b": 1.5, "a": [1, True, None, "é"]}) == expected


@given(_JSON)
def test_the_quick_way_gives_the_bytes_of_the_standard(value: Any) -> None:
    assert digest(value) == hashlib.sha256(rfc8785.dumps(value)).hexdigest()


@given(st.dictionaries(_TEXT, _JSON))
def test_order_of_keys_and_form_of_lists_change_nothing(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in turned.items()}
    assert digest(value) == digest(turned) == digest(tuples)


@given(_JSON)
def test_a_round_trip_through_json_changes_nothing(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)


def test_numbers_are_told_by_their_value() -> None:
    assert digest({"a": 1}) == digest({"a": 1.0})
    assert digest({"a": 0.0}) == digest({"a": -0.0})
    distinct = [1, "1", True, None, 1.5, [1], {"1": 1}, 0.1 + 0.2, 0.3]
    assert len({digest(value) for value in distinct}) == len(distinct)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        {"a": [math.nan]},
        {1: "a"},
        {None: 1},
        {"a": {1, 2}},
        b"bytes",
        Path("a"),
        pytest.param(object(), id="object"),
        2**53,
        "\udcff",
        {"\udcff": 1},
    ],
    ids=repr,
)
def test_what_has_no_stable_bytes_is_refused(value: Any) -> None:
    with pytest.raises(StudyError, match="no stable bytes"):
        digest(value)


def _write(path: Path, content: bytes, mtime: int) -> None:
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))


def _counting(hashes: FileHashes, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows with every file that is really hashed."""
    read: list[int] = []
    real = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        read.append(1)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return read


def test_files_are_read_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    _write(file, b"one", 1000)
    first = FileHashes(cache)
    read = _counting(first, monkeypatch)
    assert first.sha256(file) == hashlib.sha256(b"one").hexdigest()
    first.save()
    second = FileHashes(cache)
    assert second.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    _write(file, b"two", 1001)
    assert second.sha256(file) == hashlib.sha256(b"two").hexdigest()
    _write(file, b"three", 1001)
    assert second.sha256(file) == hashlib.sha256(b"three").hexdigest()
    assert len(read) == 3


def test_a_link_shares_the_hash_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "weights", tmp_path / "link"
    file.write_bytes(b"one")
    link.symlink_to(file)
    hashes = FileHashes(tmp_path / "cache")
    read = _counting(hashes, monkeypatch)
    assert hashes.sha256(link) == hashes.sha256(file)
    assert len(read) == 1


def test_a_folder_behind_a_link_shares_the_hashes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "step1", tmp_path / "latest"
    folder.mkdir()
    (folder / "weights").write_bytes(b"one")
    link.symlink_to(folder)
    hashes = FileHashes(tmp_path / "cache")
    read = _counting(hashes, monkeypatch)
    assert hashes.sha256(link / "weights") == hashes.sha256(folder / "weights")
    assert hashes.resolve(link) == folder
    assert len(read) == 1


@pytest.mark.parametrize("memory", [b"", b'{"/a": [1,', b"[]", b"null", b"\xff", b'{"/a": 3}'])
def test_a_damaged_memory_costs_only_time(tmp_path: Path, memory: bytes) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"one")
    cache.mkdir()
    (cache / "file-hashes.json").write_bytes(memory)
    hashes = FileHashes(cache)
    assert hashes.sha256(file) == hashlib.sha256(b"one").hexdigest()
    hashes.save()
    assert str(file) in json.loads((cache / "file-hashes.json").read_text())


def test_a_damaged_entry_is_hashed_again(tmp_path: Path) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"one")
    cache.mkdir()
    (cache / "file-hashes.json").write_text(json.dumps({str(file): 7}))
    assert FileHashes(cache).sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_an_unwritable_cache_is_survived(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"in the way")
    hashes = FileHashes(blocked / "cache")
    assert hashes.sha256(blocked) == hashlib.sha256(b"in the way").hexdigest()
    hashes.save()
    assert blocked.read_bytes() == b"in the way"


def test_saving_leaves_nothing_but_the_memory(tmp_path: Path) -> None:
    hashes = FileHashes(tmp_path / "cache")
    hashes.save()
    assert not (tmp_path / "cache").exists()
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    hashes.sha256(file)
    hashes.save()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["file-hashes.json"]


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="No such file"):
        FileHashes(tmp_path).sha256(tmp_path / "nowhere")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("EIGENTRACE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "eigentrace"
