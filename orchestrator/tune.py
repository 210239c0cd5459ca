"""Ray Tune, fed task by task: the scheduler admits, Tune runs a trial for each.

Tune decides nothing: each order is a trial of a seat that is free, no trial is tried again, and no
state of Tune's is kept. Whatever becomes of a seat's trial is told once, in order.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial

from jobs.events import Alive, Event
from orchestrator.inline import Body
from orchestrator.resident import Home
from orchestrator.trial import Order
from orchestrator.tuner import Feed, fit, order_of, ray_error
from workers.artifacts import Files
from workers.telling import Task

_ALIVE_EVERY_SECONDS = 5.0
_LONGEST_START_SECONDS = 300.0
_CLOSING_SECONDS = 8.0


@dataclass(frozen=True)
class TrialEnded:
    """The trial has told all it will."""


@dataclass(frozen=True)
class TrialLost:
    """The trial's process is gone, or Tune is.

    Attributes:
        error: What Ray says of it.
    """

    error: RayError


Word = Event | Alive | TrialEnded | TrialLost
"""What is told of a seat's trial."""


@dataclass
class _Busy:
    """A seat with a task.

    Attributes:
        order: What was ordered.
        since: When.
        said: When the seat was last said to be alive, before the trial had a process.
        trial: Tune's trial, once it has made one.
        started: Whether that has a process that is ready.
        killed: Whether it is to be stopped as soon as there is one.
    """

    order: Order
    since: float
    said: float
    trial: Trial | None = None
    started: bool = False
    killed: bool = False


class Trials:
    """Runs tasks as trials; Tune is started at the first one.

    Args:
        open_files: Called once in each process; tells where artifacts lie.
        body: What runs a task.
        seats: How many seats there are; substitutes of those that go come on top.
    """

    def __init__(self, open_files: Callable[[], Files], body: Body, seats: int) -> None:
        self._arguments, self._most = (open_files, body), 2 * seats
        self._words: queue.SimpleQueue[tuple[str, Word]] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._seats: set[str] = set()
        self._busy: dict[str, _Busy] = {}
        self._processes: dict[str, Any] = {}
        self._places: dict[str, PlacementGroupFactory] = {}
        self._to_stop: deque[Trial] = deque()
        self._feed = Feed()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether there is, or will be, a word to read."""
        return bool(self._seats)

    def start(self, seat: str, home: Home, task: Task) -> None:
        """Runs a task in a seat that runs nothing.

        Args:
            seat: Its name; the process of the seat's last trial is used again.
            home: Where the actor lives that holds the seat.
            task: The task.
        """
        order, now = Order(seat, home, task, *self._arguments), time.monotonic()
        self._seats.add(seat)
        with self._lock:
            self._places[seat] = order.place
            self._busy[seat] = _Busy(order, since=now, said=now)
            if self._thread is None:
                self._feed = Feed()
                self._thread = threading.Thread(
                    target=self._fit, args=(self._feed,), name="tune", daemon=True
                )
                self._thread.start()
            self._feed.put(order)

    def has(self, seat: str) -> bool:
        """Tells whether a seat has a task whose end was not read yet."""
        return seat in self._seats

    def next_word(self, timeout: float) -> tuple[str, Word] | None:
        """Returns a seat and what is told of it, or None after `timeout` seconds."""
        try:
            seat, word = self._words.get(block=timeout > 0, timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(word, TrialEnded | TrialLost):
            self._seats.discard(seat)
        return seat, word

    def rest(self, seat: str) -> None:
        """Has a seat's idle process free its memory, since the seat is to measure."""
        with self._lock:
            if seat in self._processes and seat not in self._busy:
                self._processes[seat].let_go.options(num_returns=0).remote()

    def kill(self, seat: str) -> None:
        """Ends a seat's process at once; of a trial that it ran, the end is told."""
        with self._lock:
            process, place = self._processes.pop(seat, None), self._places.pop(seat, None)
            busy = self._busy.get(seat)
            if busy is None:
                if place is not None:
                    self._feed.forget(place)
            else:
                busy.killed = True
                if busy.trial is not None:
                    process = busy.trial.temporary_state.ray_actor or process
                    if process is None:
                        self._to_stop.append(busy.trial)
                elif self._feed.take_back(busy.order):
                    self._end(seat, TrialEnded())
            if process is not None:
                ray.kill(process)

    def close(self) -> None:
        """Ends Tune and all its processes, within seconds."""
        with self._lock:
            thread = self._thread
            self._feed.close()
            for seat in {*self._busy, *self._processes}:
                self.kill(seat)
        if thread is not None:
            thread.join(_CLOSING_SECONDS)

    def added(self, trial: Trial) -> None:
        """Takes note of a trial that was made of an order."""
        with self._lock:
            busy = self._busy[order_of(trial).seat]
            busy.trial = trial
            if busy.killed:
                self._to_stop.append(trial)

    def to_stop(self) -> list[Trial]:
        """Returns trials to stop that had no process when their end was asked for."""
        with self._lock:
            stopped = list(self._to_stop)
            self._to_stop.clear()
        return stopped

    def started(self, trial: Trial) -> None:
        """Takes note of a trial's process."""
        seat = order_of(trial).seat
        with self._lock:
            self._processes[seat] = trial.temporary_state.ray_actor
            self._busy[seat].started = True
            if self._busy[seat].killed:
                self.kill(seat)

    def told(self, trial: Trial, events: list[Event | Alive]) -> None:
        """Passes a trial's events on."""
        for event in events:
            self._words.put((order_of(trial).seat, event))

    def ended(self, trial: Trial, error: RayError | None) -> None:
        """Passes a trial's end on."""
        seat = order_of(trial).seat
        with self._lock:
            if error is None:
                self._end(seat, TrialEnded())
            else:
                self._processes.pop(seat, None)
                self._end(seat, TrialLost(error))

    def looked(self) -> None:
        """Says that seats are alive whose process is being started: it says nothing itself."""
        now = time.monotonic()
        with self._lock:
            for seat, busy in self._busy.items():
                starts = not busy.started and now - busy.since < _LONGEST_START_SECONDS
                if starts and now - busy.said >= _ALIVE_EVERY_SECONDS:
                    busy.said = now
                    self._words.put((seat, Alive()))

    def _end(self, seat: str, word: TrialEnded | TrialLost) -> None:
        busy = self._busy.pop(seat, None)
        if busy is not None:
            busy.order.task = None
            if busy.killed:  # It may have ended by itself before, and be kept for the next one.
                self._feed.forget(busy.order.place)
            self._words.put((seat, word))

    def _fit(self, feed: Feed) -> None:
        """Runs Tune. Should it break, all trials are lost, and the next order starts it anew."""
        error: Exception | None = None
        try:
            fit(self, feed, self._most)
        except Exception as found:  # noqa: BLE001 - whatever it is, it is no task's.
            error = found
        with self._lock:
            self._thread = None
            self._to_stop.clear()
            self._processes.clear()
            for seat in list(self._busy):
                self._end(seat, TrialLost(ray_error(error)))
