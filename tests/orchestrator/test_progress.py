"""What the user sees: counts, what really runs, and a sober guess at the time that is left."""

import io
import time

import pytest
from rich.console import Console

from jobs.cells import Cell
from jobs.events import Failed, Finished, Progress, Started
from orchestrator.progress import ProgressView, duration
from tests.orchestrator.fake_cells import making, measuring

CELLS = [making(0), measuring(0, 1), measuring(1, 1)]
FIRST, SECOND, THIRD = (cell.id for cell in CELLS)


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def _view(terminal: bool = False, workers: int = 1) -> tuple[ProgressView, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, highlight=False)
    return ProgressView(CELLS, frozenset({FIRST}), console, workers), out


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_line_counts_by_stage_and_names_what_runs(clock: _Clock) -> None:
    view, _ = _view()
    states = {FIRST: "done", SECOND: "running", THIRD: "failed"}
    view.show(Started(SECOND), states, (1, 1))
    view.show(Progress(SECOND, 1, 4), states, (1, 1))
    view.show(Failed(THIRD, "data", "what"), states, (1, 1))
    assert "1/3 cells · fetch 1/1 · evals 0/2 (1 failed)" in view.line()
    assert view.line().endswith("running: loss suite/model@step1 25 %")
    states[SECOND] = "done"
    view.show(Finished(SECOND, (), {"seconds": 3.0}), states, (1, 1))
    assert "running" not in view.line()


def test_a_cell_of_a_lost_worker_no_longer_runs(clock: _Clock) -> None:
    view, _ = _view()
    states = {FIRST: "done", SECOND: "running", THIRD: "waiting"}
    view.show(Started(SECOND), states, (1, 1))
    states[SECOND] = "waiting"
    view.show(None, states, (1, 1))
    assert "running" not in view.line()


def test_the_remaining_time_follows_what_was_measured(clock: _Clock) -> None:
    view, _ = _view()
    states = {FIRST: "done", SECOND: "running", THIRD: "waiting"}
    assert view.remaining_seconds() == 4
    view.show(Started(SECOND), states, (1, 1))
    clock.now += 30
    view.show(Progress(SECOND, 1, 4), states, (1, 1))
    assert view.remaining_seconds() == 90 + 2
    states[SECOND] = "done"
    view.show(Finished(SECOND, (), {"seconds": 60.0}), states, (1, 1))
    assert view.remaining_seconds() == 60
    states[THIRD] = "done"
    assert view.remaining_seconds() == 0


def test_workers_share_the_remaining_time_but_not_a_cell(clock: _Clock) -> None:
    view, _ = _view(workers=2)
    assert view.remaining_seconds() == 2
    view, _ = _view(workers=8)
    assert view.remaining_seconds() == 2


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock: _Clock) -> None:
    view, out = _view()
    states = {FIRST: "done", SECOND: "waiting", THIRD: "waiting"}
    with view:
        for _ in range(5):
            clock.now += 4
            view.show(None, states, (1, 1))
    assert len(out.getvalue().splitlines()) == 2


def test_failures_are_told_at_once_and_literally() -> None:
    view, out = _view()
    view.failed(CELLS[1], Failed(SECOND, "data", "found [/red] there", "remove it"))
    assert out.getvalue() == (
        "failed: loss suite/model@step1 (data): found [/red] there → remove it\n"
    )


def test_names_that_look_like_markup_are_shown_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "label", property(lambda _: "loss [/bold]"))
    for terminal in (False, True):
        view, out = _view(terminal)
        with view:
            view.show(Started(SECOND), {FIRST: "done", SECOND: "running", THIRD: "waiting"}, (1, 1))
        assert "loss [/bold]" in out.getvalue()
