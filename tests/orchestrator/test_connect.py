"""Joining a cluster: whoever cannot be let in is told why in seconds, and what to do."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.local_study import environment

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# Every address is tried in one process, since importing Ray and torch is what takes the time.
TRY = """
import sys
from jobs.errors import UsageError
from orchestrator.cluster import connect
for address in sys.argv[1:]:
    try:
        connect(address)
    except UsageError as error:
        print(error)
    else:
        import ray
        print("joined", len(ray.nodes()))
        ray.shutdown()
"""


def _try(*addresses: str, **extra: str | None) -> list[str]:
    variables = {k: v for k, v in (environment() | extra).items() if v is not None}
    done = subprocess.run(
        [sys.executable, "-c", TRY, *addresses],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@contextlib.contextmanager
def _mute() -> Iterator[str]:
    """Gives an address where something listens that never answers."""
    # Ray takes 127.0.0.1 for the machine's own address, and leaves the rest of loopback alone.
    with socket.create_server(("127.0.0.2", 0)) as server:
        yield f"127.0.0.2:{server.getsockname()[1]}"


def _nobody() -> str:
    with _mute() as address:
        return address


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a head that `ray start` started, with token authentication."""
    # A short path: Ray puts sockets into it.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        address = f"127.0.0.1:{_nobody().partition(':')[2]}"
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={address.partition(':')[2]}"),
            *("--num-cpus=1", "--include-dashboard=false", f"--temp-dir={folder}"),
            f"--object-store-memory={80 * 2**20}",
        ]
        log = Path(folder) / "start.log"
        with log.open("wb") as output:
            started = subprocess.Popen(
                command, env=environment(), stdout=output, stderr=output, start_new_session=True
            )
        try:
            while "Ray runtime started" not in log.read_text():
                assert started.poll() is None, log.read_text()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    started.wait(0.1)
            yield address
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def test_a_head_that_listens_is_joined(head: str) -> None:
    assert _try(head) == ["joined 1"]


def test_an_address_where_no_cluster_is_is_named() -> None:
    nobody = _nobody()
    with _mute() as mute:
        addresses = [nobody, mute, "ray://127.0.0.1:10001", "http://127.0.0.1", "nonsense", "a b:c"]
        said = _try(*addresses)
    assert len(said) == len(addresses)
    for address, line in zip(addresses, said, strict=True):
        assert address in line
    assert "Connection refused" in said[0]
    assert "Deadline Exceeded" in said[1]
    assert "ray start --head" in said[1]
    assert "ray job submit" in said[2]


@pytest.mark.parametrize(
    "variables",
    [
        {"RAY_AUTH_TOKEN": "1" * 64},
        {"RAY_AUTH_TOKEN": None, "HOME": "/nonexistent"},
        {"RAY_AUTH_MODE": "disabled"},
    ],
    ids=["wrong", "missing", "off"],
)
def test_a_token_that_is_refused_is_no_riddle(head: str, variables: dict[str, str | None]) -> None:
    (said,) = _try(head, **variables)
    assert f":{head.partition(':')[2]} refuses this user's token" in said
    assert "RAY_AUTH_TOKEN" in said
