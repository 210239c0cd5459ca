"""The state of a run that its driver publishes beside the results."""

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import StoreError
from jobs.place import Place
from orchestrator import live
from orchestrator.live import Live, read_live, telling
from orchestrator.progress import Running, Snapshot
from orchestrator.status import live_lines

CELL = "a" * 64
SNAPSHOT = Snapshot(
    state="running",
    stages=(("fetch", 2, 3, 0), ("geometry", 1, 4, 1)),
    running=(Running(CELL, "geometry suite/model@step1", "10.0.0.3 pid 812", 75.2, 0.25),),
    failures=(("b" * 64, "loss suite/model@step2", "data: too short"),),
    workers_ready=3,
    workers_wanted=4,
    cells_per_minute=12.4,
    remaining_seconds=130,
    seconds=61.0,
)


def _note(text: str) -> None:
    raise AssertionError(text)


def test_what_is_told_can_be_read_until_the_run_ends(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert read_live(place) is None
    with telling(place, "pico", _note) as publish:
        publish(lambda: SNAPSHOT)
        found = read_live(place)
        assert found is not None
        assert found.snapshot == SNAPSHOT
        assert found.study == "pico"
        assert not found.silent
    assert read_live(place) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_told_only_as_often_as_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 1000.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def snapshot() -> Snapshot:
        nonlocal asked
        asked += 1
        return SNAPSHOT

    with telling(Place(tmp_path), "pico", _note) as publish:
        for _ in range(100):
            publish(snapshot)
            now += 0.1
    assert asked == 10


def test_a_run_that_cannot_be_told_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    with telling(Place(tmp_path / "file" / "results"), "pico", notes.append) as publish:
        for _ in range(3):
            publish(lambda: SNAPSHOT)
    assert len(notes) == 2
    assert "`status` cannot show this run" in notes[0]


def _wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_told_before_it_has_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_EVERY_SECONDS", {True: 0.02})
    place = Place(tmp_path)
    with telling(place, "pico", _note) as publish:
        _wait_for(lambda: read_live(place) is not None)
        found = read_live(place)
        assert found is not None
        assert found.snapshot.state == "starting"
        (line,) = live_lines(found)
        assert line.startswith("starting since 0 s, no workers yet: study pico on ")
        # It goes on saying so, however long the workers take.
        _wait_for(lambda: read_live(place) != found and not list(tmp_path.glob("*.tmp")))
        publish(lambda: SNAPSHOT)
        time.sleep(0.1)
        running = read_live(place)
        assert running is not None
        assert running.snapshot == SNAPSHOT
    with telling(place, "pico", _note):  # Interrupted before it has workers.
        _wait_for(lambda: read_live(place) is not None)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_waits_leaves_the_other_ones_state_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_EVERY_SECONDS", {True: 0.02})
    place = Place(tmp_path)
    with telling(place, "pico", _note) as publish:
        publish(lambda: SNAPSHOT)
        monkeypatch.setattr(platform, "node", lambda: "another")
        with telling(place, "smoke", _note):
            time.sleep(0.1)
        found = read_live(place)
        assert found is not None
        assert found.study == "pico"
        # Nobody is left to be disturbed once the other one has fallen silent.
        monkeypatch.setattr(live, "_SILENT_SECONDS", 0.0)
        with telling(place, "smoke", _note):
            _wait_for(lambda: (found := read_live(place)) is not None and found.study == "smoke")


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    for text in ('{"snapshot": {"what": 1}, "written": 0}', "{"):
        (tmp_path / ".live.json").write_text(text)
        with pytest.raises(StoreError, match="of another version"):
            read_live(Place(tmp_path))


def test_lines_name_the_cells_at_work_and_their_nodes() -> None:
    found = Live("pico", "head", 7, "raysubmit_1", 2.0, SNAPSHOT)
    text = "\n".join(live_lines(found))
    assert "running since 1 min 1 s: study pico on head (process 7, Ray job raysubmit_1)" in text
    assert "fetch 2/3 · geometry 1/4 (1 failed) · 12 cells/min · about 2 min 10 s left" in text
    assert "3 of 4 workers" in text
    assert "geometry suite/model@step1 [aaaaaaaaaaaa] on 10.0.0.3 pid 812, 1 min 15 s, 25%" in text
    assert "failed: loss suite/model@step2 [bbbbbbbbbbbb] data: too short" in text


def test_a_silent_driver_is_not_taken_for_a_live_one() -> None:
    found = Live("pico", "head", 7, "", live._SILENT_SECONDS + 1, SNAPSHOT)
    assert live_lines(found)[0].startswith("a run has fallen silent")
    assert live_lines(None) == ["no run is at work on these results"]


def test_many_running_cells_are_cut() -> None:
    many = replace(SNAPSHOT, running=SNAPSHOT.running * 25)
    lines = live_lines(Live("pico", "head", 7, "", 0.0, many))
    assert "  … and 5 more" in lines


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".live.json").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*\.live\.json"):
        read_live(Place(tmp_path))
