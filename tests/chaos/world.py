"""The world of a chaos run: a cluster of several nodes, a driver, and an object store, all real."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest
from ray.cluster_utils import Cluster

from jobs.cells import PRIMARY_TABLES
from jobs.errors import StoreError
from jobs.place import Place
from orchestrator.live import read_live
from orchestrator.progress import Running
from tests.orchestrator.local_study import ROOT

_SHIFTED = Path(__file__).with_name("shifted")
_SETTINGS = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
_BUCKET = "results"
_DISK = "256m"


@dataclass
class World:
    """What faults befall.

    Attributes:
        study: The study's file.
        places: Folder or URL of the results, with the number of the run in braces.
        folder: Where nodes have their caches, and drivers their logs.
        nodes: How many nodes run work.
        server: Process of the object store, if the results lie in one.
        drivers: Processes of the command line, the last one being the one that counts.
        cluster: The cluster.
        homes: Cache of each node.
        finished: Results of the runs that have ended.
    """

    study: Path
    places: str
    folder: Path
    nodes: int
    server: psutil.Process | None = None
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    cluster: Cluster | None = None
    homes: dict[str, Path] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    @property
    def results(self) -> str:
        """Folder or URL of the results of the run that has not ended."""
        return self.places.format(len(self.finished))

    @property
    def clock(self) -> Path:
        """The file that says how far the wall clock is off."""
        return self.folder / "clock"

    @property
    def caches(self) -> Path:
        """The folder of the nodes' caches: a small disk of its own, where one can be mounted."""
        return self.folder / "caches"

    @property
    def workers(self) -> list[Any]:
        """The nodes that run work."""
        assert self.cluster is not None
        return list(self.cluster.worker_nodes)

    def start_cluster(self) -> None:
        """Starts a head that runs nothing, and the nodes."""
        with _environment({"EIGENTRACE_TEST_CLOCK": str(self.clock), "PYTHONPATH": _path()}):
            self.cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 0, "include_dashboard": False, "_system_config": _SETTINGS,
                },
            )  # fmt: skip
        for _ in range(self.nodes):
            self.add_node()

    def stop_cluster(self) -> None:
        """Ends every process of the cluster."""
        if self.cluster is not None:
            self.cluster.shutdown()
            self.cluster = None

    def add_node(self, cache: Path | None = None, **environment: str) -> Any:
        """Adds a node, with the cache that a dead one left or with one of its own."""
        assert self.cluster is not None
        if cache is None:
            cache = self.caches / str(len(self.homes))
            cache.mkdir()
        own = {
            "EIGENTRACE_CACHE": str(cache),
            "EIGENTRACE_TEST_CLOCK": str(self.clock),
            "PYTHONPATH": _path(),
            **environment,
        }
        with _environment(own):
            node = self.cluster.add_node(num_cpus=1)
        self.homes[node.node_id] = cache
        return node

    def start_driver(self) -> subprocess.Popen[bytes]:
        """Starts the command line on the cluster."""
        assert self.cluster is not None
        new = self.folder / "driver.log"
        with new.open("wb") as out:
            driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos.driver", "full"),
                    *("--study", str(self.study), "--results", self.results, "--threads", "1"),
                    *("--address", self.cluster.address),
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **os.environ,
                    "EIGENTRACE_CACHE": str(self.caches / "driver"),
                    "EIGENTRACE_TEST_CLOCK": str(self.clock),
                    "PYTHONPATH": _path(),
                },
            )
        new.rename(self._log(driver))
        self.drivers.append(driver)
        return driver

    def log_of(self, driver: subprocess.Popen[bytes]) -> str:
        """Returns all that a driver printed."""
        return self._log(driver).read_text(errors="replace")

    def verdict_of(self, driver: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Returns the JSON of a driver's last line; None if it was cut off."""
        lines = self.log_of(driver).splitlines()
        with suppress(ValueError, IndexError):
            found = json.loads(lines[-1])
            return found if isinstance(found, dict) else None
        return None

    def done(self) -> int:
        """Counts the cells whose primary rows are there; the store must answer."""
        place = Place(self.results)
        return sum(len(place.names(table)) for table in PRIMARY_TABLES)

    def running(self) -> tuple[Running, ...]:
        """Returns what the driver said last of cells at work; nothing if it said nothing yet."""
        driver = self.drivers[-1]
        with suppress(StoreError):
            live = read_live(Place(self.results))
            if live is not None and live.pid == driver.pid and driver.poll() is None:
                return live.snapshot.running
        return ()

    def processes(self, title: str) -> list[psutil.Process]:
        """Returns the processes of the nodes that run work whose title begins so."""
        found = []
        for node in self.workers:
            with suppress(psutil.NoSuchProcess):
                raylet = node.all_processes["raylet"][0].process.pid
                found += psutil.Process(raylet).children(recursive=True)
        return [process for process in found if _title(process).startswith(title)]

    def _log(self, driver: subprocess.Popen[bytes]) -> Path:
        return self.folder / f"driver-{driver.pid}.log"

    def close(self) -> None:
        """Ends all of it."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        self.stop_cluster()


@contextmanager
def world_of(study: Path, nodes: int, *, behind_url: bool) -> Iterator[World]:
    """Gives a world, and leaves nothing of it behind.

    Args:
        study: The study's file.
        nodes: How many nodes run work.
        behind_url: Whether the results lie in an object store.
    """
    # Not pytest's own folder: the paths of sockets have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="chaos", dir="/tmp"))
    world = World(study, str(folder / "results-{}"), folder, nodes)
    before = psutil.Process().children(recursive=True)
    try:
        _mount_caches(world.caches)
        if behind_url:
            _start_server(world)
        world.start_cluster()
        yield world
    finally:
        world.close()
        if world.server is not None:
            world.server.kill()
        left = [p for p in psutil.Process().children(recursive=True) if p not in before]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)
        if world.caches.is_mount():
            subprocess.run(["umount", str(world.caches)], check=True)
        shutil.rmtree(folder)


def _mount_caches(folder: Path) -> None:
    """Gives the caches a small disk of their own, where that is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    with suppress(FileNotFoundError):
        subprocess.run(mount, capture_output=True, check=False)


def _start_server(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (world.folder / "server.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)
    world.server = psutil.Process(started.pid)
    request = Request(f"http://127.0.0.1:{port}/{_BUCKET}", method="PUT")
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(request, timeout=5):
                break
        except (URLError, OSError):
            assert time.monotonic() < deadline, (world.folder / "server.log").read_text()
            time.sleep(0.2)
    world.places = (
        f"s3://{_BUCKET}/run-{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    )


def _path() -> str:
    return f"{_SHIFTED}{os.pathsep}{ROOT}"


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables that the processes of a node inherit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield
