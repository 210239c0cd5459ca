"""The executor on Ray: resident actors, one task each at a time, events streamed as they come.

A cell's rows travel as soon as they are there, so a lost actor costs only its cell in flight.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ray reads these while it is imported: access by token, and no telemetry.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray._private import ray_constants, services, state
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
)

import dashboards
import jobs
import orchestrator
import workers
from jobs.errors import Cause, UsageError
from jobs.events import Event
from orchestrator.drive import threads_per_worker
from orchestrator.schedule import SlotLost, SlotOpened, TaskEnded
from workers.run import Task, stream_task

NAMESPACE = "eigentrace"

_OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Shape:
    """How the cluster is divided into actors.

    Attributes:
        actors: How many.
        threads: CPU threads, and Ray CPUs, of each.
        gpus: GPUs of each.
        device: Device of their tasks.
    """

    actors: int
    threads: int
    gpus: int
    device: str


class _Worker:
    """An actor's body; Ray wraps it."""

    def ready(self) -> bool:
        """Answers once the actor runs."""
        return True

    def run(self, task: Task) -> Iterator[Event]:
        """Yields a task's events."""
        yield from stream_task(task)


def connect(address: str | None) -> None:
    """Joins a running cluster, or starts one on this machine.

    Args:
        address: The cluster's address; None joins one that is found, else starts one.

    Raises:
        UsageError: No cluster answers at the address.
    """
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": "error",
    }
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        # Other nodes get this very code; within a job, the job's working directory brings it.
        packages = (jobs, workers, orchestrator, dashboards)
        options["runtime_env"] = {"py_modules": [_folder(package) for package in packages]}
    try:
        # As ray.init() resolves it: RAY_ADDRESS, or the cluster that `ray start` left here.
        address = services.canonicalize_bootstrap_address(address)
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options.pop("runtime_env", None)
            _stay_on_loopback()
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise UsageError(
            f"no Ray cluster can be used at {address or 'this machine'}: {_first_line(error)}",
            "start one with `ray start --head`, unset RAY_ADDRESS, or use --executor inline",
        ) from error


def _stay_on_loopback() -> None:
    """Makes a cluster that is started next listen on the loopback interface alone.

    On Linux, Ray offers its ports to the whole network, as a cluster of several nodes needs; its
    switch for other systems makes it stay on this machine. It is read here and by child processes.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def divide(device: str, threads: int | None, most_actors: int) -> Shape:
    """Shares the cluster's cores and GPUs out to actors, so that they don't fight over cores.

    Args:
        device: `auto` takes GPUs where the cluster has some or its autoscaler could start some.
        threads: CPU threads of an actor; None shares the cores out.
        most_actors: More would have nothing to do.

    Raises:
        UsageError: GPUs are asked for and there can be none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = max(sum(int(n.get("GPU", 0)) for n in nodes), _startable("GPU"))
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda, but the cluster has no GPU", "use --device cpu or auto")
    cpus = [int(n.get("CPU", 0)) for n in nodes if n.get("CPU", 0) >= 1] or [1]
    if device in ("cuda", "auto") and gpus:
        return Shape(max(1, min(gpus, most_actors)), threads or 1, 1, "cuda")
    threads = threads or threads_per_worker(min(cpus))
    fitting = max(sum(max(1, n // threads) for n in cpus), _startable("CPU") // threads)
    return Shape(
        max(1, min(fitting, most_actors)), threads, 0, "cpu" if device == "auto" else device
    )


class RayExecutor:
    """Runs tasks on resident actors, and replaces an actor that died.

    Args:
        shape: How many actors, and of what size.
    """

    def __init__(self, shape: Shape) -> None:
        self._actor = ray.remote(_Worker).options(
            num_cpus=shape.threads, num_gpus=shape.gpus, max_restarts=0
        )
        self._actors: dict[str, Any] = {}
        self._opening: dict[Any, str] = {}
        self._streams: dict[ray.ObjectRefGenerator, str] = {}
        self._events: list[Event | SlotOpened | SlotLost | TaskEnded] = []
        self._names = iter(f"worker-{number}" for number in range(sys.maxsize))
        for _ in range(shape.actors):
            self._open()

    def start(self, slot: str, task: Task) -> None:
        """Starts a task in a free slot."""
        stream = self._actors[slot].run.options(num_returns="streaming").remote(task)
        self._streams[stream] = slot

    def next_event(self, timeout: float) -> Event | SlotOpened | SlotLost | TaskEnded | None:
        """Returns the next event, or None after `timeout` seconds without one."""
        if not self._events:
            waiting = [*self._streams, *self._opening]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout, fetch_local=False)
            for found in ready:
                if found in self._opening:
                    self._events.append(self._opened(found))
                else:
                    self._events.append(self._streamed(found))
        return self._events.pop(0) if self._events else None

    def close(self) -> None:
        """Ends the actors and leaves the cluster."""
        for actor in self._actors.values():
            ray.kill(actor)
        ray.shutdown()

    def _open(self) -> None:
        """Asks for one more actor; the demand is what an autoscaler sees."""
        slot = next(self._names)
        self._actors[slot] = self._actor.remote()
        self._opening[self._actors[slot].ready.remote()] = slot

    def _opened(self, reference: Any) -> SlotOpened | SlotLost:
        slot = self._opening.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            return self._lost(slot, error)
        return SlotOpened(slot)

    def _streamed(self, stream: ray.ObjectRefGenerator) -> Event | SlotLost | TaskEnded:
        slot = self._streams[stream]
        try:
            event: Event = ray.get(next(stream))
        except StopIteration:
            del self._streams[stream]
            return TaskEnded(slot)
        except RayError as error:
            del self._streams[stream]
            return self._lost(slot, error)
        return event

    def _lost(self, slot: str, error: RayError) -> SlotLost:
        """Ends an actor that can't be trusted any more and asks for another."""
        ray.kill(self._actors.pop(slot))
        self._open()
        return SlotLost(slot, _cause(error), f"{type(error).__name__}: {_first_line(error)}")


def _cause(error: RayError) -> Cause:
    """Returns who is to be charged for an error of Ray's."""
    match error:
        case OutOfMemoryError():
            return "memory"
        case ActorDiedError() if error.preempted:
            return "preempted"
        case RayActorError() | ActorUnavailableError() | ObjectLostError():
            return "infrastructure"
        case _:
            return "user"


def _startable(resource: str) -> int:
    """Returns how much of a resource the autoscaler could bring at most; 0 without one."""
    limits = state.state.get_max_resources_from_cluster_config()
    return int((limits or {}).get(resource, 0))


def _folder(package: Any) -> str:
    return str(Path(package.__path__[0]))


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
