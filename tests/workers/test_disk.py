"""The ledger keeps a folder within its budget and what is pinned in it, whoever dies when."""

import fcntl
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jobs.errors import DataError
from tests.workers.holders import (
    BUDGET,
    SIZES,
    bytes_in_cache,
    churn,
    files_in_cache,
    hold_for_ever,
    put,
)
from workers import disk as disk_module
from workers.disk import INCOMPLETE, LEDGER, Disk

_PROCESSES = multiprocessing.get_context("spawn")


class WouldWaitError(Exception):
    pass


def stop_waiting() -> None:
    raise WouldWaitError


def keys_in(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in files_in_cache(root)}


def lose_database(root: Path) -> None:
    (root / LEDGER / "entries.sqlite").unlink()


def use(disk: Disk, *keys: str, voluntary: bool = False) -> bool:
    """Reserves entries, writes them and gives them up."""
    wanted = {key: SIZES[key] for key in keys}
    with disk.holder() as holder:
        if not disk.reserve(wanted, holder, voluntary=voluntary, waiting=stop_waiting):
            return False
        for key, size in wanted.items():
            put(disk.root, key, size)
    return True


def test_usage_is_what_lies_there_and_what_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free if path == tmp_path else 1 / 0)
    disk = Disk(tmp_path / "not/yet")
    assert disk.usage() == (0, 800)
    monkeypatch.undo()
    disk = Disk(tmp_path, BUDGET)
    use(disk, *list(SIZES)[:1])
    assert disk.usage() == (next(iter(SIZES.values())), BUDGET)


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    for key in ("a/3", "b/4", "b/5", "a/3"):
        assert use(disk, key)
    assert use(disk, "a/2")
    assert keys_in(tmp_path) == {"a/3", "b/5", "a/2"}
    assert use(disk, "b/4")
    assert keys_in(tmp_path) == {"a/3", "a/2", "b/4"}


