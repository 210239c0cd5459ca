"""The scheduler: what is tried again, when, and how often."""

from collections.abc import Sequence
from typing import get_args

import pytest

from jobs.errors import Cause
from jobs.events import Failed, Finished
from orchestrator.messages import Action, Quarantine, SlotLost, SlotOpened, Start, TaskEnded
from orchestrator.schedule import RETRIES, Scheduler
from tests.orchestrator.fake_cells import making, measuring

CAUSES: tuple[Cause, ...] = get_args(Cause)


def _starts(actions: Sequence[Action]) -> list[tuple[str, list[str]]]:
    return [(a.slot, [c.id for c in a.cells]) for a in actions if isinstance(a, Start)]


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
        now += 8  # As long as the longest wait.
        scheduler.tick(now)
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
        assert _starts(scheduler.tick(wake - 0.001)) == []
        assert _starts(scheduler.tick(wake)) == [("a", [cell.id])]
        waits.append(wake - now)
        now = wake
    assert waits == [2, 4, 8]


def test_no_wait_is_longer_than_a_minute() -> None:
    cell = making(0)
    scheduler = Scheduler([cell], retries={**RETRIES, "infrastructure": None})
    scheduler.handle(SlotOpened("a"), 0)
    now, wait = 0.0, 0.0
    for _ in range(1100):  # 2 ** 1100 is no float.
        scheduler.handle(Failed(cell.id, "infrastructure", "lost"), now)
        scheduler.handle(TaskEnded("a"), now)
        wake = scheduler.wake_time
        assert wake is not None
        wait, now = wake - now, wake
        assert _starts(scheduler.tick(now)) == [("a", [cell.id])]
    assert wait == 60


def test_a_preempted_cell_goes_back_at_once_whatever_it_was_charged_with_before() -> None:
    cell = making(0)
    scheduler = Scheduler([cell], retries={**RETRIES, "infrastructure": 1})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0)
    assert _starts(scheduler.handle(SlotOpened("b"), 2)) == [("b", [cell.id])]
    for preemption in range(50):
        assert scheduler.handle(SlotLost("b", "preempted", "drained"), 3 + preemption) == []
        assert _starts(scheduler.handle(SlotOpened("b"), 3 + preemption)) == [("b", [cell.id])]
    (quarantine,) = scheduler.handle(SlotLost("b", "infrastructure", "gone"), 60)
    assert isinstance(quarantine, Quarantine)
    assert quarantine.attempts == 52


def test_a_queued_checkpoint_waits_for_a_sibling_that_fails_later() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Failed(cells[0].id, "preempted", "gone"), 0)
    scheduler.handle(Failed(cells[1].id, "infrastructure", "lost"), 0)
    assert scheduler.handle(TaskEnded("a"), 0) == []
    assert _starts(scheduler.tick(2)) == [("a", [c.id for c in cells])]


def test_the_longest_wait_among_siblings_counts() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Failed(cells[0].id, "infrastructure", "lost"), 0)
    scheduler.handle(Failed(cells[1].id, "preempted", "gone"), 0)
    assert scheduler.handle(TaskEnded("a"), 0) == []
    assert _starts(scheduler.tick(2)) == [("a", [c.id for c in cells])]
    scheduler.handle(Failed(cells[0].id, "infrastructure", "lost"), 2)
    scheduler.handle(Failed(cells[1].id, "infrastructure", "lost"), 3)
    assert scheduler.handle(TaskEnded("a"), 3) == []
    assert scheduler.tick(5) == []
    assert _starts(scheduler.tick(6)) == [("a", [c.id for c in cells])]


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
