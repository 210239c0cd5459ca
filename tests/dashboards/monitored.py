"""A run that Prometheus watches, as the configuration that ships has it."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.orchestrator.local_study import ROOT, environment

GRAFANA = ROOT / "dashboards" / "grafana"
_VARIABLES = {"$study": ".*", "$__rate_interval": "30s"}


def dashboard() -> dict[str, Any]:
    """Returns the dashboard that ships."""
    found: dict[str, Any] = json.loads((GRAFANA / "eigentrace.json").read_text())
    return found


def expressions() -> dict[str, str]:
    """Returns every expression of the dashboard, its variables filled in, with its panel."""
    found = {
        target["expr"]: panel["title"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    for name, text in _VARIABLES.items():
        found = {expression.replace(name, text): title for expression, title in found.items()}
    return found


def names(expression: str) -> set[str]:
    """Returns the metrics that an expression names."""
    return set(re.findall(r"\bray_\w+", expression))


@contextmanager
def prometheus(program: str, folder: Path, ray: Path) -> Iterator[str]:
    """Runs Prometheus on loopback, in a folder of its own; gives its address.

    Args:
        program: Its path.
        folder: Where it keeps what it keeps.
        ray: Where Ray keeps its sessions.
    """
    shipped = (GRAFANA / "prometheus.yaml").read_text()
    config = folder / "prometheus.yaml"
    config.write_text(shipped.replace("/tmp/ray/", f"{ray}/").replace(": 10s", ": 1s"))
    assert str(ray) in config.read_text()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, started, folder / "prometheus.log")
        yield address
    finally:
        started.terminate()
        started.wait(20)


def _wait_for(address: str, started: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until Prometheus answers."""
    end = time.monotonic() + 30
    while True:
        assert started.poll() is None, log.read_text()
        with suppress(URLError), urlopen(f"{address}/-/ready", timeout=5):
            return
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def ask(address: str, expression: str) -> list[Any]:
    """Returns the values that an expression has now."""
    url = f"{address}/api/v1/query?{urlencode({'query': expression})}"
    with urlopen(url, timeout=10) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
        return found


@contextmanager
def running(study: Path, folder: Path, extra: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a study on a cluster of its own, in a process, until the block ends."""
    command = [
        *(sys.executable, "-m", "orchestrator.run", "full", "--study", str(study)),
        *("--results", str(folder / "results"), "--address", "local"),
        *("--device", "cpu", "--threads", "1", "--workers", "2"),
    ]
    with (folder / "run.log").open("w") as log:
        started = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(extra), cwd=ROOT, text=True
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