def test_no_more_goes_than_must(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    assert use(disk, "a/3", "b/4", "b/5")
    assert use(disk, "b/5")
    assert use(disk, "a/2")
    assert "b/5" in keys_in(tmp_path)
    assert len(keys_in(tmp_path)) == 3


def test_what_was_fetched_ahead_goes_last_and_never_for_another_fetched_ahead(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path, BUDGET)
    assert use(disk, "a/3", voluntary=True)
    assert use(disk, "b/4")
    assert use(disk, "a/2")
    assert use(disk, "b/5", voluntary=True)
    assert keys_in(tmp_path) == {"a/3", "a/2", "b/5"}
    assert use(disk, "b/4", voluntary=True)
    assert not use(disk, "a/2", voluntary=True)
    assert keys_in(tmp_path) == {"a/3", "b/5", "b/4"}
    assert use(disk, "a/1")
    assert "a/3" not in keys_in(tmp_path), "a needed one may take what was fetched ahead"


def test_what_was_fetched_ahead_outlives_what_was_used(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    assert use(disk, "a/3", voluntary=True)
    assert use(disk, "b/4", "b/5")
    assert use(disk, "a/2")
    assert "a/3" in keys_in(tmp_path)


def test_more_than_the_budget_is_refused_with_both_sizes(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 1_000_000)
    with (
        disk.holder() as holder,
        pytest.raises(DataError, match=r"1,000,001 bytes .* 1,000,000 bytes → .*--disk-budget"),
    ):
        disk.reserve({"a": 1, "b": 1_000_000}, holder)


def test_what_one_thread_holds_counts_for_its_next_request(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    with disk.holder() as weights, disk.holder() as tokenizer:
        disk.reserve({"weights": 90}, weights)
        with pytest.raises(DataError, match="101 bytes"):
            disk.reserve({"tokenizer": 11}, tokenizer)
        assert disk.reserve({"weights": 90, "tokenizer": 10}, tokenizer)


def test_without_a_budget_most_of_the_free_space_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "old", 100)

    def free(_path: Path) -> "shutil._ntuple_diskusage":
        return shutil._ntuple_diskusage(10_000, 9_900, 1000)

    monkeypatch.setattr(shutil, "disk_usage", free)
    disk = Disk(tmp_path)
    with disk.holder() as holder:
        with pytest.raises(DataError, match=r"901 bytes .* 900 may be used → .*EIGENTRACE_CACHE"):
            disk.reserve({"new": 901}, holder)
        assert disk.reserve({"new": 800}, holder)
        assert keys_in(tmp_path) == {"old"}
    with disk.holder() as holder:
        assert disk.reserve({"newer": 900}, holder)
        assert keys_in(tmp_path) == set()


def test_a_partial_file_counts_in_full_though_its_holder_is_gone(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    with disk.holder() as holder:
        disk.reserve({"a/1": 60}, holder, voluntary=True)
        put(tmp_path, "a/1" + INCOMPLETE, 1)
    assert not use(disk, "a/2", "7", voluntary=True)
    assert use(disk, "a/2", voluntary=True)
    assert keys_in(tmp_path) == {"a/1" + INCOMPLETE, "a/2"}


def test_files_that_a_lost_ledger_knew_are_counted(tmp_path: Path) -> None:
    assert use(Disk(tmp_path, BUDGET), "a/1", "a/3")
    put(tmp_path, "b/6" + INCOMPLETE, 10)
    lose_database(tmp_path)
    with Disk(tmp_path, BUDGET).holder() as holder:
        assert Disk(tmp_path, BUDGET).reserve({"7": 5}, holder, voluntary=True)
        assert bytes_in_cache(tmp_path) <= BUDGET - 5


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    disk = Disk(tmp_path, BUDGET)
    path = put(tmp_path, "a/1", 60)
    assert disk.verified({path: "h"}) == set()
    disk.remember(path, "h")
    assert Disk(tmp_path, BUDGET).verified({path: "h"}) == {path}
    assert disk.verified({path: "other"}) == set()
    os.utime(path, (1, 1))
    assert disk.verified({path: "h"}) == set()
    path.unlink()
    assert disk.verified({path: "h"}) == set()


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "_POLL_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
def test_a_needed_request_waits_until_there_is_room_and_tells_so(tmp_path: Path) -> None:
    disk, waited = Disk(tmp_path, BUDGET), threading.Event()

    def second() -> None:
        with disk.holder() as holder:
            disk.reserve({"a/2": 40, "7": 5}, holder, waiting=waited.set)
            put(tmp_path, "a/2", 40)

    with disk.holder() as holder:
        disk.reserve({"a/1": 60}, holder)
        put(tmp_path, "a/1", 60)
        thread = in_thread(second)
        assert waited.wait(30)
        assert keys_in(tmp_path) == {"a/1"}
    thread.join(30)
    assert keys_in(tmp_path) == {"a/2"}


@pytest.mark.usefixtures("quick")
def test_of_two_that_wait_for_each_other_one_gives_way(tmp_path: Path) -> None:
    disk, both, refused, done = Disk(tmp_path, BUDGET), threading.Barrier(2), [], []

    def hold_two(first: str, second: str) -> None:
        try:
            with disk.holder() as weights, disk.holder() as tokenizer:
                disk.reserve({first: 50}, weights)
                both.wait(30)
                disk.reserve({second: 10}, tokenizer)
                done.append(first)
        except OSError as error:
            refused.append(str(error))

    threads = [in_thread(partial(hold_two, f"weights{n}", f"more{n}")) for n in range(2)]
    for thread in threads:
        thread.join(60)
    assert len(done) == len(refused) == 1
    assert "--disk-budget" in refused[0]


def test_a_process_that_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    root, told = tmp_path / "root", tmp_path / "told"
    process = _PROCESSES.Process(target=hold_for_ever, args=(root, told))
    process.start()
    while not told.exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(WouldWaitError):
        use(Disk(root, BUDGET), "a/2", "b/6")
    process.kill()
    process.join()
    assert len(list((root / LEDGER / "holders").iterdir())) == 1
    assert use(Disk(root, BUDGET), "a/2", "b/6")
    assert keys_in(root) == {"a/2", "b/6"}
    assert list((root / LEDGER / "holders").iterdir()) == []


@contextmanager
def standing_still(root: Path) -> Iterator[None]:
    """Lets nobody reserve or delete, so that what is on disk can be counted."""
    with (root / LEDGER / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_several_processes_keep_within_the_budget_though_one_is_killed(tmp_path: Path) -> None:
    Disk(tmp_path, BUDGET).verified({})
    processes = [_PROCESSES.Process(target=churn, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        with standing_still(tmp_path):
            now = bytes_in_cache(tmp_path)
        assert now <= BUDGET
        most = max(most, now)
        time.sleep(0.002)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-9, 0, 0]
    assert most > BUDGET / 2
