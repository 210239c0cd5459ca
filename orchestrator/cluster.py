"""The cluster: how it is joined or started, and how it is divided into actors.

Whoever cannot be let in is told so in seconds: Ray itself would wait, or end the process.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private import ray_constants, services, state
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError, RayError

import dashboards
import jobs
import orchestrator
import workers
from jobs.errors import UsageError
from orchestrator.hardware import (
    GPUS_PER_NODE,
    STARTUP_SECONDS,
    Machines,
    run_machines,
    threads_per_worker,
)
from orchestrator.lease import NAMESPACE
from orchestrator.metrics import announce

_OBJECT_STORE_BYTES = 512 * 2**20
_ANSWER_SECONDS = 5.0
_ROUNDING = 1e-6  # Of shares such as 0.333333.
_GPU_KIND = "accelerator_type:"  # How Ray names a resource of such nodes.


@dataclass(frozen=True)
class Shape:
    """How the cluster is divided into actors.

    Attributes:
        actors: How many.
        threads: CPU threads, and Ray CPUs, of each.
        gpus: GPUs of each, or the share that each has of one.
        device: Device of their tasks.
        nodes: How many nodes they are on.
        gpu: What Ray calls the nodes' GPUs; empty where it doesn't tell.
    """

    actors: int
    threads: int
    gpus: float
    device: str
    nodes: int = field(default=1, compare=False)
    gpu: str = field(default="", compare=False)


def connect(address: str | None) -> None:
    """Joins a running cluster, or starts one on this machine.

    Args:
        address: The cluster's address; None joins one that is found, else starts one; `local`
            starts one whatever there is.

    Raises:
        UsageError: No cluster answers at the address, or it doesn't let us in.
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
    named = address or os.environ.get("RAY_ADDRESS")
    if named and "://" in named:
        raise UsageError(
            f"{named} is no address of a Ray cluster's head: Ray Client is not supported",
            "name the head as IP:PORT (usually port 6379), or use `ray job submit`",
        )
    try:
        # As ray.init() resolves it: RAY_ADDRESS, or the cluster that `ray start` left here.
        address = services.canonicalize_bootstrap_address(address)
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options.pop("runtime_env", None)
            _stay_on_loopback()
        else:
            _check_head(address)
        # Named, since Ray would look for a cluster again, and "local" asks for one of our own.
        ray.init(address=address or "local", **options)
        if address is None:
            announce()
    except (ConnectionError, ValueError, RuntimeError, OSError, RayError) as error:
        raise UsageError(
            f"no Ray cluster can be used at {named or address or 'this machine'}: "
            f"{_first_line(error)}",
            "start one with `ray start --head`, unset RAY_ADDRESS, or use --executor inline",
        ) from error


def _check_head(address: str) -> None:
    """Asks the head for the cluster's id, as Ray will: it waits long and then ends the process.

    Raises:
        UsageError: Nobody, or something else, answers there, or the token is refused.
    """
    refused = UsageError(
        f"the Ray cluster at {address} refuses this user's token, or got none",
        "give the cluster's token: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
        "(`ray get-auth-token` prints it on the head)",
    )
    try:
        with init_grpc_channel(address) as channel:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            head.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=_ANSWER_SECONDS)
    except AuthenticationError as error:
        raise refused from error
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise refused from error
        raise ConnectionError(f"no head of a cluster answers there ({error.details()})") from error


