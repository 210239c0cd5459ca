"""The scheduler: what it promises holds under any order of events."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Event, Failed, Finished, Progress, Started
from orchestrator.messages import (
    Abandon,
    Action,
    Prepare,
    Quarantine,
    Release,
    SlotAlive,
    SlotEvent,
    SlotLost,
    SlotOpened,
    SlotRetired,
    Start,
    TaskEnded,
)
from orchestrator.ready import AHEAD
from orchestrator.schedule import Scheduler
from tests.orchestrator.account import Account, BusySlot
from tests.orchestrator.fake_cells import heading, measuring

CAUSES: tuple[Cause, ...] = get_args(Cause)


class _Machine(RuleBasedStateMachine):
    """Random events over a random plan, beside a plain account of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account([], {}, {})
        self.scheduler = Scheduler([])
        self.opened = 0

    @initialize(data=st.data())
    def plan(self, data: st.DataObject) -> None:
        cells: list[Cell] = []
        ids: list[str] = []
        for group in range(data.draw(st.integers(1, 6))):
            earlier = list(ids)
            hub = data.draw(st.booleans())
            for number in range(data.draw(st.integers(1, 3))):
                needs = data.draw(st.sets(st.sampled_from(earlier), max_size=3)) if earlier else ()
                make = data.draw(st.sampled_from([measuring, heading]))
                cells.append(make(number, group, tuple(sorted(needs)), hub))
                ids.append(cells[-1].id)
        before = data.draw(
            st.dictionaries(st.sampled_from(ids), st.sampled_from(["done", "failed"]), max_size=4)
        )
        limits = {kind: data.draw(st.sampled_from([5, 100])) for kind in ("loss", "head")}
        self.account = Account(cells, before, limits)
        self.scheduler = Scheduler(cells, self.account.done, self.account.failed, limits=limits)

    def _send(
        self, event: Event | SlotEvent, charged: Sequence[str] = (), released: Sequence[str] = ()
    ) -> None:
        """Hands an event over; exactly the charged cells that are beyond their budget end."""
        cause: Cause = event.cause if isinstance(event, Failed | SlotLost) else "infrastructure"
        given_up = self.account.charge(charged, cause)
        actions = self.scheduler.handle(event, self.account.now)
        assert {a.cell.id for a in actions if isinstance(a, Quarantine)} == given_up
        assert [a.slot for a in actions if isinstance(a, Release)] == list(released)
        assert not any(isinstance(a, Abandon) for a in actions)
        self._take(actions)

    def _tick(self) -> None:
        """Lets time be seen; exactly the overdue slots are abandoned."""
        overdue = self.account.overdue()
        actions = self.scheduler.tick(self.account.now)
        abandoned = [a.slot for a in actions if isinstance(a, Abandon)]
        assert sorted(abandoned) == sorted(overdue)
        assert not any(isinstance(a, Quarantine | Release) for a in actions)
        for slot, task in self.account.busy():
            task.abandoned |= slot in overdue
        self.account.give_back(overdue)
        self._take(actions)
        wake = self.scheduler.wake_time
        assert wake is None or wake > self.account.now

    def _take(self, actions: Sequence[Action]) -> None:
        """Checks every start and every promise, and that neither is left out."""
        account = self.account
        account.give_up_changed()
        for action in actions:
            if isinstance(action, Quarantine):
                assert action.attempts == account.charges[action.cell.id].total()
            if isinstance(action, Start):
                assert not account.draining
                assert account.slots[action.slot] is None
                ids = [cell.id for cell in action.cells]
                assert ids in account.next_in(action.slot)
                assert action.frugal == any(account.charges[cell]["memory"] for cell in ids)
                account.start(action.slot, ids)
            if isinstance(action, Prepare):
                assert not account.draining
                ids = [cell.id for cell in action.cells]
                assert ids in account.next_to_promise()
                assert action.slot in account.next_to_get_one()
                account.promise(action.slot, ids)
        assert account.draining or None not in account.slots.values() or not account.ready()
        assert account.draining or not (account.next_to_promise() and account.next_to_get_one())

    def _draw(self, data: st.DataObject) -> tuple[BusySlot, str]:
        """Draws a running cell and has its slot heard of it."""
        running = [(task, cell) for _, task in self.account.busy() for cell in task.cells]
        assume(running)
        task, cell = data.draw(st.sampled_from(running))
        task.heard = task.headway = self.account.now
        return task, cell

    @precondition(lambda self: len(self.account.slots) < 4)
    @rule(cache=st.sampled_from(["", "north", "south"]))
    def slot_opens(self, cache: str = "") -> None:
        slot = f"slot{self.opened}"
        self.opened += 1
        self.account.slots[slot] = None
        self.account.caches[slot] = cache
        self._send(SlotOpened(slot, "", cache))

    @precondition(lambda self: self.account.slots)
    @rule(data=st.data())
    def slot_retires(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.account.slots)))
        self.account.give_back([slot])
        if task := self.account.slots[slot]:
            task.retired = True
            self._send(SlotRetired(slot))
        else:
            del self.account.slots[slot]
            self._send(SlotRetired(slot), released=[slot])

    @rule(data=st.data(), together=st.booleans())
    def cells_start(self, data: st.DataObject, together: bool) -> None:
        task, drawn = self._draw(data)
        for cell in list(task.cells) if together else [drawn]:
            task.cells[cell] = True
            self._send(Started(cell))

    @rule(data=st.data())
    def cell_progresses(self, data: st.DataObject) -> None:
        task, cell = self._draw(data)
        task.cells[cell] = True
        self._send(Progress(cell, 1, 2))

    @rule(data=st.data())
    def cell_finishes(self, data: st.DataObject) -> None:
        task, cell = self._draw(data)
        del task.cells[cell]
        self.account.done.add(cell)
        self._send(Finished(cell, ()))

    @rule(data=st.data(), cause=st.sampled_from(CAUSES))
    def cell_fails(self, data: st.DataObject, cause: Cause) -> None:
        task, cell = self._draw(data)
        del task.cells[cell]
        self._send(Failed(cell, cause, "drawn"), [cell])

    @precondition(lambda self: self.account.busy())
    @rule(data=st.data())
    def task_ends(self, data: st.DataObject) -> None:
        self._end(*data.draw(st.sampled_from(self.account.busy())))

    def _end(self, slot: str, task: BusySlot) -> None:
        self.account.slots[slot] = None
        if task.retired or task.abandoned:
            del self.account.slots[slot]
        released = [slot] if task.retired and not task.abandoned else []
        self._send(TaskEnded(slot), list(task.cells), released)

    @precondition(lambda self: self.account.slots)
    @rule(data=st.data(), cause=st.sampled_from(["preempted", "infrastructure", "memory", "user"]))
    def slot_is_lost(self, data: st.DataObject, cause: Cause) -> None:
        slot = data.draw(st.sampled_from(sorted(self.account.slots)))
        self._send(SlotLost(slot, cause, "drawn"), self.account.lose(slot, cause))

    @rule(seconds=st.integers(0, 70), alive=st.booleans(), seen=st.booleans())
    def time_passes(self, seconds: int, alive: bool, seen: bool) -> None:
        self.account.now += seconds
        for slot, task in list(self.account.slots.items()) if alive else []:
            if task:
                task.heard = self.account.now
            self._send(SlotAlive(slot))
        if seen:
            self._tick()

    @precondition(lambda self: self.opened > 2)
    @rule()
    def it_is_told_to_drain(self) -> None:
        self.account.draining = True
        self.scheduler.drain()

    @rule()
    def strangers_speak(self) -> None:
        for event in (SlotAlive, SlotRetired, TaskEnded):
            self._send(event("stranger"))
        self._send(SlotLost("stranger", "user", "late"))
        for cell in self.account.cells:
            if self.account.state(cell) != "running":
                self._send(Failed(cell, "user", "late"))

    @invariant()
    def all_is_as_accounted(self) -> None:
        account = self.account
        assert self.scheduler.states == {cell: account.state(cell) for cell in account.cells}
        assert self.scheduler.running == account.running()
        left = {"waiting", "running"}.intersection(self.scheduler.states.values())
        assert self.scheduler.finished == (not left)
        assert self.scheduler.drained == (account.draining and not account.busy())
        assert not self.scheduler.stuck
        ready = account.ready()
        assert all(ready.get(unit) == p.cells for unit, p in account.promises.items())
        have = Counter(promise.slot for promise in account.promises.values())
        assert all(number <= AHEAD and slot in account.slots for slot, number in have.items())

    @invariant()
    def it_wakes_in_time(self) -> None:
        due = self.account.due()
        wake = self.scheduler.wake_time
        assert not due or (wake is not None and wake <= min(due))

    def teardown(self) -> None:
        """Whatever happened: when tasks go well from now on, all ends, or drains."""
        account = self.account
        for _ in range(10 * len(account.cells) + 10):
            if self.scheduler.finished or self.scheduler.drained:
                break
            if not account.slots:
                self.slot_opens()
            account.now = max(account.now, int(self.scheduler.wake_time or 0))
            self._tick()
            for slot, task in account.busy():
                if task.abandoned:
                    cells = account.lose(slot, "infrastructure")
                    self._send(SlotLost(slot, "infrastructure", "killed"), cells)
                    continue
                for cell in list(task.cells):
                    del task.cells[cell]
                    account.done.add(cell)
                    self._send(Finished(cell, ()))
                self._end(slot, task)
        assert self.scheduler.finished or self.scheduler.drained


_Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestScheduler = _Machine.TestCase
