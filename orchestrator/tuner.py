"""What Ray Tune calls: it asks for the next order, and tells what becomes of each trial.

Tune is kept from whatever it would do by itself: it shows nothing, keeps no state, tries nothing
again, and an error of Ray's that it doesn't know ends one trial, not all.
"""

import logging
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.train.constants import _get_ray_train_session_dir
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from jobs.events import Alive, Event
from orchestrator.trial import EVENTS, ORDER, Order, TaskTrial

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # The new one prints whatever the verbosity.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # Relative paths stay what they are.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # Of processes that hang before they are a trial's.
}
_LOGGERS = ("ray.tune", "ray.train", "ray.air")


class Listener(Protocol):
    """Who is told of trials, in Tune's thread."""

    def added(self, trial: Trial) -> None:
        """A trial was made of an order."""

    def to_stop(self) -> list[Trial]:
        """Returns trials to stop, asked for all the time."""

    def started(self, trial: Trial) -> None:
        """A trial has a process."""

    def told(self, trial: Trial, events: list[Event | Alive]) -> None:
        """A trial tells something."""

    def ended(self, trial: Trial, error: RayError | None) -> None:
        """A trial has ended by itself or was stopped, or an error has ended it."""

    def looked(self) -> None:
        """Tune has looked at everything once more: at least every tenth of a second."""


def order_of(trial: Trial) -> Order:
    """Returns what a trial was made of."""
    order: Order = trial.config[ORDER]
    return order


class _Unsaved:
    """Has nothing that is saved: Tune pickles what it is given, for `Tuner.restore`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Feed(_Unsaved, Searcher):
    """Suggests, as a search does, what the scheduler has ordered."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._orders: deque[Order] = deque()
        self._gone: list[PlacementGroupFactory] = []
        self.give_back: Callable[[PlacementGroupFactory], None] = lambda _: None
        self._running: set[str] = set()
        self._closed = False

    def put(self, order: Order) -> None:
        """Hands an order over."""
        with self._changed:
            self._orders.append(order)
            self._changed.notify()

    def take_back(self, order: Order) -> bool:
        """Takes an order back; returns whether no trial was made of it yet."""
        with self._changed, suppress(ValueError):
            self._orders.remove(order)
            return True
        return False

    def forget(self, place: PlacementGroupFactory) -> None:
        """Has Tune give back what it keeps for a seat that is gone: it would hold its node."""
        with self._changed:
            self._gone.append(place)
            self._changed.notify()

    def close(self) -> None:
        """Suggests nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the configuration of a trial; None if there is none yet.

        While no trial runs it waits for an order: Tune itself would look once a second, and at
        nothing else. So what is to be given back is given back here.
        """
        while True:
            with self._changed:
                if not self._running:
                    self._changed.wait_for(lambda: self._orders or self._closed or self._gone)
                gone, self._gone = self._gone, []
                if self._closed:
                    return str(Searcher.FINISHED)
                if not gone:
                    if not self._orders:
                        return None
                    self._running.add(trial_id)
                    return {ORDER: self._orders.popleft()}
            for place in gone:  # Without the lock: who holds another one may wait for this one.
                self.give_back(place)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Takes note of a trial's end."""
        with self._changed:
            self._running.discard(trial_id)


