"""A cloud's notice becomes a drain: asked for as each cloud wants it, and told to Ray in time."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import ray
from ray._private import state
from ray.cluster_utils import Cluster

from deploy import spot_notice
from tests.deploy.metadata_server import MetadataServer, metadata_server
from tests.orchestrator.local_study import ROOT, environment
from tests.orchestrator.nodes import cluster_of


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with metadata_server() as made:
        yield made


def _in(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_aws_is_asked_with_a_token_and_tells_when(server: MetadataServer) -> None:
    assert spot_notice.aws_notice(server.address) is None
    server.notice = '{"action": "terminate", "time": "2026-11-26T05:20:30Z"}'
    moment = datetime(2026, 11, 26, 5, 20, 30, tzinfo=UTC).timestamp()
    assert spot_notice.aws_notice(server.address) == moment
    assert not server.refused


@pytest.mark.parametrize("told", ["", "{", "[]", '{"time": 3}', '{"time": "soon"}', "null"])
def test_a_notice_that_cannot_be_read_is_one(server: MetadataServer, told: str) -> None:
    server.notice = told
    deadline = spot_notice.aws_notice(server.address)
    assert deadline is not None
    assert 60 < deadline - time.time() <= 120


def test_google_is_asked_by_its_header(server: MetadataServer) -> None:
    assert spot_notice.gcp_notice(server.address) is None
    server.preempted = True
    deadline = spot_notice.gcp_notice(server.address)
    assert deadline is not None
    assert 20 < deadline - time.time() <= 30
    assert not server.refused


def test_a_server_that_is_away_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spot_notice, "_POLL_SECONDS", 0.0)
    answers: list[Any] = [OSError("away"), OSError("away"), None, OSError("away"), None, 7.0]

    def notice() -> float | None:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert spot_notice.wait_for_notice(notice) == 7.0
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["away", "away"]


def test_a_proxy_is_not_asked(server: MetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # Nobody listens there.
    assert spot_notice.gcp_notice(server.address) is None


def test_a_head_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_notice, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(spot_notice, "_drain", lambda *_: 1 / 0)
    with pytest.raises(ConnectionError, match=r"no node was drained at 127\.0\.0\.1:1: division"):
        spot_notice.drain("127.0.0.1:1", time.time() + 0.3, "test")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(1) as made:
        ray.init(made.address, log_to_driver=False)
        yield made


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("cloud", ["aws", "gcp", "now"])
def test_a_notice_drains_the_node_and_not_the_head(
    cluster: Cluster, server: MetadataServer, cloud: str
) -> None:
    (node,) = cluster.worker_nodes
    which = ["--now", "30"] if cloud == "now" else ["--cloud", cloud, "--server", server.address]
    script = str(ROOT / "deploy" / "spot_notice.py")
    with subprocess.Popen(
        [sys.executable, script, "--address", cluster.address, *which],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as watcher:
        if cloud != "now":
            while len(server.asked) < 3:  # It goes on asking while there is no notice.
                assert watcher.poll() is None
                time.sleep(0.05)
            assert not state.state.get_draining_nodes()
        server.notice, server.preempted = _in(100), True
        told = watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 0, told
    assert f"drained: {node.node_id}" in told
    # A node that is idle ends as soon as it is drained.
    while {n["NodeID"] for n in ray.nodes() if n["Alive"]} != {cluster.head_node.node_id}:
        assert set(state.state.get_draining_nodes()) <= {node.node_id}
        time.sleep(0.1)
    cluster.remove_node(node)
    cluster.add_node(num_cpus=1)
