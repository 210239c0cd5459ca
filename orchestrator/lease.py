"""The lease on a store: one driver in a cluster computes its cells.

It is an actor that lives on the driver's node and dies with the driver, however that ends; an
actor that dies alone comes back, so the name is free only when its driver is gone.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAMESPACE = "eigentrace"

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


class _Holder:
    """An actor's body; its name is the lease."""

    def __init__(self, description: str) -> None:
        self._description = description

    def describe(self) -> str:
        """Returns who holds the lease."""
        return self._description


@contextmanager
def lease(store: str, waits: Callable[[str], None]) -> Iterator[None]:
    """Keeps every other driver of this cluster out of a store's cells.

    Args:
        store: Identity of the store, equal for all drivers that write to it.
        waits: Called once, with a description of the holder, if another driver holds the lease.
    """
    name, told = f"lease on {store}", False
    while (actor := _take(name)) is None:
        if not told:
            waits(_holder(name))
            told = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if ray.is_initialized():  # Otherwise the lease went when the driver left the cluster.
            ray.kill(actor)


def _take(name: str) -> Any:
    """Returns the actor that is the lease, or None if another driver has it."""
    context = ray.get_runtime_context()
    here = NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False)
    holder = ray.remote(_Holder).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        scheduling_strategy=here,
    )
    try:
        return holder.remote(_description(context.get_job_id()))
    except ValueError:  # The name is taken.
        return None


def _holder(name: str) -> str:
    """Returns what the holder of a lease says of itself."""
    with suppress(ValueError, RayError, GetTimeoutError):  # It may be ending right now.
        actor = ray.get_actor(name, NAMESPACE)
        return str(ray.get(actor.describe.remote(), timeout=_ANSWER_SECONDS))
    return "another run"


def _description(job: str) -> str:
    """Returns what tells this driver from others."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    submitted = config.get("metadata", {}).get("job_submission_id")
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    name = submitted or f"job {job}"
    return f"{name} on {socket.gethostname()}, pid {os.getpid()}, since {since}"
