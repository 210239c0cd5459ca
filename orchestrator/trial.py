"""A trial of Ray Tune: one task, run beside the idle actor whose seat it takes.

Every trial of a seat runs in one process, so that what a task leaves in memory serves the next one.
A step gives events; a defect of the task becomes the failure of its cells, never of the trial.
"""

import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from ray.tune import PlacementGroupFactory, Trainable
from ray.tune.result import DONE

from jobs.events import Alive, Event, Progress
from orchestrator.inline import Body
from orchestrator.metrics import tell_of_this_process
from orchestrator.resident import Home, find_home, log_to_stderr, tell
from workers.artifacts import Files
from workers.finetune import held
from workers.telling import Task

ORDER, EVENTS = "order", "events"
"""Keys of what a trial is given and of what its results hold."""

_GATHERING_SECONDS = 0.1


class Order:
    """A task for a seat, as a trial's configuration. Tune copies and prints those: not this one.

    Attributes:
        seat: Name of the seat.
        home: Where the seat's actor lives.
        task: The task; None once it has ended, since Tune forgets no trial.
        open_files: Called once in each process; tells where artifacts lie.
        body: What runs the task.
    """

    def __init__(
        self, seat: str, home: Home, task: Task, open_files: Callable[[], Files], body: Body
    ) -> None:
        self.seat, self.home = seat, home
        self.task: Task | None = task
        self.open_files, self.body = open_files, body

    def __deepcopy__(self, memo: dict[int, Any]) -> "Order":
        return self

    def __repr__(self) -> str:
        return self.seat

    @property
    def place(self) -> PlacementGroupFactory:
        """What is asked of Ray: the seat's node, and next to nothing of it.

        The seat's actor holds its CPUs and GPUs; a group must hold something, so it is a byte. Tune
        gives a process on to trials that ask for the same, so the selector names the seat as well,
        as if it were another node that would do.
        """
        nodes = f"in({self.home.node}, {self.seat})"
        return PlacementGroupFactory(
            [{"memory": 1}], bundle_label_selector=[{"ray.io/node-id": nodes}]
        )


class TaskTrial(Trainable):
    """Runs one order after the other; Tune wraps it in an actor."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Returns where a trial runs, and what it takes there."""
        order: Order = config[ORDER]
        return order.place

    def setup(self, config: dict[str, Any]) -> None:
        """Begins the first trial of the process."""
        order: Order = config[ORDER]
        if order.home.gpus:
            # Ray gave them to the seat's actor; this process, which asked for none, sees all.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(order.home.gpus)
        log_to_stderr()
        self._home, self._files = find_home(), order.open_files()
        tell_of_this_process(self._files)
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial."""
        self._begin()
        return True

    def step(self) -> dict[str, Any]:
        """Returns the next events; progress that comes fast is gathered for a moment."""
        events: list[Event | Alive] = []
        until = time.monotonic() + _GATHERING_SECONDS
        for event in self._stream:
            events.append(event)
            if not isinstance(event, Progress) or time.monotonic() >= until:
                return {EVENTS: events}
        return {EVENTS: events, DONE: True}

    def let_go(self) -> None:
        """Frees the memory of what the last task left, since the seat's actor needs it."""
        held.let_go()
        gc.collect()
        torch.cuda.empty_cache()

    def _begin(self) -> None:
        shutil.rmtree(self.logdir, ignore_errors=True)  # Nothing is written there.
        order: Order = self.config.pop(ORDER)  # Each result would bring it back.
        task = order.task
        if task is None:
            raise ValueError(f"the task of {order.seat} has ended already")
        if task.device == "cuda":
            task = replace(task, device="cuda:0")  # The first of those that it sees.
        self._stream: Iterator[Event | Alive] = tell(task, self._files, order.body, self._home)
