"""The scheduler: what runs next, what is tried again, and what is given up."""

import resource
import time
from collections import deque
from collections.abc import Sequence
from typing import get_args

import pytest

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Failed, Finished, Progress, Started
from orchestrator.schedule import (
    RETRIES,
    Action,
    Quarantine,
    Scheduler,
    SlotLost,
    SlotOpened,
    Start,
    TaskEnded,
)
from tests.orchestrator.fake_cells import large_plan, making, measuring

CAUSES: tuple[Cause, ...] = get_args(Cause)


def _starts(actions: Sequence[Action]) -> list[tuple[str, list[str]]]:
    return [(a.slot, [c.id for c in a.cells]) for a in actions if isinstance(a, Start)]


def test_a_cell_waits_for_what_it_needs() -> None:
    first = making(0)
    second = making(1, (first.id,))
    scheduler = Scheduler([first, second])
    assert _starts(scheduler.handle(SlotOpened("a"), 0)) == [("a", [first.id])]
    assert scheduler.handle(SlotOpened("b"), 0) == []
    assert scheduler.handle(Started(first.id), 0) == []
    assert scheduler.handle(Progress(first.id, 1, 2), 0) == []
    assert _starts(scheduler.handle(Finished(first.id, ()), 1)) == [("b", [second.id])]
    assert scheduler.handle(TaskEnded("a"), 1) == []
    assert not scheduler.finished
    scheduler.handle(Finished(second.id, ()), 2)
    assert scheduler.finished
    assert set(scheduler.states.values()) == {"done"}


def test_cells_of_a_checkpoint_start_together() -> None:
    cells = [measuring(number, group) for group in (1, 2) for number in range(3)]
    scheduler = Scheduler(cells)
    assert _starts(scheduler.handle(SlotOpened("a"), 0)) == [("a", [c.id for c in cells[:3]])]
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [("b", [c.id for c in cells[3:]])]


def test_a_checkpoint_waits_for_all_that_its_cells_need() -> None:
    quick, slow = making(0), making(1)
    cells = [measuring(0, 1, (quick.id,)), measuring(1, 1, (slow.id,))]
    scheduler = Scheduler([quick, slow, *cells])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    assert scheduler.handle(Finished(quick.id, ()), 0) == []
    assert scheduler.handle(TaskEnded("a"), 0) == []
    assert _starts(scheduler.handle(Finished(slow.id, ()), 0)) == [("a", [c.id for c in cells])]


def test_the_longest_chain_goes_first_then_the_order_of_the_plan() -> None:
    leaf, other = making(0), making(1)
    head = making(2)
    middle = making(3, (head.id,))
    tail = making(4, (middle.id,))
    scheduler = Scheduler([leaf, other, head, middle, tail])
    begun = [scheduler.handle(SlotOpened(slot), 0) for slot in "abc"]
    assert [_starts(actions)[0][1] for actions in begun] == [[head.id], [leaf.id], [other.id]]


def test_done_cells_are_left_alone() -> None:
    first = making(0)
    second = making(1, (first.id,))
    scheduler = Scheduler([first, second], done={first.id})
    assert _starts(scheduler.handle(SlotOpened("a"), 0)) == [("a", [second.id])]
    assert Scheduler([first, second], done={first.id, second.id}).finished


def test_earlier_failures_block_what_hangs_on_them_and_nothing_else() -> None:
    first = making(0)
    second = making(1, (first.id,))
    third = making(2, (second.id,))
    other = making(3)
    scheduler = Scheduler([first, second, third, other], failed={first.id})
    assert _starts(scheduler.handle(SlotOpened("a"), 0)) == [("a", [other.id])]
    scheduler.handle(Finished(other.id, ()), 0)
    assert scheduler.finished
    assert [scheduler.states[c.id] for c in (first, second, third, other)] == [
        *("failed", "blocked", "blocked", "done")
    ]


