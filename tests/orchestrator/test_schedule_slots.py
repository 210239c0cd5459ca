"""The scheduler: slots that fall silent, make no headway, retire or are to be drained."""

from collections.abc import Sequence

import pytest

from jobs.cells import Cell
from jobs.events import Event, Failed, Finished, Progress, Started
from orchestrator.messages import (
    Abandon,
    Action,
    Release,
    SlotAlive,
    SlotLost,
    SlotOpened,
    SlotRetired,
    Start,
    TaskEnded,
)
from orchestrator.schedule import RETRIES, Scheduler
from orchestrator.slots import SILENCE_SECONDS
from tests.orchestrator.fake_cells import heading, making, measuring


def _started(actions: Sequence[Action]) -> list[str]:
    return [c.id for a in actions if isinstance(a, Start) for c in a.cells]


def _abandoned(actions: Sequence[Action]) -> list[str]:
    return [a.slot for a in actions if isinstance(a, Abandon)]


def _alive_until(scheduler: Scheduler, slot: str, begin: int, end: int) -> list[Action]:
    """Lets a worker say every five seconds that it is alive."""
    actions: list[Action] = []
    for now in range(begin, end, 5):
        actions += scheduler.handle(SlotAlive(slot), now) + scheduler.tick(now)
    return actions


def test_a_silent_busy_slot_is_abandoned_once() -> None:
    scheduler = Scheduler([making(0)])
    scheduler.handle(SlotOpened("a"), 10)
    assert scheduler.tick(69.9) == []
    (abandon,) = scheduler.tick(71)
    assert isinstance(abandon, Abandon)
    assert abandon.slot == "a"
    assert "61 s" in abandon.message
    assert "hangs" in abandon.message
    assert scheduler.handle(SlotAlive("a"), 72) == []
    assert scheduler.tick(1000) == []
    assert scheduler.handle(SlotLost("a", "infrastructure", abandon.message), 1000) == []
    assert scheduler.wake_time == 1002


@pytest.mark.parametrize("word", ["alive", "started", "progress", "finished", "failed"])
def test_every_word_of_a_slot_counts_as_heard(word: str) -> None:
    cells = [measuring(number, 1) for number in range(2)]
    words: dict[str, Event | SlotAlive] = {
        "alive": SlotAlive("a"),
        "started": Started(cells[0].id),
        "progress": Progress(cells[0].id, 1, 2),
        "finished": Finished(cells[0].id, ()),
        "failed": Failed(cells[0].id, "user", "wrong"),
    }
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(words[word], 59)
    assert scheduler.tick(59 + SILENCE_SECONDS - 1) == []
    assert _abandoned(scheduler.tick(59 + SILENCE_SECONDS)) == ["a"]


def test_idle_slots_are_never_abandoned() -> None:
    scheduler = Scheduler([making(0)])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    scheduler.handle(Finished(making(0).id, ()), 1)
    scheduler.handle(TaskEnded("a"), 1)
    assert scheduler.tick(10_000) == []
    assert scheduler.wake_time is None


def test_words_that_lie_unread_are_no_silence() -> None:
    """The driver itself was asleep: it reads what has come before it judges anybody."""
    cells = [making(number) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    assert scheduler.handle(SlotAlive("a"), 500) == []
    assert scheduler.handle(SlotAlive("b"), 500) == []
    assert scheduler.tick(500) == []


def test_a_silent_slot_is_charged_to_infrastructure_and_its_cell_goes_elsewhere() -> None:
    cell = making(0)
    scheduler = Scheduler([cell])
    scheduler.handle(SlotOpened("a"), 0)
    (abandon,) = scheduler.tick(60)
    assert isinstance(abandon, Abandon)
    scheduler.handle(SlotLost("a", "infrastructure", abandon.message), 60)
    assert scheduler.handle(SlotOpened("b"), 60) == []
    assert _started(scheduler.tick(62)) == [cell.id]


def test_a_cell_that_ends_just_before_its_worker_is_killed_counts() -> None:
    first, second = making(0), making(1)
    scheduler = Scheduler([first, second])
    scheduler.handle(SlotOpened("a"), 0)
    assert _abandoned(scheduler.tick(60)) == ["a"]
    assert scheduler.handle(Finished(first.id, ()), 60) == []
    assert scheduler.handle(TaskEnded("a"), 60) == []  # Its kill is under way: no second task.
    assert scheduler.handle(SlotLost("a", "infrastructure", "killed"), 60) == []
    assert scheduler.states == {first.id: "done", second.id: "waiting"}


@pytest.mark.parametrize("kinds", [("loss", "head"), ("head", "loss")])
def test_an_alive_slot_without_headway_is_abandoned(kinds: tuple[str, str]) -> None:
    """Before any cell has started, the most patient one counts."""
    cells = [measuring(0, 1), heading(0, 1)]
    scheduler = Scheduler(cells, limits=dict(zip(kinds, (100, 300), strict=True)))
    scheduler.handle(SlotOpened("a"), 0)
    assert _alive_until(scheduler, "a", 0, 300) == []
    (abandon,) = _alive_until(scheduler, "a", 300, 305)
    assert isinstance(abandon, Abandon)
    assert "300 s" in abandon.message
    assert "alive" in abandon.message
    assert f"--limit {kinds[1]}=300" in abandon.message


def _news(cell: Cell) -> list[Event]:
    return [
        Progress(cell.id, 1, 2),
        Finished(cell.id, ()),
        Failed(cell.id, "user", "wrong"),
        Started(cell.id),
    ]


@pytest.mark.parametrize("number", range(4))
def test_news_of_any_cell_is_headway(number: int) -> None:
    cells = [measuring(0, 1), measuring(1, 1)]
    scheduler = Scheduler(cells, limits={"loss": 100})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(cells[0].id), 0)
    assert _alive_until(scheduler, "a", 0, 90) == []
    scheduler.handle(_news(cells[1])[number], 90)
    assert _alive_until(scheduler, "a", 95, 190) == []
    assert _abandoned(_alive_until(scheduler, "a", 190, 195)) == ["a"]


