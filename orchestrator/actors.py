"""The executor on Ray: resident actors, one task each at a time, events streamed as they come.

A cell's rows travel as soon as they are there, so a lost actor costs only its cell in flight; no
slot's cells are given back before its actor is killed. A task that trains runs as a trial of Ray
Tune beside the actor of its slot, which holds the CPUs and GPUs for it and idles meanwhile.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, RayError

from jobs.cells import Cell
from jobs.events import Alive, Event
from jobs.work import trains
from orchestrator.cluster import Shape
from orchestrator.crew import BESIDE, Crew
from orchestrator.inline import Body
from orchestrator.losses import Watch, is_node_loss
from orchestrator.messages import (
    SlotAlive,
    SlotEvent,
    TaskEnded,
    to_fetch,
)
from orchestrator.placement import Seat
from orchestrator.seats import Slot, loss_of
from workers.artifacts import Files
from workers.stream import stream_task
from workers.telling import Task

if TYPE_CHECKING:
    from orchestrator.tune import Trials, Word

_EVENTS_AHEAD = 16
_CLOSING_SECONDS = 10.0
_TURN_SECONDS = 0.02


class RayExecutor:
    """Runs tasks on resident actors, and replaces an actor that died or is going to.

    Args:
        shape: How many actors, and of what size.
        open_files: Called once in each actor; tells where artifacts lie.
        body: What runs a task.
        seats: Kinds of actors by name, of which as many are held as `resize` asks for. Without,
            all actors of the shape are alike and are held throughout.
    """

    def __init__(
        self,
        shape: Shape,
        open_files: Callable[[], Files],
        body: Body = stream_task,
        seats: Mapping[str, Seat] | None = None,
    ) -> None:
        self._arguments = (open_files, body)
        self._crew = Crew(shape, seats, open_files, body)
        self._slots = self._crew.slots
        self._streams: dict[ray.ObjectRefGenerator, str] = {}
        self._events: deque[Event | SlotEvent] = deque()
        self._watch = Watch()
        self._trials: Trials | None = None

    @property
    def workers(self) -> tuple[int, int]:
        """How many actors can be given tasks, and how many are wanted."""
        return self._crew.counts

    def resize(self, demand: Mapping[str, int]) -> None:
        """Holds as many actors of each kind as have work, where they come and go."""
        self._events += self._crew.resize(demand)

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in a free slot."""
        self._slots[slot].since = None
        home = self._slots[slot].home
        if home is not None and trains(task.cells[0].work):
            begin = self._slots[slot].actor.begin
            begin.options(concurrency_group=BESIDE, num_returns=0).remote(task.cells[:1])
            self._tune().start(slot, home, task)
            return
        if self._trials is not None:
            self._trials.rest(slot)
        run = self._slots[slot].actor.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=_EVENTS_AHEAD
        )
        self._streams[run.remote(task)] = slot

    def prepare(self, slot: str, cells: tuple[Cell, ...]) -> None:
        """Has a slot's actor fetch beside its task; nobody waits for it, and nothing comes back."""
        if slot in self._slots:
            prepare = self._slots[slot].actor.prepare
            prepare.options(concurrency_group=BESIDE, num_returns=0).remote(to_fetch(cells[0]))

    def next_event(self, timeout: float) -> Event | SlotEvent | None:
        """Returns the next event, or None after at most `timeout` seconds without one.

        Raises:
            UsageError: Actors cannot be made, differ from this process, or are out of reach.
        """
        self._retire_draining()
        if not self._events:  # One loss at a time: the caller must not start what it lost already.
            self._lose_a_dead_idler()
        if not self._events:
            self._wait(timeout)
        return self._events.popleft() if self._events else None

    def abandon(self, slot: str, message: str) -> None:
        """Kills what runs in a slot; the loss is reported once Ray has confirmed it."""
        if slot in self._slots:
            self._slots[slot].abandoned = message
            if self._trials is not None and self._trials.has(slot):
                self._trials.kill(slot)
            else:
                ray.kill(self._slots[slot].actor)

    def release(self, slot: str) -> None:
        """Closes the actor of a retired slot for good."""
        if slot in self._slots:
            self._kill(slot)

    def close(self) -> None:
        """Ends the actors and leaves the cluster, within seconds even if nothing answers."""
        self._watch.close()
        leaving = threading.Thread(target=self._leave, name="leave the cluster", daemon=True)
        leaving.start()
        leaving.join(_CLOSING_SECONDS)

    def _leave(self) -> None:
        if self._trials is not None:
            self._trials.close()
        for slot in self._slots.values():
            ray.kill(slot.actor)
        ray.shutdown()

    def _tune(self) -> "Trials":
        """Returns what runs trials, imported and made at the first: it takes seconds."""
        if self._trials is None:
            from orchestrator.tune import Trials

            self._trials = Trials(*self._arguments, self._crew.most)
        return self._trials

    def _wait(self, timeout: float) -> None:
        """Reads what is told next; waits for it, but no more than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._trials is not None and self._trials.running:
            left = max(0.0, deadline - time.monotonic())
            # Nothing waits for actors and trials at once: they get their turns.
            idle = not self._read_actors(min(left, _TURN_SECONDS))
            word = self._trials.next_word(left if idle else 0.0)
            if word is not None:
                self._heard(*word)
            if self._events or not left:
                return
        left = max(0.0, deadline - time.monotonic())
        if not self._read_actors(left):
            time.sleep(left)

    def _read_actors(self, timeout: float) -> bool:
        """Reads what an actor tells next; returns False at once if every one is idle."""
        waiting = [*self._streams, *self._crew.opening]
        if not waiting:
            return False
        # What comes over the network counts once it is here, so that no read blocks.
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        for found in ready:
            if found in self._crew.opening:
                self._opened(found)
            else:
                self._streamed(found)
        return True

    def _heard(self, name: str, word: "Word") -> None:
        """Takes in what is told of a trial; of a slot that is gone, nothing counts any more."""
        from orchestrator.tune import TrialEnded, TrialLost

        if name not in self._slots:
            return
        match word:
            case TrialEnded() if self._slots[name].abandoned:
                self._lost_trial(name, None)
            case TrialEnded():
                self._end_task(name)
            case TrialLost(error):
                self._lost_trial(name, error)
            case Alive():
                self._events.append(SlotAlive(name))
            case _:
                self._events.append(word)

    def _lost_trial(self, name: str, error: RayError | None) -> None:
        """Gives the seat of a lost trial a new name, unless its actor is lost as well."""
        slot = self._slots[name]
        if slot.home is None or slot.retired or (error is not None and is_node_loss(error)):
            self._lost(name, error)
            return
        self._events.append(loss_of(name, slot, error, self._watch.draining))
        self._events.append(self._crew.rename(name))

    def _opened(self, reference: Any) -> None:
        if (event := self._crew.opened(reference)) is not None:
            self._events.append(event)

    def _retire_draining(self) -> None:
        """Takes slots whose nodes have notice out of use, and asks for substitutes at once."""
        for name, slot in list(self._slots.items()):
            if slot.home and slot.home.node in self._watch.draining and not slot.retired:
                self._events.append(self._crew.retire(name))
                self._crew.replace(slot)

    def _lose_a_dead_idler(self) -> None:
        """Reports a slot that died while it had nothing to do, so that no cell is given to it."""
        busy = set(self._streams.values())
        for name, slot in self._slots.items():
            if slot.home and name not in busy and slot.home.actor in self._watch.dead:
                self._lost(name, ActorDiedError())
                return

    def _streamed(self, stream: ray.ObjectRefGenerator) -> None:
        name = self._streams.pop(stream)
        try:
            event: Event | Alive = ray.get(next(stream))
        except StopIteration:
            if self._slots[name].abandoned:
                self._lost(name, None)
            else:
                self._end_task(name)
        except RayError as error:
            self._lost(name, error)
        else:
            self._streams[stream] = name  # Last in line again: every stream gets its turn.
            self._events.append(SlotAlive(name) if isinstance(event, Alive) else event)

    def _lost(self, name: str, error: RayError | None) -> None:
        """Ends an actor that can't be trusted any more, and asks for another."""
        loss = loss_of(name, self._slots[name], error, self._watch.draining)
        if not (slot := self._kill(name)).retired:
            self._crew.replace(slot)
        self._events.append(loss)

    def _end_task(self, name: str) -> None:
        self._slots[name].since = time.monotonic()
        self._events.append(TaskEnded(name))

    def _kill(self, name: str) -> Slot:
        """Ends all that a slot has."""
        slot = self._crew.dismiss(name)
        if self._trials is not None:
            self._trials.kill(name)
        return slot
