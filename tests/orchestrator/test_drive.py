"""The loop: an interrupted run ends well, a hung cell is given up, rows count once kept."""

import io
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from jobs.cells import Cell
from jobs.events import Alive, Event, Failed, Finished, Progress, Started
from jobs.pico_spec import PicoSuite
from jobs.records import rows_table
from jobs.spec import Study
from orchestrator import drive as module
from orchestrator.drive import How, drive
from orchestrator.inline import Body, InlineExecutor
from orchestrator.interrupt import SIGNALS
from orchestrator.messages import SlotEvent, SlotOpened, TaskEnded
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView
from orchestrator.schedule import Scheduler
from orchestrator.store import Store
from tests.orchestrator.fake_cells import making
from workers.artifacts import Files, SharedFiles
from workers.telling import Task

CELLS = (making(0), making(1), making(2))
STUDY = Study(name="fake", suites=(PicoSuite(),))


@pytest.fixture(autouse=True)
def _heeded_signals() -> Iterator[None]:
    """Has signals heeded as on a terminal, whatever runs the tests."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _row() -> pa.Table:
    return rows_table("sequences", [{"dataset": "words"}])


def _finished(cell: Cell) -> Finished:
    return Finished(cell.id, (("sequences", _row()),))


def _drive(results: Path, body: Body, **limits: float) -> tuple[Scheduler, str]:
    out = io.StringIO()
    store = Store(results)
    view = ProgressView(CELLS, frozenset(), Console(file=out, width=200), 1)
    executor = InlineExecutor(SharedFiles(results), body)
    try:
        return drive(Plan(STUDY, CELLS), store, executor, view, How("cpu", 1, limits)), (
            out.getvalue()
        )
    finally:
        executor.close()


def _done(results: Path) -> set[str]:
    return set(Store(results).ledger().done)


def _interrupting(cell: Cell, number: int, seconds: float) -> Body:
    """A body that is interrupted while it works on a cell, which takes some more seconds."""

    def body(task: Task, _files: Files) -> Generator[Event | Alive, None, None]:
        for at_work in task.cells:
            yield Started(at_work.id)
            if at_work.id == cell.id:
                os.kill(os.getpid(), number)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    time.sleep(0.01)
                    yield Alive()
            yield _finished(at_work)

    return body


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_run_ends_what_it_began_and_begins_nothing(
    tmp_path: Path, number: int
) -> None:
    handlers = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        _drive(tmp_path / "results", _interrupting(CELLS[1], number, 0.2))
    assert _done(tmp_path / "results") == {CELLS[0].id, CELLS[1].id}
    assert handlers == [signal.getsignal(n) for n in SIGNALS]


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` sets it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    scheduler, out = _drive(tmp_path / "results", _interrupting(CELLS[1], signal.SIGHUP, 0.1))
    assert scheduler.finished
    assert "interrupted" not in out


def test_what_doesnt_end_in_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        _drive(tmp_path / "results", _interrupting(CELLS[1], signal.SIGTERM, 60))
    assert _done(tmp_path / "results") == {CELLS[0].id}


def test_a_second_interrupt_doesnt_wait(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _drive(tmp_path / "results", _interrupting(CELLS[1], signal.SIGTERM, 60))
    timer.join()
    assert _done(tmp_path / "results") == {CELLS[0].id}


def test_an_interrupt_at_the_last_cell_is_no_reason_to_say_that_the_run_was_cut(
    tmp_path: Path,
) -> None:
    scheduler, out = _drive(tmp_path / "results", _interrupting(CELLS[2], signal.SIGTERM, 0.1))
    assert scheduler.finished
    assert "interrupted: nothing new is begun" in out


def test_a_cell_without_headway_is_tried_again_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is alive all the time."""
    attempts: list[str] = []

    def body(task: Task, _files: Files) -> Generator[Event | Alive, None, None]:
        for cell in task.cells:
            yield Started(cell.id)
            if cell.id == CELLS[1].id:
                attempts.append(cell.id)
                while True:
                    time.sleep(0.01)
                    yield Alive()
            yield _finished(cell)

    monkeypatch.setattr("orchestrator.schedule._FIRST_BACKOFF_SECONDS", 0.01)
    scheduler, _ = _drive(tmp_path / "results", body, sequences=0.2)
    assert len(attempts) == 4
    assert scheduler.states[CELLS[1].id] == "failed"
    ledger = Store(tmp_path / "results").ledger()
    assert ledger.done == {CELLS[0].id, CELLS[2].id}
    assert ledger.failed[CELLS[1].id]["cause"] == "infrastructure"
    assert ledger.failed[CELLS[1].id]["attempts"] == len(attempts)


def test_a_receipt_is_not_written_again(tmp_path: Path) -> None:
    """Where the worker has written the rows, the driver only takes note."""

    def body(task: Task, _files: Files) -> Generator[Event | Alive, None, None]:
        for cell in task.cells:
            yield Started(cell.id)
            yield Progress(cell.id, 1, 2)
            yield Finished(cell.id, ())

    scheduler, _ = _drive(tmp_path / "results", body)
    assert set(scheduler.states.values()) == {"done"}
    assert _done(tmp_path / "results") == set()


def test_a_failure_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    def body(task: Task, _files: Files) -> Generator[Event | Alive, None, None]:
        for cell in task.cells:
            yield Started(cell.id)
            if cell.id == CELLS[1].id:
                yield Failed(cell.id, "data", "it is empty", "fill it", "a traceback")
            else:
                yield _finished(cell)

    _, out = _drive(tmp_path / "results", body)
    ledger = Store(tmp_path / "results").ledger()
    assert ledger.done == {CELLS[0].id, CELLS[2].id}
    assert ledger.failed[CELLS[1].id]["traceback"] == "a traceback"
    assert "failed: sequences words1 (data): it is empty → fill it" in out


class _Stalled:
    """Two slots that say all they have to say, in two halves; between them, nobody listens."""

    workers = 2, 2

    def __init__(self) -> None:
        self._told: list[Event | SlotEvent] = [SlotOpened("a", ""), SlotOpened("b", "")]
        self._later: list[Event | SlotEvent] = []
        self.abandoned: list[str] = []

    def resize(self, demand: Mapping[str, int]) -> None:
        assert set(demand) == {""}

    def start(self, slot: str, task: Task) -> None:
        (cell,) = task.cells
        self._told.append(Started(cell.id))
        self._later += [_finished(cell), TaskEnded(slot)]

    def prepare(self, slot: str, cells: tuple[Cell, ...]) -> None:
        raise AssertionError(slot)

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        if not self._told:
            time.sleep(3)
            self._told, self._later = self._later, []
        return self._told.pop(0) if self._told else None

    def abandon(self, slot: str, message: str) -> None:
        self.abandoned.append(slot)

    def release(self, slot: str) -> None:
        raise AssertionError(slot)

    def close(self) -> None:
        pass


def test_a_stall_of_the_loop_itself_makes_no_worker_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.slots.SILENCE_SECONDS", 2.5)
    executor = _Stalled()
    view = ProgressView(CELLS, frozenset(), Console(quiet=True), 2)
    scheduler = drive(
        Plan(STUDY, CELLS), Store(tmp_path / "results"), executor, view, How("cpu", 1)
    )
    assert executor.abandoned == []
    assert set(scheduler.states.values()) == {"done"}
