"""The cluster-wide lease: one driver at a time, and a killed one lets go by itself."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.orchestrator.local_study import environment

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OTHER_NODE = "127.0.0.2"

# Says what it does, and holds the lease until its input ends.
DRIVER = """
import sys
import ray
from orchestrator.lease import NAMESPACE, lease
ray.init(
    sys.argv[1],
    namespace=NAMESPACE,
    log_to_driver=False,
    logging_level="error",
    _node_ip_address=sys.argv[2] or None,
)
print("at", ray.util.get_node_ip_address(), flush=True)
with lease(sys.argv[3], lambda holder: print("waits for", holder, flush=True)):
    print("held", flush=True)
    sys.stdin.read()
print("let go", flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and another node, neither with CPUs to give: a lease needs none."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=0, node_ip_address=OTHER_NODE)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@contextmanager
def _driver(cluster: Cluster, store: str, node: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address, node, store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    output: IO[str] | None = process.stdout
    assert output is not None
    return output.readline().rstrip("\n")


def test_a_driver_waits_until_the_other_is_killed_or_done(cluster: Cluster) -> None:
    with _driver(cluster, "store", OTHER_NODE) as first:
        assert _line(first) == f"at {OTHER_NODE}"
        assert _line(first) == "held"
        with _driver(cluster, "store") as second, _driver(cluster, "another store") as third:
            assert _line(second).startswith("at ")
            told = _line(second)
            assert told.startswith("waits for job ")
            assert f", pid {first.pid}, since 20" in told
            assert _line(third).startswith("at ")
            assert _line(third) == "held"
            first.send_signal(signal.SIGKILL)
            assert _line(second) == "held"
            with _driver(cluster, "store") as fourth:
                assert _line(fourth).startswith("at ")
                assert f", pid {second.pid}, since 20" in _line(fourth)
                second.communicate("")
                assert _line(fourth) == "held"
                assert fourth.communicate("")[0] == "let go\n"
                assert third.communicate("")[0] == "let go\n"
            assert (second.returncode, third.returncode, fourth.returncode) == (0, 0, 0)