def test_the_most_patient_of_the_cells_in_progress_counts() -> None:
    quick, slow, never = measuring(0, 1), heading(0, 1), heading(1, 1)
    scheduler = Scheduler([quick, slow, never], limits={"loss": 10, "head": 200})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(quick.id), 0)
    scheduler.handle(Started(slow.id), 0)
    assert _alive_until(scheduler, "a", 0, 200) == []
    scheduler.handle(Finished(slow.id, ()), 199)
    assert scheduler.tick(208) == []
    assert scheduler.wake_time == 209
    assert _abandoned(scheduler.tick(209)) == ["a"]


def test_a_cell_that_is_less_patient_than_the_one_before_is_looked_at_in_time() -> None:
    slow, quick = heading(0, 1), measuring(0, 1)
    scheduler = Scheduler([slow, quick], limits={"loss": 10, "head": 200})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(slow.id), 0)
    scheduler.handle(Finished(slow.id, ()), 1)
    scheduler.handle(Started(quick.id), 1)
    wake = scheduler.wake_time
    assert wake is not None
    assert wake <= 11
    assert scheduler.tick(wake) == []
    assert _abandoned(scheduler.tick(11)) == ["a"]


def test_the_wait_between_two_cells_is_as_long_as_the_most_patient_one_allows() -> None:
    quick, slow = measuring(0, 1), heading(0, 1)
    scheduler = Scheduler([quick, slow], limits={"loss": 10, "head": 100})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Finished(quick.id, ()), 0)
    assert _alive_until(scheduler, "a", 0, 100) == []
    scheduler.handle(Finished(slow.id, ()), 99)
    assert _alive_until(scheduler, "a", 100, 199) == []
    assert _abandoned(_alive_until(scheduler, "a", 199, 204)) == ["a"]  # It never ends its task.


def test_without_a_limit_of_the_user_the_patience_of_the_kind_counts() -> None:
    cell = measuring(0, 1)
    scheduler = Scheduler([cell], limits={"head": 10})
    scheduler.handle(SlotOpened("a"), 0)
    assert _alive_until(scheduler, "a", 0, int(cell.work.patience)) == []
    assert _abandoned(_alive_until(scheduler, "a", 3600, 3605)) == ["a"]


def test_wake_time_is_never_later_than_what_is_due() -> None:
    scheduler = Scheduler([making(0), making(1)], limits={"sequences": 30})
    assert scheduler.wake_time is None
    scheduler.handle(SlotOpened("a"), 5)
    assert scheduler.wake_time == 35
    scheduler.handle(SlotOpened("b"), 10)
    scheduler.handle(Failed(making(1).id, "infrastructure", "lost"), 15)
    assert scheduler.wake_time == 17


def test_a_free_slot_that_retires_is_released_at_once() -> None:
    scheduler = Scheduler([making(0)])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    assert scheduler.handle(SlotRetired("b"), 0) == [Release("b")]
    assert scheduler.handle(SlotRetired("b"), 0) == []
    scheduler.handle(Failed(making(0).id, "preempted", "gone"), 0)
    assert _started(scheduler.handle(SlotOpened("c"), 0)) == [making(0).id]


def test_a_busy_slot_that_retires_ends_its_task_first() -> None:
    first, second = making(0), making(1)
    scheduler = Scheduler([first, second])
    scheduler.handle(SlotOpened("a"), 0)
    assert scheduler.handle(SlotRetired("a"), 0) == []
    assert scheduler.handle(Finished(first.id, ()), 1) == []
    assert scheduler.handle(TaskEnded("a"), 1) == [Release("a")]
    assert scheduler.states == {first.id: "done", second.id: "waiting"}
    assert _started(scheduler.handle(SlotOpened("b"), 2)) == [second.id]


def test_a_retired_slot_that_is_lost_or_silent_is_treated_as_any_other() -> None:
    cell = making(0)
    scheduler = Scheduler([cell], retries={**RETRIES, "infrastructure": 0})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotRetired("a"), 0)
    assert _abandoned(scheduler.tick(60)) == ["a"]
    (quarantine,) = scheduler.handle(SlotLost("a", "infrastructure", "killed"), 61)
    assert not isinstance(quarantine, Release)
    assert scheduler.states == {cell.id: "failed"}


def test_nothing_starts_while_it_drains_but_results_are_taken_in() -> None:
    first, second, third = making(0), making(1), making(2)
    scheduler = Scheduler([first, second, third])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    scheduler.drain()
    assert not scheduler.drained
    assert scheduler.handle(SlotOpened("c"), 0) == []
    assert scheduler.handle(Finished(first.id, ()), 1) == []
    assert scheduler.handle(TaskEnded("a"), 1) == []
    assert not scheduler.drained
    assert scheduler.handle(SlotLost("b", "infrastructure", "gone"), 1) == []
    assert scheduler.tick(100) == []
    assert scheduler.drained
    assert not scheduler.stuck
    assert scheduler.states == {first.id: "done", second.id: "waiting", third.id: "waiting"}


def test_a_slot_that_hangs_while_it_drains_is_abandoned() -> None:
    scheduler = Scheduler([making(0)])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.drain()
    assert _abandoned(scheduler.tick(60)) == ["a"]
    assert not scheduler.drained
    scheduler.handle(SlotLost("a", "infrastructure", "killed"), 60)
    assert scheduler.drained