def test_a_failure_blocks_only_the_cells_of_a_checkpoint_that_need_it() -> None:
    bad, good = making(0), making(1)
    cells = [measuring(0, 1, (bad.id,)), measuring(1, 1, (good.id,))]
    scheduler = Scheduler([bad, good, *cells])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    scheduler.handle(Finished(good.id, ()), 0)
    scheduler.handle(TaskEnded("b"), 0)
    (quarantine, start) = scheduler.handle(Failed(bad.id, "data", "no text"), 0)
    assert isinstance(quarantine, Quarantine)
    assert (quarantine.cell, quarantine.attempts) == (bad, 1)
    assert _starts([start]) == [("b", [cells[1].id])]


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_budget(cause: Cause) -> None:
    cell = making(0)
    scheduler = Scheduler([cell])
    now, tries, given_up = 0.0, 0, False
    scheduler.handle(SlotOpened("a"), now)
    while scheduler.states[cell.id] == "running" and tries < 20:
        tries += 1
        actions = scheduler.handle(Failed(cell.id, cause, "again"), now)
        given_up = any(isinstance(a, Quarantine) and a.attempts == tries for a in actions)
        scheduler.handle(TaskEnded("a"), now)
        now = max(now, scheduler.wake_time or now)
        scheduler.assign(now)
    budget = RETRIES[cause]
    assert tries == (20 if budget is None else budget + 1)
    assert given_up == (budget is not None)
    assert scheduler.finished == (budget is not None)


def test_infrastructure_errors_are_tried_again_later_and_later() -> None:
    cell = making(0)
    scheduler = Scheduler([cell])
    scheduler.handle(SlotOpened("a"), 0)
    now, waits = 100.0, []
    for _ in range(3):
        assert _starts(scheduler.handle(Failed(cell.id, "infrastructure", "lost"), now)) == []
        assert _starts(scheduler.handle(TaskEnded("a"), now)) == []
        wake = scheduler.wake_time
        assert wake is not None
        assert _starts(scheduler.assign(wake - 0.001)) == []
        assert _starts(scheduler.assign(wake)) == [("a", [cell.id])]
        waits.append(wake - now)
        now = wake
    assert waits == [2, 4, 8]


def test_a_queued_checkpoint_waits_for_a_sibling_that_fails_later() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Failed(cells[0].id, "preempted", "gone"), 0)
    scheduler.handle(Failed(cells[1].id, "infrastructure", "lost"), 0)
    assert scheduler.handle(TaskEnded("a"), 0) == []
    assert _starts(scheduler.assign(2)) == [("a", [c.id for c in cells])]


def test_the_longest_wait_among_siblings_counts() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Failed(cells[0].id, "infrastructure", "lost"), 0)
    scheduler.handle(Failed(cells[1].id, "preempted", "gone"), 0)
    assert scheduler.handle(TaskEnded("a"), 0) == []
    assert _starts(scheduler.assign(2)) == [("a", [c.id for c in cells])]
    scheduler.handle(Failed(cells[0].id, "infrastructure", "lost"), 2)
    scheduler.handle(Failed(cells[1].id, "infrastructure", "lost"), 3)
    assert scheduler.handle(TaskEnded("a"), 3) == []
    assert scheduler.assign(5) == []
    assert _starts(scheduler.assign(6)) == [("a", [c.id for c in cells])]


def test_memory_errors_are_tried_once_more_in_a_frugal_way() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    (start,) = scheduler.handle(SlotOpened("a"), 0)
    assert isinstance(start, Start)
    assert not start.frugal
    scheduler.handle(Finished(cells[0].id, ()), 0)
    scheduler.handle(Failed(cells[1].id, "memory", "too large"), 0)
    (again,) = scheduler.handle(TaskEnded("a"), 0)
    assert isinstance(again, Start)
    assert again.frugal
    assert again.cells == (cells[1],)


