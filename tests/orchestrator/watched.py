"""The executor on Ray, watched: what ran where, and how often."""

import os
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from jobs.cells import Cell
from jobs.events import Alive, Event, Finished, Started
from jobs.work import trains
from orchestrator.actors import RayExecutor
from orchestrator.cluster import Shape
from orchestrator.messages import SlotEvent, SlotLost, SlotOpened, SlotRetired, TaskEnded
from tests.orchestrator import sleeping
from workers.artifacts import Files, SharedFiles
from workers.finetune import held
from workers.telling import Task


def body(task: Task, files: Files) -> Generator[Event | Alive, None, None]:
    """Does what cells say, and tells where."""
    where: dict[str, Any] = {
        "held": len(held._held),
        "on": ray.get_runtime_context().get_node_id(),
        "device": task.device,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    if trains(task.cells[0].work):
        held._held[:] = [None]  # type: ignore[list-item]
    for event in sleeping.body(task, files):
        if isinstance(event, Finished):
            event = replace(event, provenance=event.provenance | where)
        yield event


@dataclass(frozen=True)
class Run:
    """A finished cell: its slot, and where it ran."""

    cell: Cell
    slot: str
    where: dict[str, Any]


class Watched:
    """An executor that outlives the loop that drives it, and remembers what it was told."""

    def __init__(self, executor: RayExecutor) -> None:
        self._executor = executor
        self._tasks: dict[str, tuple[Cell, ...]] = {}
        self._again: list[SlotEvent] = []
        self.open: dict[str, SlotOpened] = {}
        self.runs: list[Run] = []
        self.started: Counter[str] = Counter()
        self.lost: list[SlotLost] = []
        self.most_at_once = 0
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    @property
    def busy(self) -> bool:
        """Whether the end of a task was not told yet, which the drive loop doesn't wait for."""
        return bool(self._tasks)

    def close(self) -> None:
        if not self._closed:
            self._executor.close()
        self._closed = True

    def forget(self) -> None:
        """Begins anew, with the slots that are there."""
        self.runs, self.lost, self.started = [], [], Counter()
        self._again = list(self.open.values())

    def start(self, slot: str, task: Task) -> None:
        self._tasks[slot] = task.cells
        self.most_at_once = max(self.most_at_once, len(self._tasks))
        self._executor.start(slot, task)

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        event = self._again.pop(0) if self._again else self._executor.next_event(timeout)
        match event:
            case SlotOpened(slot):
                self.open[slot] = event
            case SlotRetired(slot):
                self.open.pop(slot)
            case SlotLost(slot):
                self.open.pop(slot, None)
                self._tasks.pop(slot, None)
                self.lost.append(event)
            case TaskEnded(slot):
                self._tasks.pop(slot)
            case Started(cell_id):
                self.started[cell_id] += 1
            case Finished(cell_id):
                found = [(c, s) for s, t in self._tasks.items() for c in t if c.id == cell_id]
                self.runs.append(Run(*found[0], event.provenance))
        return event

    def until(self, kind: type[Any], seconds: float = 150) -> Any:
        """Returns the first event of a kind."""
        deadline = time.monotonic() + seconds
        while not isinstance(event := self.next_event(1), kind):
            assert time.monotonic() < deadline, f"no {kind.__name__}"
        return event

    def all_open(self, count: int = 2) -> list[SlotOpened]:
        """Waits until so many slots are there."""
        while len(self.open) < count:
            self.until(SlotOpened)
        return list(self.open.values())

    def run(self, slot: str, chosen: Cell, device: str = "cpu") -> dict[str, Any]:
        """Runs a cell and returns where it ran."""
        self.start(slot, Task((chosen,), device, 1, 1))
        found: Finished = self.until(Finished)
        assert self.until(TaskEnded) == TaskEnded(slot)
        return found.provenance


def open_executor(folder: Path, shape: Shape | None = None) -> RayExecutor:
    return RayExecutor(shape or Shape(2, 1, 0, "cpu"), partial(SharedFiles, folder), body)
