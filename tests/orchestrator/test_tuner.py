"""What Ray Tune asks and is told, without a cluster."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError
from ray.tune.search import Searcher

from orchestrator import tuner
from orchestrator.resident import Home
from orchestrator.trial import ORDER, Order
from orchestrator.tuner import Feed, ray_error
from tests.orchestrator.sleeping import body, training
from workers.telling import Task

NODE = "0" * 56


def order(seat: str = "worker-0", node: str = NODE) -> Order:
    home = Home("actor", node, "127.0.0.1", 1, "worker.err", {})
    return Order(seat, home, Task((training("sleep"),), "cpu", 1, 1), lambda: None, body)  # type: ignore[arg-type,return-value]


def test_a_search_is_told_of_each_order_once() -> None:
    feed, first, second = Feed(), order(), order("worker-1")
    feed.put(first)
    feed.put(second)
    assert feed.suggest("a") == {ORDER: first}
    assert feed.suggest("b") == {ORDER: second}
    assert feed.suggest("c") is None  # While others run, it doesn't wait.
    feed.put(first)
    feed.on_trial_complete("a")
    assert feed.suggest("c") == {ORDER: first}


def test_an_order_can_be_taken_back_until_it_is_a_trial() -> None:
    feed, first = Feed(), order()
    feed.put(first)
    assert feed.take_back(first)
    assert not feed.take_back(first)
    feed.put(first)
    feed.suggest("a")
    assert not feed.take_back(first)


@pytest.mark.parametrize("closed", [False, True])
def test_a_search_without_trials_waits_for_an_order_or_the_end(closed: bool) -> None:
    feed, ordered = Feed(), order()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(feed.suggest("a")), daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    if closed:
        feed.close()
    else:
        feed.put(ordered)
    thread.join(5)
    assert found == [Searcher.FINISHED if closed else {ORDER: ordered}]


def test_only_trials_of_a_seat_ask_for_the_same_place() -> None:
    assert order().place == order().place
    assert order().place != order("worker-1").place
    assert order().place != order(node="1" * 56).place
    assert order().place.required_resources == {"memory": 1}


def test_an_unknown_error_ends_one_trial_and_is_told_as_it_is() -> None:
    """Tune itself gives up all trials for an error that isn't of an actor or its task."""
    seen: list[Exception] = []
    manager = SimpleNamespace(
        _actor_task_failed=lambda tracked_actor_task, exception: seen.append(exception)
    )
    controller = SimpleNamespace(
        _actor_manager=manager, _trial_task_failure=lambda trial, exception: None
    )
    errors: dict[str, Exception] = {}
    tuner._adapt(SimpleNamespace(_tune_controller=controller), errors)
    full, died = OutOfMemoryError("full"), ActorDiedError()
    for error in (full, died):
        manager._actor_task_failed(tracked_actor_task=None, exception=error)
    assert all(isinstance(error, RayActorError) for error in seen)
    for name, error in zip("ab", seen, strict=True):
        controller._trial_task_failure(SimpleNamespace(trial_id=name), exception=error)
    assert errors == {"a": full, "b": died}


def test_errors_of_the_machinery_are_told_as_errors_of_rays() -> None:
    died = ActorDiedError()
    assert ray_error(died) is died
    for error, said in {ValueError("odd"): "Ray Tune: ValueError: odd", None: "has ended"}.items():
        assert isinstance(ray_error(error), RayError)
        assert said in str(ray_error(error))
