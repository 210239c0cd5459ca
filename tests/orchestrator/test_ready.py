"""Promises: who is to fetch what ahead, and who runs it in the end."""

from collections.abc import Sequence

from jobs.cells import Cell
from jobs.events import Failed, Finished, Started
from orchestrator.messages import (
    Action,
    Prepare,
    SlotLost,
    SlotOpened,
    SlotRetired,
    Start,
    TaskEnded,
)
from orchestrator.schedule import Scheduler
from tests.orchestrator.fake_cells import making, measuring

CHECKPOINTS = [measuring(0, group, hub=True) for group in range(8)]


def _told(actions: Sequence[Action]) -> list[tuple[str, str, str]]:
    """Returns what is to be done, where, with which checkpoint."""
    found = []
    for action in actions:
        assert isinstance(action, Start | Prepare)
        found.append((type(action).__name__, action.slot, _name(action.cells[0])))
    return found


def _name(cell: Cell) -> str:
    return str(cell.checkpoint.step) if cell.checkpoint else cell.label


def _end(scheduler: Scheduler, slot: str, now: float = 0) -> list[tuple[str, str, str]]:
    """Ends all cells of a slot well, then its task."""
    for cell in [cell for cell, where in scheduler.running.items() if where == slot]:
        assert scheduler.handle(Finished(cell, ()), now) == []
    return _told(scheduler.handle(TaskEnded(slot), now))


def test_a_busy_slot_fetches_the_next_two_and_runs_them_in_turn() -> None:
    scheduler = Scheduler(CHECKPOINTS[:4])
    opened = _told(scheduler.handle(SlotOpened("a"), 0))
    assert opened == [("Start", "a", "0"), ("Prepare", "a", "1"), ("Prepare", "a", "2")]
    assert _end(scheduler, "a") == [("Start", "a", "1"), ("Prepare", "a", "3")]
    assert _end(scheduler, "a") == [("Start", "a", "2")]
    assert _end(scheduler, "a") == [("Start", "a", "3")]
    assert _end(scheduler, "a") == []
    assert scheduler.finished


def test_promises_are_shared_out_evenly_once_all_are_ready() -> None:
    maker = making(0)
    cells = [measuring(0, group, (maker.id,), hub=True) for group in range(6)]
    scheduler = Scheduler([maker, making(1), *cells])
    for slot in "ab":
        scheduler.handle(SlotOpened(slot), 0)
    assert _told(scheduler.handle(Finished(maker.id, ()), 0)) == [
        *(("Prepare", slot, str(n)) for n, slot in enumerate("abab")),
    ]
    assert _told(scheduler.handle(SlotOpened("c"), 0)) == [
        ("Start", "c", "4"),
        ("Prepare", "c", "5"),
    ]


def test_what_needs_no_fetching_is_not_promised_and_waits_for_what_is() -> None:
    here = [measuring(0, group) for group in (10, 11)]
    scheduler = Scheduler([CHECKPOINTS[0], here[0], here[1], CHECKPOINTS[1]])
    opened = _told(scheduler.handle(SlotOpened("a"), 0))
    assert opened == [("Start", "a", "0"), ("Prepare", "a", "1")]
    assert _end(scheduler, "a") == [("Start", "a", "1")]
    assert _end(scheduler, "a") == [("Start", "a", "10")]


def test_a_free_slot_takes_what_was_promised_last() -> None:
    scheduler = Scheduler(CHECKPOINTS[:3])
    scheduler.handle(SlotOpened("a"), 0)
    assert _told(scheduler.handle(SlotOpened("b"), 0)) == [("Start", "b", "2")]
    assert _told(scheduler.handle(SlotOpened("c"), 0)) == [("Start", "c", "1")]
    assert scheduler.handle(SlotOpened("d"), 0) == []


def test_a_free_slot_rather_takes_what_is_fetched_into_its_own_cache() -> None:
    scheduler = Scheduler(CHECKPOINTS[:6])
    scheduler.handle(SlotOpened("a", "", "north"), 0)
    assert _told(scheduler.handle(SlotOpened("b", "", "south"), 0)) == [
        ("Start", "b", "3"),
        ("Prepare", "b", "4"),
        ("Prepare", "b", "5"),
    ]
    assert _told(scheduler.handle(SlotOpened("c", "", "north"), 0)) == [("Start", "c", "2")]
    assert _told(scheduler.handle(SlotOpened("d", "", "east"), 0)) == [("Start", "d", "5")]
    assert _told(scheduler.handle(SlotOpened("e", "", "south"), 0)) == [("Start", "e", "4")]


def test_a_promise_to_a_busy_slot_delays_no_long_chain() -> None:
    """The checkpoint that others hang on is promised where something long is at work."""
    long, slow = making(0), making(1)
    first = measuring(0, 1, (long.id,), hub=True)
    after = making(2, (first.id,))
    scheduler = Scheduler([long, slow, *CHECKPOINTS[4:6], first, after])
    assert _told(scheduler.handle(SlotOpened("a"), 0))[1:] == [
        ("Prepare", "a", "4"),
        ("Prepare", "a", "5"),
    ]
    assert _told(scheduler.handle(SlotOpened("b"), 0)) == [("Start", "b", slow.label)]
    assert _told(scheduler.handle(Finished(long.id, ()), 0)) == [("Prepare", "b", "1")]
    assert _told(scheduler.handle(TaskEnded("a"), 0)) == [("Start", "a", "1")]


def test_promises_of_a_slot_that_goes_are_given_to_others() -> None:
    scheduler = Scheduler(CHECKPOINTS[:7])
    for slot in "ab":
        scheduler.handle(SlotOpened(slot), 0)
    assert scheduler.handle(SlotRetired("a"), 0) == []
    assert _end(scheduler, "b") == [("Start", "b", "4"), ("Prepare", "b", "1")]
    assert _told(scheduler.handle(SlotOpened("c"), 0)) == [
        ("Start", "c", "2"),
        ("Prepare", "c", "6"),
    ]
    lost = SlotLost("b", "preempted", "gone")
    assert _told(scheduler.handle(lost, 0)) == [("Prepare", "c", "4")]
    assert _told(scheduler.handle(SlotOpened("d"), 0)) == [
        ("Start", "d", "1"),
        ("Prepare", "d", "5"),
    ]


def test_a_silent_slot_keeps_no_promises() -> None:
    scheduler = Scheduler(CHECKPOINTS[:3])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 50)
    (abandon, *told) = scheduler.tick(60)
    assert abandon.slot == "a"  # type: ignore[union-attr]
    assert _told(told) == [("Prepare", "b", "1")]


def test_a_promise_ends_when_a_sibling_has_to_wait_and_is_made_again_with_it() -> None:
    first, second, third = (measuring(number, 0, hub=True) for number in range(3))
    scheduler = Scheduler([first, second, third])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(first.id), 0)
    failed = Failed(first.id, "preempted", "gone")
    assert scheduler.handle(failed, 0) == [Prepare("a", (first,))]
    assert scheduler.handle(Failed(second.id, "infrastructure", "gone"), 0) == []
    assert scheduler.tick(1) == []
    assert scheduler.tick(2) == [Prepare("a", (first, second))]


def test_nothing_is_fetched_ahead_while_it_drains() -> None:
    maker = making(0)
    scheduler = Scheduler([maker, *(measuring(0, n, (maker.id,), hub=True) for n in range(2))])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.drain()
    assert scheduler.handle(Finished(maker.id, ()), 0) == []
