"""Files of the hub are held once, within the budget, and nothing else with them."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from jobs.errors import DataError
from jobs.sources import HubFolder
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub
from tests.workers.supplied import (
    FILES,
    NAME,
    blobs,
    fetch,
    keeps,
    numbered,
    source,
    stored,
    unheard,
)
from workers import download
from workers.disk import LEDGER
from workers.supply import HubCache

_PROCESSES = multiprocessing.get_context("spawn")


pytestmark = pytest.mark.usefixtures("waits")


def test_a_folder_has_the_files_and_they_come_once(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    for _ in range(2):
        assert fetch(HubCache(tmp_path), wanted) == FILES
    assert local_hub.sent() == wanted.size
    assert len(local_hub.requests) == len(FILES)
    found = scan_cache_dir(tmp_path / "hub")
    assert [repository.repo_id for repository in found.repos] == [NAME]
    assert found.size_on_disk == wanted.size


def test_what_comes_and_what_was_there_is_counted(
    local_hub: LocalHub, tmp_path: Path, counted: Callable[[str, str], float]
) -> None:
    wanted, ahead = source(local_hub, FILES), numbered(local_hub, 1)
    cache = HubCache(tmp_path, 10**6)
    assert cache.usage() == (0, 10**6)
    local_hub.faults.cut("*.safetensors", 1000)
    assert cache.prefetch(ahead)
    fetch(cache, wanted)
    fetch(cache, ahead)
    assert counted("fetched_bytes", "hub") == local_hub.sent() == wanted.size + ahead.size
    assert counted("cache_files", "miss") == len(FILES)
    assert counted("cache_files", "hit") == 1
    assert cache.usage() == (wanted.size + ahead.size, 10**6)


def test_a_folder_has_no_file_that_was_not_asked_for(local_hub: LocalHub, tmp_path: Path) -> None:
    whole = source(local_hub, {**FILES, "pytorch_model.bin": b"other weights"})
    cache = HubCache(tmp_path)
    for path in ("pytorch_model.bin", "model.safetensors"):
        part = HubFolder(NAME, whole.commit, tuple(f for f in whole.files if f.path == path))
        assert set(fetch(cache, part)) == {path}
    assert set(fetch(cache, whole)) == {*FILES, "pytorch_model.bin"}
    assert local_hub.sent() == whole.size


def test_revisions_share_what_is_equal(local_hub: LocalHub, tmp_path: Path) -> None:
    first = source(local_hub, FILES)
    other = {**FILES, "model.safetensors": b"trained", "copy.safetensors": b"trained"}
    second = source(local_hub, other)
    cache = HubCache(tmp_path)
    assert fetch(cache, first) == FILES
    assert fetch(cache, second) == other
    assert local_hub.sent() == first.size + len(b"trained")
    assert stored(tmp_path) == first.size + len(b"trained")


def test_the_least_recently_used_goes_and_comes_again(local_hub: LocalHub, tmp_path: Path) -> None:
    cache = HubCache(tmp_path, 2500)
    first, second, third = (numbered(local_hub, number) for number in range(3))
    for wanted in (first, second, first, third):
        fetch(cache, wanted)
        assert stored(tmp_path) <= 2500
    assert [keeps(tmp_path, wanted) for wanted in (first, second, third)] == [True, False, True]
    assert fetch(cache, second) == {"model.safetensors": b"\1" * 1000}
    assert [keeps(tmp_path, wanted) for wanted in (first, second, third)] == [False, True, True]


def test_what_is_held_stays(local_hub: LocalHub, tmp_path: Path) -> None:
    cache = HubCache(tmp_path, 2000)
    first, second, third = (numbered(local_hub, number) for number in range(3))
    told = threading.Event()
    fetched: list[dict[str, bytes]] = []

    def fetch_third() -> None:
        with HubCache(tmp_path, 2000).hold(third, lambda _done, _total: told.set()) as folder:
            fetched.append(files_in(folder))

    with cache.hold(first, unheard) as folder:
        with cache.hold(second, unheard):
            assert not cache.prefetch(third)
            thread = threading.Thread(target=fetch_third)
            thread.start()
            assert told.wait(30), "it tells that it waits"
            assert keeps(tmp_path, first)
            assert keeps(tmp_path, second)
        thread.join(30)
        assert fetched == [{"model.safetensors": b"\2" * 1000}]
        assert files_in(folder) == {"model.safetensors": b"\0" * 1000}


def test_what_is_larger_than_the_budget_is_refused(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted, cache = source(local_hub, FILES), HubCache(tmp_path, 1000)
    with pytest.raises(DataError, match=f"{wanted.size:,} bytes .* 1,000 bytes → .*--disk-budget"):
        fetch(cache, wanted)
    assert not cache.prefetch(wanted)
    assert not local_hub.requests


def test_what_was_fetched_ahead_is_there(local_hub: LocalHub, tmp_path: Path) -> None:
    cache = HubCache(tmp_path, 2500)
    first, second, third = (numbered(local_hub, number) for number in range(3))
    assert fetch(cache, first)
    assert cache.prefetch(second)
    assert cache.prefetch(third)
    assert not keeps(tmp_path, first)
    assert not cache.prefetch(first), "what was fetched ahead stays until it is used"
    before = len(local_hub.requests)
    for wanted in (second, third):
        assert fetch(cache, wanted)
    assert len(local_hub.requests) == before


def test_what_fails_ahead_is_told_when_it_is_held(
    local_hub: LocalHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workers")
    wanted, cache = source(local_hub, FILES), HubCache(tmp_path)
    local_hub.faults.refuse("*.safetensors", 404, times=2)
    assert not cache.prefetch(wanted)
    assert f"did not fetch {NAME} ahead: the hub has no model.safetensors" in caplog.text
    with pytest.raises(DataError, match=r"the hub has no model.safetensors"):
        fetch(cache, wanted)
    assert cache.prefetch(wanted)


def test_what_is_needed_goes_before_what_is_fetched_ahead(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(download, "_TRIES", 10**9)
    ahead, needed = numbered(local_hub, 1, 5000), numbered(local_hub, 2)
    hold = local_hub.faults.hold("/org/model1/*", 3000, times=None)
    done: list[bool | None] = []
    thread = threading.Thread(target=lambda: done.append(HubCache(tmp_path).prefetch(ahead)))
    thread.start()
    assert hold.reached.wait(30)
    # The other one has the turn, and nothing lets it finish.
    with HubCache(tmp_path).hold(needed, unheard):
        assert not done
    hold.release()
    thread.join(30)
    assert done == [True]
    assert keeps(tmp_path, ahead)


def test_progress_counts_bytes_up_to_all_of_them(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    local_hub.bandwidth.rate = 500_000
    told: list[tuple[int, int]] = []
    with HubCache(tmp_path).hold(wanted, lambda *progress: told.append(progress)):
        assert told[-1] == (wanted.size, wanted.size)
    counts = [done for done, _total in told]
    assert counts == sorted(counts)
    assert any(0 < count < wanted.size for count in counts)


class ClosedError(BaseException):
    pass


def test_who_listens_no_more_ends_the_download(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    local_hub.bandwidth.rate = 500_000

    def told(done: int, _total: int) -> None:
        if done > 20_000:
            raise ClosedError

    before = threading.active_count()
    with pytest.raises(ClosedError), HubCache(tmp_path).hold(wanted, told):
        pass
    assert not [t for t in threading.enumerate() if t.name == "download"], before
    assert not keeps(tmp_path, wanted)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert any(request.range for request in local_hub.matching("*.safetensors"))


def test_no_more_than_four_files_come_at_once(local_hub: LocalHub, tmp_path: Path) -> None:
    files = {f"{number}.json": bytes([number]) * 100 for number in range(12)}
    wanted = source(local_hub, files)
    hold = local_hub.faults.hold("*", 10, times=None)
    thread = threading.Thread(target=lambda: fetch(HubCache(tmp_path), wanted))
    thread.start()
    while max((request.together for request in list(local_hub.requests)), default=0) < 4:
        time.sleep(0.005)
    hold.release()
    thread.join(30)
    assert max(request.together for request in local_hub.requests) == 4


def test_the_users_own_cache_is_used_and_left_alone(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    for path in FILES:
        hf_hub_download(NAME, path, revision=wanted.commit)
    before = len(local_hub.requests)
    cache = HubCache(tmp_path, 10)
    assert cache.prefetch(wanted)
    assert fetch(cache, wanted) == FILES
    assert len(local_hub.requests) == before
    assert stored(tmp_path) == 0


def test_the_users_own_cache_is_not_trusted(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    theirs = [Path(hf_hub_download(NAME, path, revision=wanted.commit)) for path in FILES]
    theirs[0].resolve().write_bytes(b'{"a": 2}')
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert theirs[0].read_bytes() == b'{"a": 2}'
    theirs[1].unlink()
    assert fetch(HubCache(tmp_path), wanted) == FILES


def test_what_the_ledger_does_not_know_is_looked_at_again(
    local_hub: LocalHub, tmp_path: Path
) -> None:
    wanted = source(local_hub, FILES)
    fetch(HubCache(tmp_path), wanted)
    (tmp_path / "hub" / LEDGER / "entries.sqlite").unlink()
    wrong = next(path for path in blobs(tmp_path) if path.name == wanted.files[0].oid)
    wrong.write_bytes(b"#" * wanted.files[0].size)
    assert fetch(HubCache(tmp_path), wanted) == FILES
    assert local_hub.sent() == wanted.size + wanted.files[0].size