def divide(device: str, threads: int | None, most_actors: int, gpus_per_worker: float = 1) -> Shape:
    """Shares the cluster's cores and GPUs out to actors, so that they don't fight over cores.

    Args:
        device: `auto` takes GPUs where the cluster has some or its autoscaler could start some.
        threads: CPU threads of an actor; None shares the cores out.
        most_actors: More would have nothing to do.
        gpus_per_worker: How many GPUs of a node an actor has, or which share of one.

    Raises:
        UsageError: GPUs are asked for and there can be none, or no node has as many.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = max(sum(int(n.get("GPU", 0)) for n in nodes), _startable("GPU"))
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda, but the cluster has no GPU", "use --device cpu or auto")
    cpus = [int(n.get("CPU", 0)) for n in nodes if n.get("CPU", 0) >= 1] or [1]
    if device in ("cuda", "auto") and gpus:
        fitting = _gpu_workers([int(n.get("GPU", 0)) for n in nodes], gpus, gpus_per_worker)
        if not fitting:
            raise UsageError(
                f"--gpus-per-worker {gpus_per_worker:g}, but no node has so many GPUs",
                "a worker is on one node: lower it to the GPUs of a node",
            )
        actors = max(1, min(fitting, most_actors))
        used = math.ceil(actors * gpus_per_worker - _ROUNDING)
        kinds = (name.removeprefix(_GPU_KIND) for n in nodes for name in n if _GPU_KIND in name)
        nodes_used = -(-used // GPUS_PER_NODE)
        return Shape(actors, threads or 1, gpus_per_worker, "cuda", nodes_used, next(kinds, ""))
    threads = threads or threads_per_worker(min(cpus))
    fitting = max(sum(max(1, n // threads) for n in cpus), _startable("CPU") // threads)
    actors = max(1, min(fitting, most_actors))
    return Shape(actors, threads, 0, "cpu" if device == "auto" else device, len(cpus))


def _gpu_workers(of_nodes: list[int], total: int, gpus_per_worker: float) -> int:
    """Returns how many workers the GPUs of some nodes give.

    Args:
        of_nodes: GPUs of each node that is there.
        total: GPUs of all, those included that the autoscaler could bring.
        gpus_per_worker: How many of one node a worker has, or which share of one.
    """
    if gpus_per_worker < 1:
        return total * int(1 / gpus_per_worker + _ROUNDING)
    whole = int(gpus_per_worker)
    there = sum(gpus // whole for gpus in of_nodes)
    # How those that are still to come are spread over nodes, nobody tells.
    return there + (total - sum(of_nodes)) // whole


def machines_of(shape: Shape) -> Machines:
    """Returns what an estimate needs to know of a shared-out cluster."""
    # Workers that share a GPU are as fast together as one that has it.
    return run_machines(
        shape.device,
        max(1, round(shape.actors * min(shape.gpus or 1, 1))),
        shape.threads,
        nodes=shape.nodes,
        gpu=shape.gpu,
        startup_seconds=STARTUP_SECONDS,
        gpus_per_worker=max(1, int(shape.gpus)),
    )


def ask_machines(address: str | None, tasks: int) -> Machines:
    """Asks a running cluster what it, or its autoscaler, has for so many tasks, and leaves it.

    Args:
        address: The cluster's address; None asks the one that is found.
        tasks: What is left to do, in tasks of one worker each.

    Raises:
        UsageError: No cluster runs there, or it doesn't let us in.
    """
    if services.canonicalize_bootstrap_address(address) is None:
        raise UsageError(
            "no Ray cluster was found on this machine or in RAY_ADDRESS",
            "name its head, as in --cluster IP:6379, or leave --cluster out",
        )
    connect(address)
    try:
        return machines_of(divide("auto", None, max(tasks, 1)))
    finally:
        ray.shutdown()


def _stay_on_loopback() -> None:
    """Makes a cluster that is started next listen on the loopback interface alone.

    On Linux, Ray offers its ports to the whole network, as a cluster of several nodes needs; its
    switch for other systems makes it stay on this machine. It is read here and by child processes.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _startable(resource: str) -> int:
    """Returns how much of a resource the autoscaler could bring at most; 0 without one."""
    limits = state.state.get_max_resources_from_cluster_config()
    return int((limits or {}).get(resource, 0))


def _folder(package: Any) -> str:
    return str(Path(package.__path__[0]))


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
