"""The scheduler: what it promises holds under any order of events."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Event, Failed, Finished, Started
from orchestrator.schedule import (
    RETRIES,
    Action,
    Quarantine,
    Scheduler,
    SlotLost,
    SlotOpened,
    TaskEnded,
)
from tests.orchestrator.fake_cells import measuring

CAUSES: tuple[Cause, ...] = get_args(Cause)


class _Machine(RuleBasedStateMachine):
    """Random events over a random plan, beside a plain account of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cells: dict[str, Cell] = {}
        self.scheduler = Scheduler([])
        self.slots: dict[str, dict[str, bool] | None] = {}
        self.opened = 0
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.charges: dict[str, Counter[Cause]] = {}
        self.earliest: dict[str, float] = {}

    @initialize(data=st.data())
    def plan(self, data: st.DataObject) -> None:
        earlier: list[str] = []
        for group in range(data.draw(st.integers(1, 5))):
            members = []
            for number in range(data.draw(st.integers(1, 3))):
                needs = data.draw(st.sets(st.sampled_from(earlier), max_size=3)) if earlier else ()
                members.append(measuring(number, group, tuple(sorted(needs))))
            self.cells |= {cell.id: cell for cell in members}
            earlier += [cell.id for cell in members]
        before = data.draw(
            st.dictionaries(
                st.sampled_from(earlier), st.sampled_from(["done", "failed"]), max_size=4
            )
        )
        self.done = {cell for cell, state in before.items() if state == "done"}
        self.failed = {cell for cell, state in before.items() if state == "failed"}
        self.charges = {cell: Counter() for cell in self.cells}
        self.scheduler = Scheduler(self.cells.values(), self.done, self.failed)

    def _send(self, event: Event | SlotOpened | SlotLost | TaskEnded, charged: set[str]) -> None:
        """Hands an event over; exactly the charged cells that are beyond their budget end."""
        if isinstance(event, Failed | SlotLost):
            cause: Cause = event.cause
        else:
            cause = "infrastructure"
        beyond = set()
        for cell in charged:
            self.charges[cell][cause] += 1
            if cause == "infrastructure":
                wait = 2.0 ** self.charges[cell][cause]
                self.earliest[cell] = self.now + wait
            budget = RETRIES[cause]
            if budget is not None and self.charges[cell][cause] > budget:
                beyond.add(cell)
        self.failed |= beyond
        self._take(self.scheduler.handle(event, self.now), beyond)

    def _take(self, actions: Sequence[Action], beyond: set[str]) -> None:
        assert {a.cell.id for a in actions if isinstance(a, Quarantine)} == beyond
        for action in actions:
            if isinstance(action, Quarantine):
                assert action.attempts == self.charges[action.cell.id].total()
                continue
            assert self.slots[action.slot] is None
            ids = [cell.id for cell in action.cells]
            assert ids
            assert len({cell.group for cell in action.cells}) == 1
            assert all(self.now >= self.earliest.get(cell, 0) for cell in ids)
            busy = {c for tasks in self.slots.values() for c in tasks or ()}
            assert busy.isdisjoint(ids)
            assert (self.done | self.failed).isdisjoint(ids)
            assert all(self.done.issuperset(cell.needs) for cell in action.cells)
            together = {
                cell.id
                for cell in self.cells.values()
                if cell.group == action.cells[0].group
                and cell.id not in self.done | self.failed | busy | self._blocked()
            }
            assert together == set(ids)
            frugal = any(self.charges[cell]["memory"] for cell in ids)
            assert action.frugal == frugal
            self.slots[action.slot] = dict.fromkeys(ids, False)

    def _blocked(self) -> set[str]:
        blocked: set[str] = set()
        for cell in self.cells.values():
            hopeless = (self.failed | blocked).intersection(cell.needs)
            if hopeless and cell.id not in self.done | self.failed:
                blocked.add(cell.id)
        return blocked

    def _busy(self) -> list[tuple[str, str]]:
        return [(slot, cell) for slot, tasks in self.slots.items() for cell in tasks or ()]

    @precondition(lambda self: len(self.slots) < 4)
    @rule()
    def slot_opens(self) -> None:
        slot = f"slot{self.opened}"
        self.opened += 1
        self.slots[slot] = None
        self._send(SlotOpened(slot), set())

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def cell_starts(self, data: st.DataObject) -> None:
        slot, cell = data.draw(st.sampled_from(self._busy()))
        (self.slots[slot] or {})[cell] = True
        self._send(Started(cell), set())

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def cell_finishes(self, data: st.DataObject) -> None:
        slot, cell = data.draw(st.sampled_from(self._busy()))
        (self.slots[slot] or {}).pop(cell)
        self.done.add(cell)
        self._send(Finished(cell, ()), set())

    @precondition(lambda self: self._busy())
    @rule(data=st.data(), cause=st.sampled_from(CAUSES))
    def cell_fails(self, data: st.DataObject, cause: Cause) -> None:
        slot, cell = data.draw(st.sampled_from(self._busy()))
        (self.slots[slot] or {}).pop(cell)
        self._send(Failed(cell, cause, "drawn"), {cell})

    @precondition(lambda self: any(tasks is not None for tasks in self.slots.values()))
    @rule(data=st.data())
    def task_ends(self, data: st.DataObject) -> None:
        busy = [slot for slot, tasks in self.slots.items() if tasks is not None]
        slot = data.draw(st.sampled_from(busy))
        silent = set(self.slots[slot] or ())
        self.slots[slot] = None
        self._send(TaskEnded(slot), silent)

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), cause=st.sampled_from(["preempted", "infrastructure", "memory", "user"]))
    def slot_is_lost(self, data: st.DataObject, cause: Cause) -> None:
        slot = data.draw(st.sampled_from(sorted(self.slots)))
        tasks = self.slots.pop(slot) or {}
        guilty = {cell for cell, started in tasks.items() if started} or set(tasks)
        self._send(SlotLost(slot, cause, "drawn"), guilty)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._take(self.scheduler.assign(self.now), set())

    @rule()
    def a_stranger_speaks(self) -> None:
        idle = sorted(set(self.cells) - {cell for _, cell in self._busy()})
        assume(idle)
        before = dict(self.scheduler.states)
        self._send(Failed(idle[0], "user", "late"), set())
        assert self.scheduler.states[idle[0]] in {before[idle[0]], "running"}

    @invariant()
    def states_are_as_accounted(self) -> None:
        busy = {cell for _, cell in self._busy()}
        for cell, state in self.scheduler.states.items():
            expected = (
                "done"
                if cell in self.done
                else "failed"
                if cell in self.failed
                else "running"
                if cell in busy
                else "blocked"
                if cell in self._blocked()
                else "waiting"
            )
            assert state == expected
        assert set(self.scheduler.states) == set(self.cells)
        left = set(self.cells) - self.done - self.failed - self._blocked()
        assert self.scheduler.finished == (not left)

    def teardown(self) -> None:
        """Whatever happened: with a slot, and when tasks go well from now on, all ends."""
        if not self.slots:
            self.slot_opens()
        for _ in range(10 * len(self.cells) + 10):
            if self.scheduler.finished:
                break
            wake = self.scheduler.wake_time
            self.now = max(self.now, wake if wake is not None else self.now)
            self._take(self.scheduler.assign(self.now), set())
            for slot in [slot for slot, tasks in self.slots.items() if tasks is not None]:
                for cell in list(self.slots[slot] or ()):
                    (self.slots[slot] or {}).pop(cell)
                    self.done.add(cell)
                    self._send(Finished(cell, ()), set())
                self.slots[slot] = None
                self._send(TaskEnded(slot), set())
        assert self.scheduler.finished
        assert set(self.scheduler.states.values()) <= {"done", "failed", "blocked"}


_Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestScheduler = _Machine.TestCase
