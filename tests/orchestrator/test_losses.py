"""Who is charged for each of Ray's errors, and what a person is told of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray.exceptions
from ray.exceptions import RayError, RayTaskError

from jobs.errors import Cause
from orchestrator.losses import cause_of, is_node_loss, is_our_kill, is_own_node_lost, reason

# Every error that Ray exports, without notice of a node's end: a new one must be judged here.
CAUSES: dict[str, Cause] = {
    "ActorAlreadyExistsError": "user",
    "ActorDiedError": "infrastructure",
    "ActorHandleNotFoundError": "infrastructure",
    "ActorPlacementGroupRemoved": "infrastructure",
    "ActorUnavailableError": "infrastructure",
    "ActorUnschedulableError": "infrastructure",
    "AsyncioActorExit": "infrastructure",
    "AuthenticationError": "user",
    "CrossLanguageError": "user",
    "GetTimeoutError": "infrastructure",
    "LocalRayletDiedError": "infrastructure",
    "NodeDiedError": "infrastructure",
    "ObjectFetchTimedOutError": "infrastructure",
    "ObjectFreedError": "infrastructure",
    "ObjectLostError": "infrastructure",
    "ObjectReconstructionFailedError": "infrastructure",
    "ObjectRefStreamEndOfStreamError": "infrastructure",
    "ObjectStoreFullError": "infrastructure",
    "OufOfBandObjectRefSerializationException": "user",
    "OutOfDiskError": "infrastructure",
    "OutOfMemoryError": "memory",
    "OwnerDiedError": "infrastructure",
    "PendingCallsLimitExceeded": "user",
    "PlasmaObjectNotAvailable": "infrastructure",
    "RayActorError": "infrastructure",
    "RayCgraphCapacityExceeded": "user",
    "RayChannelError": "infrastructure",
    "RayChannelTimeoutError": "infrastructure",
    "RayDirectTransportError": "infrastructure",
    "RayError": "infrastructure",
    "RaySystemError": "infrastructure",
    "RayTaskError": "user",
    "ReferenceCountingAssertionError": "infrastructure",
    "RpcError": "infrastructure",
    "RuntimeEnvSetupError": "infrastructure",
    "StreamingGeneratorReplayInconsistentError": "user",
    "TaskCancelledError": "infrastructure",
    "TaskPlacementGroupRemoved": "infrastructure",
    "TaskUnschedulableError": "infrastructure",
    "UnserializableException": "user",
    "UserCodeException": "user",
    "WorkerCrashedError": "infrastructure",
}


def _exported() -> Iterator[type[RayError]]:
    for found in vars(ray.exceptions).values():
        if isinstance(found, type) and issubclass(found, RayError):
            yield found


def _made(kind: type[RayError], said: str = "") -> RayError:
    """Returns an error as it comes out of Ray, without the arguments that its class asks for."""
    bare: Any = kind
    error = bare.__new__(bare)
    Exception.__init__(error, said)
    error.cause = error.error_msg = error.message = error.traceback_str = said
    error._preempted = error._actor_init_failed = False
    made: RayError = error
    return made


def test_every_error_that_ray_exports_is_judged() -> None:
    assert {kind.__name__ for kind in _exported()} == set(CAUSES)


@pytest.mark.parametrize("kind", list(_exported()), ids=lambda kind: str(kind.__name__))
def test_an_error_is_charged_by_its_class_and_by_notice(kind: type[RayError]) -> None:
    expected = CAUSES[kind.__name__]
    assert cause_of(_made(kind)) == expected
    with_notice = "preempted" if expected == "infrastructure" else expected
    assert cause_of(_made(kind), draining=True) == with_notice


def _raised(error: Exception) -> RayError:
    found = RayTaskError("run", f"Traceback\n  File\n{type(error).__name__}: {error}\n", error)
    return found.as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("broken"), "user"),
        (MemoryError("full"), "memory"),
        (_made(ray.exceptions.ObjectLostError), "infrastructure"),
        (_made(ray.exceptions.TaskCancelledError), "infrastructure"),
    ],
)
def test_what_the_call_raised_is_looked_into(error: Exception, cause: Cause) -> None:
    found = RayTaskError("run", "Traceback\n", error)
    assert cause_of(found) == cause
    assert isinstance(found, RayTaskError)


def test_a_raised_error_is_told_by_the_end_of_its_traceback() -> None:
    assert reason(_raised(ValueError("broken"))) == "ValueError: broken"


def _died(said: str) -> RayError:
    return _made(ray.exceptions.ActorDiedError, said)


# As Ray 2.60 words them.
DEAD = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: _Worker\n"
    "\tactor_id: a7b2\n\tpid: 5294\n\tip: 10.0.0.3\n"
)
CRASHED = DEAD + (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker "
    "exit detail: Worker unexpectedly exits with a connection error code 2. End of file. Some "
    "common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)
NODE = DEAD + (
    "The actor died because its node has died. Node Id: 2df3\n"
    "\tthe actor's node was terminated unexpectedly: health check failed"
)
KILLED = DEAD + "The actor is dead because it was killed by `ray.kill`."
OWNER = DEAD + "The actor is dead because its owner has died. Owner Id: 01"


def test_a_dead_actor_is_told_in_one_line_without_its_numbers() -> None:
    assert reason(_died(CRASHED)) == (
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
    )
    assert reason(_died(NODE)) == "The actor died because its node has died. Node Id: 2df3"
    assert reason(_died("")) == "ActorDiedError"


def test_deaths_are_told_apart() -> None:
    deaths = [CRASHED, NODE, KILLED, OWNER]
    assert [is_node_loss(_died(said)) for said in deaths] == [False, True, False, False]
    assert [is_our_kill(_died(said)) for said in deaths] == [False, False, True, False]
    assert [is_own_node_lost(_died(said)) for said in deaths] == [False, False, False, True]
    assert is_node_loss(_made(ray.exceptions.ActorUnavailableError))
