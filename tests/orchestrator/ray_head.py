"""A real cluster as users start it: `ray start --head`, on ports and in a folder of its own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.orchestrator.local_study import environment

_COMMANDS = ["initialization", "setup", "head_setup", "worker_setup"]
_COMMANDS += ["head_start_ray", "worker_start_ray"]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A cluster's addresses.

    Attributes:
        address: Of the cluster, for drivers.
        dashboard: Of the job API.
        logs: Folder of the logs.
    """

    address: str
    dashboard: str
    logs: Path


@contextmanager
def ray_head(
    cpus: int = 2, node_types: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[Head]:
    """Starts a head on loopback and ends it with all that it started.

    Args:
        cpus: Its CPUs.
        node_types: What Ray's autoscaler may start, on this machine: resources and `max_workers`
            of each type by name. Idle nodes go after seconds.
    """
    mark = uuid.uuid4().hex
    # Not pytest's own folder: the paths of sockets have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    gcs, client, dashboard, agent, agent_grpc, metrics, autoscaler = _free_ports(7)
    env = {
        **environment(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # On loopback alone.
        "EIGENTRACE_TEST_CLUSTER": mark,
        # `python` is this one in jobs, and this checkout is not found but by being sent.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    del env["PYTHONPATH"]
    scaling: list[str] = []
    if node_types is not None:
        env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        env |= {"AUTOSCALER_METRIC_PORT": str(autoscaler)}
        written = folder / "autoscaling.yaml"
        written.write_text(yaml.safe_dump(_autoscaling(node_types, f"127.0.0.1:{gcs}")))
        scaling = [f"--autoscaling-config={written}"]
    try:
        subprocess.run(
            [
                *(RAY, "start", "--head", "--disable-usage-stats", f"--num-cpus={cpus}"),
                *(f"--port={gcs}", f"--ray-client-server-port={client}", f"--temp-dir={folder}"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
                *(f"--dashboard-agent-grpc-port={agent_grpc}", "--object-store-memory=200000000"),
                *scaling,
            ],
            check=True,
            capture_output=True,
            env=env,
            cwd=folder,
        )
        logs = folder / "session_latest" / "logs"
        yield Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", logs)
    finally:
        _end_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


def _autoscaling(node_types: Mapping[str, Mapping[str, Any]], gcs: str) -> dict[str, Any]:
    head = "ray.head.default"  # As the provider calls the node that it finds.
    return {
        "cluster_name": "test",
        "max_workers": sum(kind["max_workers"] for kind in node_types.values()),
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 100,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": gcs,
        },
        # The provider's own defaults, which the wheel lacks.
        "auth": {},
        "docker": {},
        **{key: {} for key in ("file_mounts", "head_node", "worker_nodes")},
        **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
        **{f"{when}_commands": [] for when in _COMMANDS},
        "head_node_type": head,
        "available_node_types": {
            head: {"resources": {}, "node_config": {}, "max_workers": 0},
            **{
                name: {
                    "resources": {"object_store_memory": 100_000_000, **kind["resources"]},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": kind["max_workers"],
                }
                for name, kind in node_types.items()
            },
        },
    }


def _end_marked(mark: str) -> None:
    """Ends every process that carries a cluster's mark, so also those that outlive their node."""
    while found := [p for p in psutil.process_iter() if _is_marked(p, mark)]:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=10)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and process.environ().get("EIGENTRACE_TEST_CLUSTER") == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on; all are held until the last is found."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]
