"""The scheduler: what runs next, and what is left alone."""

from collections import deque
from collections.abc import Sequence

from jobs.events import Failed, Finished, Progress, Started
from orchestrator.messages import Action, Quarantine, SlotLost, SlotOpened, Start, TaskEnded
from orchestrator.schedule import RETRIES, Scheduler
from tests.orchestrator.fake_cells import large_plan, making, measuring


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


def test_where_seconds_are_known_the_longest_chain_is_that_of_most_seconds() -> None:
    short, long, about_as_long = making(0), making(1), making(2)
    head = making(3)
    tail = making(4, (head.id,))
    chains = {short.group: 10, long.group: 900, about_as_long.group: 920, head.group: 20}
    scheduler = Scheduler([short, long, about_as_long, head, tail], chains=chains)
    begun = [scheduler.handle(SlotOpened(slot), 0) for slot in "abcd"]
    # Nearly equal ones stay in the order of the plan.
    assert [_starts(actions)[0][1] for actions in begun] == [
        [long.id], [about_as_long.id], [head.id], [short.id]
    ]  # fmt: skip


def test_a_checkpoint_that_was_begun_goes_before_others() -> None:
    fresh, resumed, tried = ([measuring(n, group) for n in range(2)] for group in range(3))
    scheduler = Scheduler([*fresh, *resumed, *tried], done={resumed[0].id})
    assert _starts(scheduler.handle(SlotOpened("a"), 0)) == [("a", [resumed[1].id])]
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [("b", [c.id for c in fresh])]
    assert _starts(scheduler.handle(SlotOpened("c"), 0)) == [("c", [c.id for c in tried])]


def test_a_retry_goes_before_a_fresh_checkpoint_that_comes_earlier_in_the_plan() -> None:
    maker = making(0)
    early, late = measuring(0, 1, (maker.id,)), measuring(0, 2)
    scheduler = Scheduler([maker, early, late])
    scheduler.handle(SlotOpened("a"), 0)
    assert _starts(scheduler.handle(SlotOpened("b"), 0)) == [("b", [late.id])]
    scheduler.handle(Failed(late.id, "preempted", "gone"), 1)
    scheduler.handle(Finished(maker.id, ()), 1)
    assert _starts(scheduler.handle(TaskEnded("b"), 1)) == [("b", [late.id])]


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


def test_a_large_plan_ends_on_many_slots() -> None:
    scheduler = Scheduler(large_plan(2_500, 4))
    starts: deque[Action] = deque()
    for slot in range(512):
        starts += scheduler.handle(SlotOpened(str(slot)), 0)
    while starts:
        start = starts.popleft()
        assert isinstance(start, Start)
        for cell in start.cells:
            starts += scheduler.handle(Started(cell.id), 0)
            starts += scheduler.handle(Finished(cell.id, ()), 0)
        starts += scheduler.handle(TaskEnded(start.slot), 0)
    assert len(scheduler.states) == 10_011
    assert set(scheduler.states.values()) == {"done"}


def test_cells_that_wait_for_each_other_are_noticed() -> None:
    # The id doesn't cover the needs, so that a knot can be tied at all.
    scheduler = Scheduler([making(0, (making(1).id,)), making(1, (making(0).id,))])
    assert not scheduler.stuck
    assert scheduler.handle(SlotOpened("a"), 0.0) == []
    assert scheduler.stuck


def test_the_slot_of_a_running_cell_is_known() -> None:
    cells = [measuring(number, 1) for number in range(2)]
    scheduler = Scheduler(cells)
    scheduler.handle(SlotOpened("a", "node1"), 0)
    assert dict(scheduler.running) == {cell.id: "a" for cell in cells}
    scheduler.handle(Finished(cells[0].id, ()), 0)
    assert dict(scheduler.running) == {cells[1].id: "a"}
    scheduler.handle(SlotLost("a", "preempted", "gone"), 0)
    assert not scheduler.running
