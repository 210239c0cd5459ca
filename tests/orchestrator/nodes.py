"""A Ray cluster within this machine, and what befalls its nodes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import _raylet
from ray.cluster_utils import Cluster

_PREEMPTION = 2
_NOTICE_SECONDS = 600.0


@contextmanager
def cluster_of(nodes: int) -> Iterator[Cluster]:
    """Gives a cluster of a head that runs nothing and nodes of one CPU each."""
    # A dead node is noticed after two seconds instead of fifteen.
    settings = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": settings},
    )
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def kill(cluster: Cluster, node: Any) -> None:
    """Ends a node as a power cut does."""
    cluster.remove_node(node, allow_graceful=False)


def give_notice(cluster: Cluster, node: Any) -> None:
    """Says that a node will be taken away, as clouds do of spot machines."""
    deadline = int((time.time() + _NOTICE_SECONDS) * 1000)
    client = _raylet.GcsClient(address=cluster.gcs_address)  # type: ignore[attr-defined]
    accepted, refusal = client.drain_node(node.node_id, _PREEMPTION, "spot", deadline)
    assert accepted, refusal
