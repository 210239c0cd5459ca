"""The node cache shows whole and right files, or none, however many fetch and whatever dies."""

import hashlib
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from jobs.errors import DataError
from workers.cache import NodeCache
from workers.manifest import Entry

FILES = {"step8/model": b"weights" * 1000, "step8/config": b"{}", "log": b""}
KEY = "artifacts/a"
_PROCESSES = multiprocessing.get_context("spawn")


def wanted(files: Mapping[str, bytes] = FILES) -> dict[str, Entry]:
    return {n: Entry(hashlib.sha256(b).hexdigest(), len(b)) for n, b in files.items()}


def fetch(cache: Path, chunks: Callable[[str], Iterator[bytes]]) -> Path:
    return NodeCache(cache).folder(KEY, wanted(), chunks, "afar", "mend it")


def in_two(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]


def visible(folder: Path) -> dict[str, bytes]:
    """Every file that a reader of the cache could come upon."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "incoming" not in path.relative_to(folder).parts
    }


def in_cache(files: Mapping[str, bytes] = FILES) -> dict[str, bytes]:
    return {f"{KEY}/{name}": data for name, data in files.items()}


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def chunks(name: str) -> Iterator[bytes]:
        asked.append(name)
        return in_two(FILES[name])

    for _ in range(2):
        assert fetch(tmp_path, chunks) == tmp_path / KEY
        assert visible(tmp_path) == in_cache()
    assert sorted(asked) == sorted(FILES)


def test_a_file_that_lost_bytes_in_the_cache_is_fetched_again(
    tmp_path: Path, counted: Callable[[str, str], float]
) -> None:
    fetch(tmp_path, lambda name: in_two(FILES[name]))
    os.truncate(tmp_path / KEY / "step8/model", 100)
    fetch(tmp_path, lambda name: in_two(FILES[name]))
    assert visible(tmp_path) == in_cache()
    sizes = {name: len(data) for name, data in FILES.items()}
    assert counted("fetched_bytes", "results") == sum(sizes.values()) + sizes["step8/model"]
    assert (counted("cache_files", "miss"), counted("cache_files", "hit")) == (4, 2)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"W" + b[1:]])
def test_a_damaged_file_is_fetched_once_more_and_then_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    arriving: list[bytes] = []

    def chunks(name: str) -> Iterator[bytes]:
        whole = FILES[name]
        return in_two(arriving.pop(0) if arriving and name == "step8/model" else whole)

    bad = damage(FILES["step8/model"])
    arriving[:] = [bad, bad]
    with pytest.raises(DataError, match="afar/step8/model is not what was published → mend it"):
        fetch(tmp_path, chunks)
    assert f"{KEY}/step8/model" not in visible(tmp_path)
    arriving[:] = [bad]
    fetch(tmp_path, chunks)
    assert visible(tmp_path) == in_cache()


def test_a_file_that_is_gone_is_the_datas_fault(tmp_path: Path) -> None:
    def chunks(name: str) -> Iterator[bytes]:
        raise FileNotFoundError(2, "no such key", name)

    with pytest.raises(DataError, match="afar/step8/model is gone → mend it"):
        fetch(tmp_path, chunks)


def test_a_connection_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def chunks(name: str) -> Iterator[bytes]:
        yield FILES[name][:10]
        raise ConnectionResetError("the other end is gone")

    with pytest.raises(ConnectionResetError, match="the other end is gone"):
        fetch(tmp_path, chunks)
    assert visible(tmp_path) == {}
    assert [path.suffix for path in (tmp_path / "incoming").iterdir()] == [".lock"]


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    # A limit to the size of files stands for the end of the disk: the kernel names no file either.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="incoming") as caught:
            fetch(tmp_path, lambda name: in_two(FILES[name]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value.filename).startswith(str(tmp_path))
    assert visible(tmp_path) == {}
    assert [path.suffix for path in (tmp_path / "incoming").iterdir()] == [".lock"]


def _note(log: Path, word: str) -> None:
    with log.open("a") as file:
        file.write(f"{word}\n")


def _noted(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def _fetch_among(number: int, cache: Path, log: Path) -> None:
    def chunks(name: str) -> Iterator[bytes]:
        _note(log, name)
        first, second = in_two(FILES[name])
        yield first
        while _noted(log).count("here") < number:
            time.sleep(0.01)
        yield second

    _note(log, "here")
    fetch(cache, chunks)
    assert visible(cache) == in_cache()


def test_of_several_processes_one_fetches(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    workers = [_PROCESSES.Process(target=_fetch_among, args=(3, cache, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(_noted(log)) == sorted([*FILES, *["here"] * 3])


def _fetch_for_ever(cache: Path, log: Path) -> None:
    def chunks(name: str) -> Iterator[bytes]:
        yield FILES[name][:100]
        _note(log, name)
        while True:
            time.sleep(1)

    fetch(cache, chunks)


def test_a_process_killed_while_it_fetches_leaves_nothing_that_is_seen(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    worker = _PROCESSES.Process(target=_fetch_for_ever, args=(cache, log))
    worker.start()
    while not _noted(log):
        assert worker.is_alive()
        time.sleep(0.01)
    worker.kill()
    worker.join()
    assert visible(cache) == {}
    fetch(cache, lambda name: in_two(FILES[name]))
    assert visible(cache) == in_cache()
    assert [path.suffix for path in (cache / "incoming").iterdir()] == [".lock"]
