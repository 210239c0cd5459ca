"""A node that sees neither the results nor the study's files, and the actor that serves them."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from jobs.errors import DataError
from jobs.place import Place
from jobs.records import MARKER, SCHEMA_VERSION
from jobs.study import load_study
from jobs.work import CorpusWork
from orchestrator.actors import RayExecutor
from orchestrator.cache import DriverFiles, FileServer, serve_files
from orchestrator.cluster import Shape, connect
from orchestrator.drive import Executor, How, drive
from orchestrator.inline import InlineExecutor
from orchestrator.plan import Plan, make_plan
from orchestrator.progress import ProgressView
from orchestrator.store import Store
from tests.conftest import Texts
from tests.orchestrator.local_study import write_study
from tests.results import assert_same_rows
from workers.artifacts import SharedFiles
from workers.manifest import MANIFEST, describe
from workers.remote import CachedFiles, open_files

MIB = 2**20
CELL = "c" * 64
STORE = "5" * 32
NOTHING = b'{"files": {}}'
MORE = """
[[suites]]
kind = "pico"
[suites.corpus]
vocabulary_size = 1024
training_tokens = 20_000
[[suites.models]]
name = "a"
hidden_size = 32
layers = 1
heads = 1
last_step = 4
[datasets.heldout]
kind = "pico"
sequences = 60
sequence_length = 32
"""


def on_ray(test: Any) -> Any:
    """Marks a test that needs a cluster."""
    for mark in (pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)):
        test = mark(test)
    return test


@pytest.fixture
def server(tmp_path: Path) -> FileServer:
    """What the actor does, in this process."""
    return FileServer(tmp_path / "results")


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster of one node, which has no CPU for workers."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def _connected(head: Cluster) -> Iterator[None]:
    connect(head.address)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Blind:
    """A node that cannot see some folder of this machine.

    Attributes:
        hidden: The folder.
        cache: The node's cache.
    """

    hidden: Path
    cache: Path


@pytest.fixture
def blind(
    head: Cluster, tmp_path_factory: pytest.TempPathFactory, _connected: None
) -> Iterator[Blind]:
    """A second node of the cluster, with two CPUs."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--mount", "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace, to hide a folder from a node")
    hidden, cache = tmp_path_factory.mktemp("hidden"), tmp_path_factory.mktemp("node-cache")
    hide = ["sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(hidden)]
    start = [str(Path(sys.executable).with_name("ray")), "start", "--address", head.address]
    node = subprocess.Popen(
        [unshare, "--mount", *hide, *start, "--num-cpus", "2", "--block"],
        env={**os.environ, "EIGENTRACE_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while ray.cluster_resources().get("CPU", 0) < 2:
            assert node.poll() is None, "the second node ended"
            time.sleep(0.1)
        yield Blind(hidden, cache)
    finally:
        ours = psutil.Process(node.pid)
        family = [*ours.children(recursive=True), ours]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        psutil.wait_procs(family)


def _run(plan: Plan, results: Path, executor: Executor) -> None:
    store = Store(results)
    view = ProgressView(plan.cells, frozenset(), Console(quiet=True), 1)
    try:
        drive(plan, store, executor, view, How("cpu", 1))
    finally:
        executor.close()


def _new_results(folder: Path) -> Path:
    folder.mkdir()
    (folder / MARKER).write_text(json.dumps({"format": SCHEMA_VERSION, "store": STORE}))
    return folder


@pytest.mark.parametrize("cell_id", ["..", "c" * 63, f"../artifacts/{CELL}", f"{CELL}/step8", ""])
def test_nothing_but_artifacts_is_served(server: FileServer, cell_id: str) -> None:
    for ask in (server.manifest, partial(server.read, name="a", offset=0)):
        with pytest.raises(ValueError, match="names no artifact"):
            ask(cell_id)
    with pytest.raises(ValueError, match="names no artifact"):
        server.write(f"{cell_id}.{'0' * 31}", "a", 0, b"")


@pytest.mark.parametrize("name", ["../../eigentrace.json", "/etc/hostname"])
def test_nothing_outside_of_an_artifact_is_served(server: FileServer, name: str) -> None:
    upload = server.begin(CELL, NOTHING)
    assert upload is not None
    with pytest.raises(DataError, match="no path within an artifact"):
        server.write(upload, name, 0, b"")
    server.commit(upload, NOTHING)
    with pytest.raises(DataError, match="no path within an artifact"):
        server.read(CELL, name, 0)


def test_a_file_elsewhere_is_served_to_those_who_know_its_hash(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("secret")
    known = sha256(b"secret").hexdigest()
    assert server.read_study(str(tmp_path / "a"), known, 2) == b"cret"
    with pytest.raises(DataError, match="a changed since it was planned → run the command again"):
        server.read_study(str(tmp_path / "a"), "0" * 64, 0)
    with pytest.raises(DataError, match="cannot read"):
        server.read_study(str(tmp_path / "b"), known, 0)


def test_an_artifact_of_an_earlier_version_gets_its_manifest(
    server: FileServer, tmp_path: Path
) -> None:
    assert server.manifest(CELL) is None
    folder = tmp_path / "results" / "artifacts" / CELL
    folder.mkdir(parents=True)
    (folder / "a").write_text("old")
    assert server.manifest(CELL) == describe(folder) == (folder / MANIFEST).read_bytes()


def test_what_a_dead_upload_left_goes_with_the_next_one(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").write_text("all of it")
    manifest = describe(tmp_path / "made")
    dead, alive = server.begin(CELL, manifest), server.begin(CELL, manifest)
    assert dead is not None
    assert alive is not None
    server.write(dead, "a", 0, b"all")
    with pytest.raises(OSError, match="came damaged"):
        server.commit(dead, manifest)
    assert server.manifest(CELL) is None
    server.write(alive, "a", 4, b"of it")
    server.write(alive, "a", 0, b"all ")
    server.commit(alive, manifest)
    assert server.read(CELL, "a", 0) == b"all of it"
    assert list((tmp_path / "results" / "work").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        server.write(dead, "a", 3, b" of it")
    assert server.begin(CELL, manifest) is None


@pytest.fixture
def driver(_connected: None, tmp_path: Path) -> DriverFiles:
    """The driver's node as other nodes have it."""
    return serve_files(Place(tmp_path / "results"))


@on_ray
def test_files_of_any_length_arrive(driver: DriverFiles, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for length in (0, 1, 4 * MIB, 8 * MIB, 30 * MIB + 1):
        made.joinpath(f"step{length}").mkdir(parents=True)
        made.joinpath(f"step{length}", "bytes").write_bytes(random.Random(0).randbytes(length))
    manifest = describe(made)
    here = CachedFiles(driver, tmp_path / "here", STORE)
    here.publish(made, CELL)
    assert not made.exists()
    assert (tmp_path / "results" / "artifacts" / CELL / MANIFEST).read_bytes() == manifest
    there = CachedFiles(driver, tmp_path / "there", STORE).artifact(CELL)
    assert there is not None
    assert describe(there) == manifest
    big = there / f"step{30 * MIB + 1}" / "bytes"
    sent = driver.study_chunks(str(big), sha256(big.read_bytes()).hexdigest())
    assert b"".join(sent) == big.read_bytes()


@on_ray
def test_errors_of_the_server_are_what_they_were_there(driver: DriverFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="changed since it was planned"):
        list(driver.study_chunks(__file__, "0" * 64))
    with pytest.raises(FileNotFoundError, match=CELL):
        list(driver.chunks(CELL, "a"))
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a").write_text("before")
    manifest = describe(folder)
    (folder / "a").write_text("after")
    with pytest.raises(OSError, match="came damaged"):
        driver.publish(folder, CELL, manifest)
    assert driver.manifest(CELL) is None
    while list((tmp_path / "results" / "work").iterdir()):
        time.sleep(0.01)


@on_ray
def test_a_driver_that_is_gone_is_no_fault_of_the_cell(driver: DriverFiles) -> None:
    assert driver.manifest(CELL) is None
    ray.kill(driver.server)

    def ask_for_a_minute() -> None:
        # Ray only asks for the server's end: a call may reach it before.
        until = time.monotonic() + 60
        while time.monotonic() < until:
            driver.manifest(CELL)

    with pytest.raises(ConnectionError, match="the driver's node cannot be reached"):
        ask_for_a_minute()


@on_ray
def test_a_node_that_sees_no_file_of_the_driver_gives_the_same_rows(
    blind: Blind, tiny_series: Path, texts: Texts, tmp_path: Path
) -> None:
    series, words = blind.hidden / "series", blind.hidden / "words.txt"
    shutil.copytree(tiny_series, series)
    shutil.copyfile(texts.txt, words)
    study = write_study(blind.hidden, series, words, MORE)
    plan = make_plan(load_study(str(study), []))
    alone = _new_results(tmp_path / "alone")
    _run(plan, alone, InlineExecutor(SharedFiles(alone)))
    results = _new_results(blind.hidden / "results")
    # The corpus is made here and fetched there; all other artifacts are made there.
    corpus = tuple(cell for cell in plan.cells if isinstance(cell.work, CorpusWork))
    _run(replace(plan, cells=corpus), results, InlineExecutor(SharedFiles(results)))
    opener = partial(open_files, Place(results), STORE, serve_files(Place(results)))
    _run(plan, results, RayExecutor(Shape(2, 1, 0, "cpu"), opener))
    assert_same_rows(alone, results)
    cached = {path.name for path in (blind.cache / "artifacts").iterdir()}
    assert cached == {path.name for path in (results / "artifacts").iterdir()}
    assert [path.name for path in (blind.cache / "texts").glob("*/*")] == ["words.txt"]
    fetched = {path.name for path in (blind.cache / "folders").glob("*/*")}
    assert fetched >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not list((results / "work").iterdir())
