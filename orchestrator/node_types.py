"""Nodes that a cluster has, and those that its autoscaler could start: their CPUs and GPUs.

Ray tells what its autoscaler could start on some platforms alone. Where clusters are started from a
file, that file is found on the head, where a job's driver runs; elsewhere the user can tell.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray._private import state

from jobs.errors import UsageError
from orchestrator.hardware import GPUS, gpu_named
from orchestrator.placement import GpuKind

GPU_KIND = "accelerator_type:"
"""How Ray names a resource of nodes with GPUs of a kind."""

_UNBOUNDED = 1000  # Nodes of a type that has no limit of its own.
_MONITOR = re.compile(r"autoscaler/(_private|v2)/monitor\.py$")
_FILE = "--autoscaling-config="
_GCS = "--gcs-address="


@dataclass(frozen=True)
class NodeType:
    """Nodes with equal resources.

    Attributes:
        resources: What Ray counts of each.
        count: How many there are, or may be.
    """

    resources: Mapping[str, float]
    count: int

    @property
    def gpu(self) -> str:
        """What Ray calls its GPUs; empty where it doesn't tell."""
        found = (name.removeprefix(GPU_KIND) for name in self.resources if GPU_KIND in name)
        return next(found, "")

    def amount(self, resource: str) -> int:
        """Returns how much of a resource each node has."""
        return int(self.resources.get(resource, 0))


def alive() -> list[NodeType]:
    """Returns the nodes of the cluster that was joined."""
    return [NodeType(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]


def startable(told: "Sequence[NodeType]" = ()) -> list[NodeType]:
    """Returns what the autoscaler of the cluster that was joined could start at most.

    Args:
        told: What the user says of it.
    """
    if told:
        return list(told)
    config = state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        return [_bounded(dict(g.resources), g.max_count) for g in config.node_group_configs]
    return _of_file()


def told_gpus(text: str) -> list[NodeType]:
    """Reads what a user tells of GPUs that can be started: a count, and what they are.

    Args:
        text: As in `8`, `8xA100` or `2x4xA10G`: nodes of as many GPUs of a kind.

    Raises:
        UsageError: It can't be read.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(\d+)(?:x([A-Za-z][\w-]*))?", text)
    if found is None or not int(found[2]):
        raise UsageError(
            f"--scale-to {text} is no number of GPUs",
            "give one as in 8, 8xA100 or 2x4xA10G (two nodes of four)",
        )
    name = found[3] or ""
    if name and gpu_named(name) is None:
        raise UsageError(
            f"--scale-to {text}: nothing is known of the GPU '{name}'",
            f"name one of {', '.join(GPUS)}, or leave it out",
        )
    resources = {"GPU": float(found[2])} | ({f"{GPU_KIND}{name}": 1.0} if name else {})
    return [NodeType(resources, int(found[1] or 1))]


def gpu_kinds(there: Sequence[NodeType], coming: Sequence[NodeType]) -> tuple[GpuKind, ...]:
    """Returns the GPUs that there are or could be, by what Ray calls them.

    Those that Ray has no name for are one kind, of unknown memory.
    """
    counts: list[Counter[str]] = [Counter(), Counter()]
    in_a_node: Counter[str] = Counter()
    for of, nodes in zip(counts, (there, coming), strict=True):
        for node in nodes:
            of[node.gpu] += node.count * node.amount("GPU")
            in_a_node[node.gpu] = max(in_a_node[node.gpu], node.amount("GPU"))
    found = counts[0] | counts[1]  # The larger of both: what is there may have been started.
    known = {name: gpu_named(name) for name in found}
    return tuple(
        GpuKind(name, count, in_a_node[name], gpu.memory if (gpu := known[name]) else None)
        for name, count in found.items()
        if count
    )


def _of_file() -> list[NodeType]:
    """Returns the node types of the file that this machine's autoscaler was started with."""
    address = ray.get_runtime_context().gcs_address
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            command = process.cmdline()
            if not any(_MONITOR.search(part) for part in command):
                continue
            told = {part.partition("=")[0] + "=": part.partition("=")[2] for part in command}
            if told.get(_GCS) == address and told.get(_FILE):
                return _node_types(yaml.safe_load(Path(told[_FILE]).expanduser().read_text()))
    return []


def _node_types(config: Mapping[str, Any]) -> list[NodeType]:
    whole = config.get("max_workers", _UNBOUNDED)
    head = config.get("head_node_type")
    return [
        _bounded(kind.get("resources", {}), kind.get("max_workers", whole))
        for name, kind in config.get("available_node_types", {}).items()
        if name != head
    ]


def _bounded(resources: Mapping[str, float], count: int) -> NodeType:
    return NodeType(resources, _UNBOUNDED if count < 0 else count)
