"""Counts of a process: exact from many threads, and phases that are each other's remainder."""

import threading
import time
from collections import defaultdict

import pytest

from workers import tally


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_counts", defaultdict(float))


def _seconds(name: tally.Phase) -> float:
    return tally.counts().get(("phase_seconds", name), 0.0)


def test_counts_of_many_threads_add_up() -> None:
    def work() -> None:
        for _ in range(1000):
            tally.count("fetched_bytes", "hub", 3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.count("fetched_bytes", "results", 1)
    assert tally.counts() == {("fetched_bytes", "hub"): 24_000, ("fetched_bytes", "results"): 1}


def test_a_phase_leaves_out_what_is_within_it() -> None:
    began = time.perf_counter()
    with tally.phase("forward"):
        time.sleep(0.05)
        with tally.phase("fetch"):
            time.sleep(0.1)
        time.sleep(0.05)
    whole = time.perf_counter() - began
    assert _seconds("fetch") >= 0.1
    assert _seconds("forward") >= 0.1
    assert _seconds("fetch") + _seconds("forward") <= whole


def test_a_phase_counts_while_it_lasts_and_not_after() -> None:
    with tally.phase("train"):
        time.sleep(0.02)
        during = _seconds("train")
        assert during >= 0.02
    after = _seconds("train")
    time.sleep(0.02)
    assert during <= after == _seconds("train")


def test_a_phase_ends_with_an_error() -> None:
    def fail() -> None:
        with tally.phase("load"):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    before = _seconds("load")
    time.sleep(0.02)
    assert _seconds("load") == before


def test_a_function_can_be_a_phase() -> None:
    @tally.phase("fit")
    def fit(depth: int) -> int:
        time.sleep(0.01)
        return fit(depth - 1) + 1 if depth else 0

    assert fit(2) == 2
    assert 0.03 <= _seconds("fit") < 1


def test_threads_have_phases_of_their_own() -> None:
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with tally.phase("sample"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    with tally.phase("grade"):
        time.sleep(0.05)
    done.set()
    thread.join()
    assert _seconds("sample") >= 0.05
    assert _seconds("grade") >= 0.05
