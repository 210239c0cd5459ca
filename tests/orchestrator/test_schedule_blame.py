"""The scheduler: who is charged when a slot is lost, and that a poison cell harms only itself."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from jobs.cells import Cell
from jobs.events import Failed, Finished, Started
from orchestrator.messages import Action, Quarantine, SlotLost, SlotOpened, Start, TaskEnded
from orchestrator.schedule import RETRIES, Scheduler
from tests.orchestrator.fake_cells import measuring


def _starts(actions: Sequence[Action]) -> list[list[Cell]]:
    return [list(a.cells) for a in actions if isinstance(a, Start)]


def _quarantined(actions: Sequence[Action]) -> list[tuple[Cell, int]]:
    return [(a.cell, a.attempts) for a in actions if isinstance(a, Quarantine)]


def test_a_lost_slot_is_charged_to_the_cell_in_progress() -> None:
    cells = [measuring(number, 1) for number in range(3)]
    scheduler = Scheduler(cells, retries={**RETRIES, "infrastructure": 0})
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(Started(cells[0].id), 0)
    scheduler.handle(Finished(cells[0].id, ()), 0)
    scheduler.handle(Started(cells[1].id), 0)
    lost = scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0)
    assert _quarantined(lost) == [(cells[1], 1)]
    assert [scheduler.states[c.id] for c in cells] == ["done", "failed", "waiting"]
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [[cells[2]]]


def test_a_slot_lost_before_any_cell_began_is_charged_to_all() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    assert scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0) == []
    assert _starts(scheduler.handle(SlotOpened("b"), 1)) == []
    assert _starts(scheduler.tick(2)) == [cells]


def test_after_a_second_shared_loss_each_cell_runs_alone() -> None:
    cells = [measuring(number, 1) for number in range(3)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotLost("a", "infrastructure", "gone"), 0)
    assert _starts(scheduler.handle(SlotOpened("b"), 10)) == [cells]
    scheduler.handle(SlotLost("b", "infrastructure", "gone"), 10)
    for slot in ("c", "d"):
        scheduler.handle(SlotOpened(slot), 10)
    assert _starts(scheduler.tick(14)) == [[cells[0]], [cells[1]]]
    scheduler.handle(Failed(cells[0].id, "preempted", "gone"), 15)
    scheduler.handle(Finished(cells[1].id, ()), 15)
    assert _starts(scheduler.handle(TaskEnded("c"), 15)) == [[cells[0]]]
    assert _starts(scheduler.handle(TaskEnded("d"), 15)) == [[cells[2]]]


def test_siblings_that_waited_already_run_alone_too_and_keep_their_wait() -> None:
    cells = [measuring(number, 1) for number in range(4)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    scheduler.handle(SlotLost("a", "memory", "gone"), 0)
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [cells]
    scheduler.handle(Failed(cells[2].id, "infrastructure", "disk"), 0)
    scheduler.handle(Failed(cells[3].id, "preempted", "gone"), 0)
    scheduler.handle(SlotLost("b", "infrastructure", "gone"), 1)
    for slot in "cdef":
        assert scheduler.handle(SlotOpened(slot), 1) == []
    assert _starts(scheduler.tick(2)) == [[cells[2]], [cells[3]]]
    assert _starts(scheduler.tick(3)) == [[cells[0]], [cells[1]]]


def test_preemptions_isolate_nobody() -> None:
    cells = [measuring(number, 1) for number in range(3)]
    scheduler = Scheduler(cells)
    for number in range(10):
        assert _starts(scheduler.handle(SlotOpened(str(number)), number)) == [cells]
        assert scheduler.handle(SlotLost(str(number), "preempted", "drained"), number) == []


def test_a_cell_without_another_try_is_not_given_up_for_a_loss_that_it_shares() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a"), 0)
    assert scheduler.handle(SlotLost("a", "user", "a defect"), 0) == []
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [[cells[0]]]
    assert _quarantined(scheduler.handle(SlotLost("b", "user", "a defect"), 0)) == [(cells[0], 1)]
    assert _starts(scheduler.handle(SlotOpened("c"), 0)) == [[cells[1]]]


def test_a_checkpoint_that_brings_down_every_slot_is_given_up_cell_by_cell() -> None:
    cells = [measuring(number, 1) for number in range(3)]
    scheduler = Scheduler(cells)
    now, losses, given_up = 0.0, 0, []
    while not scheduler.finished:
        now += 8  # As long as the longest wait.
        assert _starts(scheduler.handle(SlotOpened(str(losses)), now))
        given_up += _quarantined(
            scheduler.handle(SlotLost(str(losses), "infrastructure", "gone"), now)
        )
        losses += 1
    assert sorted(given_up, key=lambda g: cells.index(g[0])) == [(cell, 4) for cell in cells]
    assert losses == 2 + 2 * len(cells)


@given(data=st.data())
def test_exactly_the_poison_is_given_up_and_its_siblings_end_well(data: st.DataObject) -> None:
    """A poison cell brings its slot down whenever it is in a task, alone or in a shared pass."""
    cells = [measuring(number, 1) for number in range(data.draw(st.integers(1, 6)))]
    poison = data.draw(st.sampled_from(cells))
    cause = data.draw(st.sampled_from([c for c in RETRIES if c != "preempted"]), label="cause")
    scheduler = Scheduler(cells)
    slots = [f"slot{number}" for number in range(data.draw(st.integers(1, 3)))]
    now, losses = 0.0, 0
    actions = [a for slot in slots for a in scheduler.handle(SlotOpened(slot), now)]
    given_up: list[tuple[Cell, int]] = []
    while not scheduler.finished:
        given_up += _quarantined(actions)
        starts = [a for a in actions if isinstance(a, Start)]
        actions = []
        if not starts:
            now = max(now, scheduler.wake_time or now)
            actions = scheduler.tick(now)
        for start in starts:
            told, fatal = _course(data, start.cells, poison)
            for event in told:
                actions += scheduler.handle(event, now)
            if fatal:
                losses += 1
                actions += scheduler.handle(SlotLost(start.slot, cause, "crashed"), now)
                actions += scheduler.handle(SlotOpened(start.slot), now)
            else:
                actions += scheduler.handle(TaskEnded(start.slot), now)
    given_up += _quarantined(actions)
    budget = RETRIES[cause]
    assert budget is not None
    assert given_up == [(poison, budget + 1)]
    assert losses <= budget + 2
    assert all(scheduler.states[c.id] == "done" for c in cells if c != poison)


def _course(
    data: st.DataObject, cells: tuple[Cell, ...], poison: Cell
) -> tuple[list[Started | Finished], bool]:
    """Returns what a task tells, and whether its slot crashes then.

    Without poison all goes well. Else some cells end, others are at work along with the poison, and
    the rest has not begun; or the crash comes before any cell has.
    """
    if poison not in cells:
        return [e for c in cells for e in (Started(c.id), Finished(c.id, ()))], False
    if data.draw(st.booleans(), label="crashes while loading"):
        return [], True
    told: list[Started | Finished] = []
    for cell in cells:
        fate = data.draw(st.sampled_from(["ends", "at work", "not begun"]))
        if cell == poison or fate != "not begun":
            told.append(Started(cell.id))
        if cell != poison and fate == "ends":
            told.append(Finished(cell.id, ()))
    return told, True