def test_a_lost_slot_is_charged_to_the_cells_in_progress() -> None:
    cells = [measuring(number, 1) for number in range(3)]
    scheduler = Scheduler(cells, retries={**RETRIES, "infrastructure": 0})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(cells[0].id), 0)
    scheduler.handle(Finished(cells[0].id, ()), 0)
    scheduler.handle(Started(cells[1].id), 0)
    (quarantine,) = scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0)
    assert isinstance(quarantine, Quarantine)
    assert quarantine.cell == cells[1]
    assert [scheduler.states[c.id] for c in cells] == ["done", "failed", "waiting"]
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [("b", [cells[2].id])]


def test_a_slot_lost_before_any_cell_began_is_charged_to_all() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells, retries={**RETRIES, "infrastructure": 0})
    scheduler.handle(SlotOpened("a"), 0)
    lost = scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0)
    assert [a.cell for a in lost if isinstance(a, Quarantine)] == cells


def test_a_lost_idle_slot_is_not_used_again() -> None:
    first = making(0)
    second = making(1, (first.id,))
    scheduler = Scheduler([first, second])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotOpened("b"), 0)
    scheduler.handle(SlotLost("b", "preempted", "gone"), 0)
    assert scheduler.handle(Finished(first.id, ()), 0) == []
    assert _starts(scheduler.handle(TaskEnded("a"), 0)) == [("a", [second.id])]


def test_a_task_that_ends_in_silence_is_charged() -> None:
    cell = making(0)
    scheduler = Scheduler([cell], retries={**RETRIES, "infrastructure": 0})
    scheduler.handle(SlotOpened("a"), 0)
    (quarantine,) = scheduler.handle(TaskEnded("a"), 0)
    assert isinstance(quarantine, Quarantine)
    assert "without a word" in quarantine.failure.message


def test_words_about_ended_cells_change_nothing() -> None:
    cell = making(0)
    scheduler = Scheduler([cell])
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Finished(cell.id, ()), 0)
    for event in (Failed(cell.id, "user", "late"), Finished(cell.id, ()), Started(cell.id)):
        assert scheduler.handle(event, 0) == []
    assert scheduler.states[cell.id] == "done"


def _drain(cells: list[Cell], slots: int) -> tuple[float, float]:
    """Runs a plan on slots that do nothing; returns the seconds to build and to drain."""
    began = time.perf_counter()
    scheduler = Scheduler(cells)
    built = time.perf_counter()
    starts: deque[Action] = deque()
    for slot in range(slots):
        starts += scheduler.handle(SlotOpened(str(slot)), 0)
    while starts:
        start = starts.popleft()
        assert isinstance(start, Start)
        for cell in start.cells:
            starts += scheduler.handle(Started(cell.id), 0)
            starts += scheduler.handle(Finished(cell.id, ()), 0)
        starts += scheduler.handle(TaskEnded(start.slot), 0)
    assert set(scheduler.states.values()) == {"done"}
    return built - began, time.perf_counter() - built


@pytest.mark.slow
def test_a_hundred_thousand_cells_are_no_burden() -> None:
    began = time.perf_counter()
    cells = list(large_plan(25_000, 4))
    small = cells[: len(cells) // 10]
    for cell in cells:
        assert len(cell.id + cell.group) == 128
    listed = time.perf_counter() - began
    few = sum(_drain(small, 512))
    built, drained = _drain(cells, 512)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(cells)} cells: {listed:.1f} s to name, {built:.1f} s to build, {drained:.1f} s to "
        f"drain with 512 slots; a tenth takes {few:.2f} s; peak {peak:.2f} GiB"
    )
    # Ten times the cells; a quadratic scheduler would take a hundred times as long.
    assert built + drained < 30 * max(few, 0.05)


def test_cells_that_wait_for_each_other_are_noticed() -> None:
    # The id doesn't cover the needs, so that a knot can be tied at all.
    scheduler = Scheduler([making(0, (making(1).id,)), making(1, (making(0).id,))])
    assert not scheduler.stuck
    assert scheduler.handle(SlotOpened("a"), 0.0) == []
    assert scheduler.stuck
