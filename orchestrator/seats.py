"""The seat of an actor: what is known of it, and what its loss is put down to."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ray.exceptions import ActorDiedError, RayError

from jobs.errors import UsageError
from orchestrator.losses import cause_of, is_our_kill, is_own_node_lost, reason
from orchestrator.messages import SlotLost
from orchestrator.resident import Home


@dataclass
class Slot:
    """An actor and what is known of it.

    Attributes:
        actor: Ray's handle.
        seat: What kind of worker it is.
        tries: How many times it was opened in a row without success.
        since: Since when it has waited for a place, or for work; None while it works.
        home: Where it lives, once it runs.
        retired: Its node has notice; a substitute is asked for.
        abandoned: Why it was told to die, if it was.
    """

    actor: Any
    seat: str
    tries: int
    since: float | None
    home: Home | None = None
    retired: bool = False
    abandoned: str = ""


def loss_of(name: str, slot: Slot, error: RayError | None, draining: Collection[str]) -> SlotLost:
    """Returns what is told of a slot that is lost.

    Args:
        name: Its name.
        slot: What is known of it.
        error: What Ray says; None if it was abandoned and came to its end.
        draining: Nodes that had notice of their end.

    Raises:
        UsageError: The driver's own node is lost.
    """
    check_own_node(error)
    leaving = slot.home is not None and slot.home.node in draining
    if error is None or (slot.abandoned and is_our_kill(error)):
        cause, message = cause_of(ActorDiedError(), draining=leaving), slot.abandoned
    else:
        cause, message = cause_of(error, draining=leaving), reason(error)
    return SlotLost(name, cause, f"{message} ({slot.home})")


def check_own_node(error: RayError | None) -> None:
    """Ends the run where the cluster ends all that it owns.

    Raises:
        UsageError: The node that this process runs on is lost.
    """
    if error is not None and is_own_node_lost(error):
        raise UsageError(
            "the Ray node that this command runs on has died; finished cells are kept",
            "run the same command again once Ray is up",
        ) from error
