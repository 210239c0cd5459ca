"""Processes share a cache: each file comes once, and the budget holds, whoever is killed."""

import fcntl
import multiprocessing
import time
from pathlib import Path

import pytest

from tests.hub.server import LocalHub
from tests.workers.holders import hold_each
from tests.workers.supplied import (
    FILES,
    WEIGHTS,
    fetch,
    numbered,
    source,
    stored,
)
from workers.disk import LEDGER
from workers.supply import HubCache

_PROCESSES = multiprocessing.get_context("spawn")


pytestmark = pytest.mark.usefixtures("waits")


def test_of_two_processes_one_fetches(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    root = tmp_path / "cache"
    hold = local_hub.faults.hold("*.safetensors", 1000)
    processes = [
        _PROCESSES.Process(target=hold_each, args=(root, None, [wanted], 1)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    # Both have pinned the files, and one waits for the other.
    while len(list(root.glob(f"hub/{LEDGER}/holders/*"))) < 2 or not hold.reached.is_set():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    hold.release()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert local_hub.sent() == wanted.size
    assert len(local_hub.requests) == len(FILES)


def test_a_killed_process_leaves_what_it_fetched(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    hold = local_hub.faults.hold("*.safetensors", 60_000)
    process = _PROCESSES.Process(target=hold_each, args=(tmp_path, None, [wanted], 1))
    process.start()
    while stored(tmp_path) < wanted.size - len(WEIGHTS) + 60_000:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    hold.release()
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert [r.range for r in local_hub.matching("*.safetensors")] == [None, "bytes=60000-"]
    assert len(local_hub.matching("*.json")) == 2


def test_several_processes_keep_within_the_budget(local_hub: LocalHub, tmp_path: Path) -> None:
    sources = [numbered(local_hub, number) for number in range(4)]
    (tmp_path / "hub" / LEDGER).mkdir(parents=True)
    processes = [
        _PROCESSES.Process(
            target=hold_each, args=(tmp_path, 2000, [*sources[turn:], *sources[:turn]], 2)
        )
        for turn in range(2)
    ]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        # With the ledger locked nothing goes, so that what is there can be counted.
        with (tmp_path / "hub" / LEDGER / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now = stored(tmp_path)
        assert now <= 2000
        most = max(most, now)
        time.sleep(0.002)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    # How full it was seen depends on when it was looked at.
    assert most > 0