class _Admitted(_Unsaved, FIFOScheduler):
    """Runs every trial at once: it was admitted before it was made."""

    def __init__(self, listener: Listener, feed: Feed, errors: dict[str, Exception]) -> None:
        super().__init__()
        self._listener, self._feed, self._errors = listener, feed, errors
        self._adapted = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if not self._adapted:
            _adapt(tune_controller, self._errors)
            self._feed.give_back = partial(_give_back, tune_controller._tune_controller)
            self._adapted = True
        # Tune keeps one idle process in all, unless a trial waits that asks for the same; and none
        # waits here, since a seat gets a task when it is free.
        cache, place = tune_controller._actor_cache, trial.placement_group_factory
        cache.increase_max(place, 1 - cache._max_num_objects[place])
        self._listener.added(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        for trial in self._listener.to_stop():
            tune_controller.stop_trial(trial)


class _Callback(_Unsaved, tune.Callback):
    """Tells the listener."""

    def __init__(self, listener: Listener, errors: dict[str, Exception]) -> None:
        self._listener, self._errors = listener, errors

    def on_trial_start(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        self._listener.started(trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._listener.told(trial, result.pop(EVENTS))  # Tune keeps the last result.

    def on_trial_complete(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        self._listener.ended(trial, None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        self._listener.ended(trial, ray_error(self._errors.pop(trial.trial_id, None)))

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        self._listener.looked()


class _LostError(RayActorError):
    """A process was lost for a reason that Tune doesn't take for one."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


def _adapt(controller: Any, errors: dict[str, Exception]) -> None:
    """Changes what no setting of Tune's changes.

    The errors of lost processes reach no callback, and those that are no RayActorError, as of a
    process that took too much memory, end all trials. State is written for `Tuner.restore`, which
    nobody calls: the ledger knows what is left.

    Args:
        controller: Tune's, wrapped as it gives it to schedulers.
        errors: Takes the error of each trial that has one, by the trial's id.
    """
    inner = controller._tune_controller
    manager = inner._actor_manager
    task_failed, trial_failed = manager._actor_task_failed, inner._trial_task_failure

    def on_task_failure(tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        task_failed(tracked_actor_task, exception if known else _LostError(exception))

    def on_trial_failure(trial: Trial, exception: Exception) -> None:
        reason = exception.reason if isinstance(exception, _LostError) else exception
        errors.setdefault(trial.trial_id, reason)
        trial_failed(trial, exception)

    manager._actor_task_failed = on_task_failure
    inner._trial_task_failure = on_trial_failure
    inner.checkpoint = lambda force=False, wait=False: None


def _give_back(controller: Any, place: PlacementGroupFactory) -> None:
    """Ends the idle process of a seat, and what was asked of Ray for it."""
    cache, manager = controller._actor_cache, controller._actor_manager
    while (process := cache.pop_cached_object(place)) is not None:
        process.set_on_stop(None)
        process.set_on_error(None)
        if manager.remove_actor(process, kill=True):
            manager._try_kill_actor()  # It would be tried at Tune's next step, which may be far.
    cache._max_num_objects.pop(place, None)


def ray_error(error: Exception | None) -> RayError:
    """Returns an error as one of Ray's: those of other kinds are of its machinery."""
    if isinstance(error, RayError):
        return error
    return RayError(f"Ray Tune: {type(error).__name__}: {error}" if error else "Ray Tune has ended")


def fit(listener: Listener, feed: Feed, most: int) -> None:
    """Runs Tune until the feed is closed and each trial has ended.

    Args:
        listener: Is told of trials.
        feed: Where orders come from.
        most: Most trials at a time.
    """
    os.environ.update(_SETTINGS)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    name = f"eigentrace-{uuid.uuid4().hex}"
    # Within the session's folder, as what Tune writes besides: it goes with the cluster.
    artifacts = Path(_get_ray_train_session_dir())
    artifacts.mkdir(parents=True, exist_ok=True)
    errors: dict[str, Exception] = {}
    try:
        with TemporaryDirectory(prefix="eigentrace-", dir=artifacts) as folder:
            tune.Tuner(
                TaskTrial,
                tune_config=tune.TuneConfig(
                    search_alg=feed,
                    scheduler=_Admitted(listener, feed, errors),
                    num_samples=-1,
                    max_concurrent_trials=most,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name=name,
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[_Callback(listener, errors)],
                ),
            ).fit()
    finally:
        for left in artifacts.glob(f"*/{name}"):
            shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):  # Another run's folder may be beside it.
                left.parent.rmdir()
