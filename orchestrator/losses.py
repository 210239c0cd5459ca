"""Why a worker was lost, by what happened to it: Ray's errors often tell only how it was noticed.

What nobody can mend by trying again is the user's; an error that is not known here is not.
"""

import threading
from contextlib import suppress

import ray
from ray._private import state
from ray.exceptions import (
    ActorAlreadyExistsError,
    ActorUnavailableError,
    AuthenticationError,
    CrossLanguageError,
    NodeDiedError,
    OufOfBandObjectRefSerializationException,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayCgraphCapacityExceeded,
    RayError,
    RayTaskError,
    StreamingGeneratorReplayInconsistentError,
    UnserializableException,
    UserCodeException,
)

from jobs.errors import Cause

_FOR_GOOD = (
    ActorAlreadyExistsError,
    AuthenticationError,
    CrossLanguageError,
    OufOfBandObjectRefSerializationException,
    PendingCallsLimitExceeded,
    RayCgraphCapacityExceeded,
    StreamingGeneratorReplayInconsistentError,
    UnserializableException,
    UserCodeException,
)
_POLL_SECONDS = 2.0
_ADVICE = " Some common causes include"


def cause_of(error: RayError, *, draining: bool = False) -> Cause:
    """Returns who is to be charged for the loss of a worker.

    Args:
        error: What a call to the worker raised.
        draining: Whether its node had notice of its end. Ray knows so only while it keeps the
            node in mind, and a connection that breaks first says nothing of it.
    """
    if isinstance(error, RayTaskError):
        inner = error.cause
        if isinstance(inner, RayError) and not isinstance(inner, RayTaskError):
            return cause_of(inner, draining=draining)
        return "memory" if isinstance(inner, MemoryError) else "user"
    if isinstance(error, OutOfMemoryError):
        return "memory"
    if isinstance(error, _FOR_GOOD):
        return "user"
    return "preempted" if draining or getattr(error, "preempted", False) else "infrastructure"


def reason(error: RayError) -> str:
    """Returns what a person wants to know of an error of Ray's, in one line."""
    if isinstance(error, RayTaskError):  # A traceback: its end names the error.
        return str(error).strip().splitlines()[-1].strip()
    if isinstance(error, OutOfMemoryError):  # The rest is a list of all that was in memory.
        return f"out of memory: {' '.join(str(error).splitlines()[:1])}"
    if getattr(error, "actor_init_failed", False):
        return str(error).strip().splitlines()[-1].strip()
    # The first line is the same for every dead actor, the indented ones its names.
    first, *rest = str(error).strip().splitlines() or [""]
    told = [line for line in rest if line.strip() and not line.startswith("\t")]
    whole = " ".join(" ".join(told or [first]).partition(_ADVICE)[0].split())
    return whole or type(error).__name__


def is_node_loss(error: RayError) -> bool:
    """Tells whether the worker went with its node, or behind a broken connection to it."""
    return (
        isinstance(error, ActorUnavailableError | NodeDiedError)
        or bool(getattr(error, "preempted", False))
        or "its node has died" in str(error)
    )


def is_our_kill(error: RayError) -> bool:
    """Tells whether the worker died because this driver said so."""
    return "killed by `ray.kill`" in str(error)


def is_own_node_lost(error: RayError) -> bool:
    """Tells whether the driver's own node is gone: the cluster then ends all that it owns."""
    return "its owner has died" in str(error)


class Watch:
    """Asks the cluster every two seconds what no call to a worker tells, and remembers it.

    In a thread of its own, since a cluster whose head is gone answers no question for a minute;
    Ray then ends the process.

    Attributes:
        draining: Nodes that had notice of their end.
        dead: Actors of this driver that are dead; one that is idle dies without a word.
    """

    def __init__(self) -> None:
        self.draining: frozenset[str] = frozenset()
        self.dead: frozenset[str] = frozenset()
        self._job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="watch the cluster", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops asking."""
        self._closed.set()
        self._thread.join(_POLL_SECONDS)

    def _poll(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            with suppress(RayError, OSError):  # The head may come back.
                self.draining |= frozenset(state.state.get_draining_nodes())
                self.dead = frozenset(state.state.actor_table(None, self._job, "DEAD"))
