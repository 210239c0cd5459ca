"""A plain account of what a scheduler must do, kept beside it: slow and obvious."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.sources import HubFolder
from orchestrator.ready import AHEAD
from orchestrator.schedule import RETRIES


@dataclass
class BusySlot:
    """What a slot runs: whether each of its cells that have not ended was started."""

    limits: dict[str, int]
    cells: dict[str, bool]
    heard: int
    headway: int
    retired: bool = False
    abandoned: bool = False

    @property
    def at_work(self) -> list[str]:
        return [cell for cell, started in self.cells.items() if started]

    @property
    def deadline(self) -> int:
        patience = max(self.limits[cell] for cell in self.at_work or self.limits)
        return min(self.heard + 60, self.headway + patience)


@dataclass(frozen=True)
class Promise:
    """Cells that were promised together, by the number of the promise."""

    number: int
    slot: str
    cells: Sequence[str]


class Account:
    """Who runs where, who is to blame, and what may go next; None stands for a free slot."""

    def __init__(
        self, cells: Sequence[Cell], before: Mapping[str, str], limits: Mapping[str, int]
    ) -> None:
        self.now = 0
        self.draining = False
        self.cells = {cell.id: cell for cell in cells}
        self.limits = limits
        self.slots: dict[str, BusySlot | None] = {}
        self.caches: dict[str, str] = {}
        self.promises: dict[str, Promise] = {}
        self._promised = 0
        self.done = {cell for cell, state in before.items() if state == "done"}
        self.failed = {cell for cell, state in before.items() if state == "failed"}
        self.charges: dict[str, Counter[Cause]] = defaultdict(Counter)
        self.earliest: dict[str, int] = dict.fromkeys(self.cells, 0)
        self._unit = {cell.id: cell.group for cell in cells}
        self._begun = {self.cells[cell].group for cell in before}
        self._losses: Counter[str] = Counter()
        self._chain: Counter[str] = Counter()
        length: dict[str, int] = {}
        for cell in reversed(cells):
            length[cell.id] = 1 + max(
                (length[c.id] for c in cells if cell.id in c.needs), default=0
            )
            if cell.id not in before:
                self._chain[cell.group] = max(self._chain[cell.group], length[cell.id])

    def busy(self) -> list[tuple[str, BusySlot]]:
        return [(slot, task) for slot, task in self.slots.items() if task is not None]

    def running(self) -> dict[str, str]:
        return {cell: slot for slot, task in self.busy() for cell in task.cells}

    def state(self, cell: str) -> str:
        if cell in self.done | self.failed:
            return "done" if cell in self.done else "failed"
        if any(cell in task.cells for _, task in self.busy()):
            return "running"
        needed = {self.state(need) for need in self.cells[cell].needs}
        return "waiting" if needed.isdisjoint({"failed", "blocked"}) else "blocked"

    def waiting(self) -> dict[str, list[str]]:
        """Waiting cells that must go together, by what joins them."""
        waiting = defaultdict(list)
        for cell in self.cells:
            if self.state(cell) == "waiting":
                waiting[self._unit[cell]].append(cell)
        return waiting

    def ready(self) -> dict[str, list[str]]:
        """What can run now, by what joins it."""
        return {
            unit: cells
            for unit, cells in self.waiting().items()
            if all(self.earliest[c] <= self.now for c in cells)
            and all(self.done.issuperset(self.cells[c].needs) for c in cells)
        }

    def due(self) -> list[int]:
        """When something will have to be done, though nothing happens until then."""
        silences = [task.deadline for _, task in self.busy() if not task.abandoned]
        retries = [max(self.earliest[c] for c in cells) for cells in self.waiting().values()]
        return silences + [retry for retry in retries if retry > self.now]

    def rank(self, cells: Sequence[str]) -> tuple[int, bool]:
        group = self.cells[cells[0]].group
        return -self._chain[group], group not in self._begun

    def next_in(self, slot: str) -> list[Sequence[str]]:
        """What a free slot may run next: of the longest chains its own, else queued, else taken."""
        ready = self.ready()
        longest = min(self.rank(cells)[0] for cells in ready.values())
        held = [p for p in self.promises.values() if self.rank(p.cells)[0] == longest]
        if own := [p for p in held if p.slot == slot]:
            return [min(own, key=lambda p: p.number).cells]
        if queued := [c for u, c in ready.items() if u not in self.promises]:
            best = min(map(self.rank, queued))
            if best[0] == longest:
                return [cells for cells in queued if self.rank(cells) == best]
        near = [p for p in held if self.caches[slot] and self.caches[p.slot] == self.caches[slot]]
        return [max(near or held, key=lambda p: p.number).cells]

    def next_to_promise(self) -> list[Sequence[str]]:
        """What may be promised next: of what must be fetched, that which goes first."""
        queued = [c for u, c in self.ready().items() if u not in self.promises]
        fetched = [cells for cells in queued if self._is_fetched(cells[0])]
        best = min(map(self.rank, fetched), default=None)
        return [cells for cells in fetched if self.rank(cells) == best]

    def next_to_get_one(self) -> list[str]:
        """Slots that may be given the next promise: of the busy ones those that have fewest."""
        have = Counter(promise.slot for promise in self.promises.values())
        may = [s for s, t in self.busy() if not t.retired and not t.abandoned and have[s] < AHEAD]
        fewest = min((have[slot] for slot in may), default=0)
        return [slot for slot in may if have[slot] == fewest]

    def promise(self, slot: str, cells: Sequence[str]) -> None:
        self.promises[self._unit[cells[0]]] = Promise(self._promised, slot, cells)
        self._promised += 1

    def give_back(self, slots: Collection[str]) -> None:
        """Ends the promises of slots that are gone, or will be."""
        self.promises = {u: p for u, p in self.promises.items() if p.slot not in slots}

    def give_up_changed(self) -> None:
        """Ends the promises of cells that a sibling has joined since, or that now go alone."""
        waiting = self.waiting()
        self.promises = {u: p for u, p in self.promises.items() if waiting.get(u) == p.cells}

    def _is_fetched(self, cell: str) -> bool:
        checkpoint = self.cells[cell].checkpoint
        return checkpoint is not None and isinstance(checkpoint.source, HubFolder)

    def start(self, slot: str, cells: Sequence[str]) -> None:
        self.promises.pop(self._unit[cells[0]], None)
        limits = {cell: self.limits[self.cells[cell].work.kind] for cell in cells}
        self.slots[slot] = BusySlot(limits, dict.fromkeys(cells, False), self.now, self.now)
        self._begun.add(self.cells[cells[0]].group)

    def overdue(self) -> set[str]:
        return {s for s, t in self.busy() if not t.abandoned and t.deadline <= self.now}

    def charge(self, cells: Collection[str], cause: Cause) -> set[str]:
        """Charges cells and returns those that are given up."""
        budget = RETRIES[cause]
        for cell in cells:
            self.charges[cell][cause] += 1
            if cause == "infrastructure":
                self.earliest[cell] = self.now + 2 ** self.charges[cell][cause]
        if budget is None:
            return set()
        assert all(self.charges[cell][cause] <= budget + 1 for cell in cells)
        given_up = {cell for cell in cells if self.charges[cell][cause] > budget}
        self.failed |= given_up
        return given_up

    def lose(self, slot: str, cause: Cause) -> list[str]:
        """Forgets a slot and returns the cells to charge; isolates those of a poisoned group."""
        task = self.slots.pop(slot)
        self.give_back([slot])
        suspects = (task.at_work or list(task.cells)) if task else []
        budget = RETRIES[cause]
        if len(suspects) < 2 or budget is None:
            return suspects
        group = self.cells[suspects[0]].group
        self._losses[group] += 1
        charged = [cell for cell in suspects if self.charges[cell][cause] < budget]
        if self._losses[group] == 2 or charged != suspects:
            siblings = [cell for cell in self.cells if self.cells[cell].group == group]
            if self._unit[siblings[0]] == group:
                wait = max(self.earliest[cell] for cell in siblings)
                self.earliest.update(dict.fromkeys(siblings, wait))
                self._unit.update({cell: cell for cell in siblings})
        return charged
