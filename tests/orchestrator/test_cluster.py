"""The Ray executor on real clusters: same rows as inline, lost workers, lost drivers."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.errors import UsageError
from jobs.records import TABLES
from orchestrator import cluster, run
from orchestrator.cluster import Shape
from tests.results import assert_same_rows, cells_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

STUDY = """
name = "small"
[[suites]]
kind = "pico"
[suites.corpus]
vocabulary_size = 1024
training_tokens = 100_000
[[suites.models]]
name = "a"
hidden_size = 32
layers = 1
heads = 1
last_step = 8
[[suites.models]]
name = "b"
hidden_size = 32
layers = 2
heads = 1
last_step = 8
[datasets.heldout]
kind = "pico"
sequences = 200
sequence_length = 32
[geometry]
datasets = ["heldout"]
layers = "all"
[head]
unigram_dataset = "heldout"
[evals.loss]
datasets = ["heldout"]
[tasks.facts]
kind = "pico"
form = "open"
[finetune]
tasks = ["facts"]
models = ["a"]
steps = [0, 8]
epochs = 2
learning_rate = 1e-2
training_examples = 32
validation_examples = 16
dataset = "heldout"
dataset_sequences = 16
arms = [{ search = true }, { targets = ["attention", "head"] }]
[finetune.search]
learning_rates = [1e-2, 1e-4, 1e25]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the study from one inline run."""
    results = tmp_path_factory.mktemp("inline") / "results"
    options = ["--study", str(study), "--results", str(results), "--threads", "1"]
    assert run.main(["full", *options, "--executor", "inline"]) == 0
    return results


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A cluster of two nodes in this machine, of two CPUs each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def _command(study: Path, results: Path | str) -> list[str]:
    options = ["--study", str(study), "--results", str(results), "--threads", "1"]
    return [sys.executable, "-m", "orchestrator.run", "full", *options]


def _descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_ray_and_inline_give_the_same_rows(study: Path, undisturbed: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = subprocess.run(_command(study, results), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_rows(undisturbed, results)


def test_results_behind_a_url_hold_the_same_rows(
    study: Path, undisturbed: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers write them there, and fetch artifacts from there into the node's cache."""
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    url = f"s3://{bucket}/run"
    for to_do in (True, False):
        done = subprocess.run(_command(study, url), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("workers of 1 threads" in done.stdout) == to_do
    assert_same_rows(undisturbed, url)
    assert list((tmp_path / "cache" / "artifacts").iterdir())


@pytest.mark.soak
def test_killed_driver_loses_and_doubles_nothing(
    study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    orphans: list[psutil.Process] = []
    for wanted in (1, 8, 20):  # While it pretrains, and while it measures.
        driver = subprocess.Popen(
            _command(study, results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while driver.poll() is None and len(cells_of(results)) < wanted:
            time.sleep(0.02)
        if driver.poll() is None:
            orphans += _descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kept = {
            path: path.stat().st_mtime_ns
            for table in TABLES
            for path in (results / table).glob("[!.]*.parquet")
        }
        assert len(cells_of(results)) >= wanted
    done = subprocess.run(_command(study, results), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rewritten = [path for path, changed in kept.items() if path.stat().st_mtime_ns != changed]
    assert not rewritten, "finished cells were computed again"
    assert_same_rows(undisturbed, results)
    # Ray's own agents notice only within a minute or two that their node is gone.
    _, lingering = psutil.wait_procs(orphans, timeout=20)
    for process in lingering:
        with contextlib.suppress(psutil.NoSuchProcess):
            # The kernel keeps 15 letters of a name, and only those once the process is a zombie.
            assert process.status() == psutil.STATUS_ZOMBIE or process.name().startswith(
                ("ray::RuntimeEnv", "ray::DashboardA")
            )
            process.kill()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments(study: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Runs that end before their kill are compared, and others begun, until twenty were killed."""
    results = tmp_path / "results"
    moments = random.Random(0)
    kills = 0
    while kills < 20 or results.exists():
        driver = subprocess.Popen(
            _command(study, results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(moments.uniform(2, 25) if kills < 20 else None)
        if driver.poll() is None:
            before = cells_of(results)
            driver.kill()
            driver.wait()
            kills += 1
            assert before <= cells_of(results)
        else:
            assert driver.returncode == 0
            assert_same_rows(undisturbed, results)
            shutil.rmtree(results)


def test_a_cluster_of_our_own_listens_on_loopback_alone() -> None:
    script = """
import psutil
from functools import partial
from pathlib import Path
from orchestrator.actors import RayExecutor
from orchestrator.cluster import Shape, connect
from workers.artifacts import SharedFiles
connect(None)
executor = RayExecutor(Shape(1, 1, 0, "cpu"), partial(SharedFiles, Path("results")))
assert executor.next_event(200) is not None
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for found in process.net_connections(kind="inet"):
        if found.status == psutil.CONN_LISTEN:
            print(found.laddr.ip)
executor.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    listening = {ip.removeprefix("::ffff:") for ip in done.stdout.split()}
    assert listening <= {"127.0.0.1", "::1"}
    assert listening


def test_actors_follow_cores_and_gpus(two_nodes: Cluster) -> None:
    cluster.connect(two_nodes.address)
    assert cluster.divide("auto", None, 99) == Shape(4, 1, 0, "cpu")
    assert cluster.divide("auto", 2, 99) == Shape(2, 2, 0, "cpu")
    assert cluster.divide("auto", None, 3) == Shape(3, 1, 0, "cpu")
    with pytest.raises(UsageError, match="no GPU"):
        cluster.divide("cuda", None, 99)
    two_nodes.add_node(num_cpus=2, num_gpus=2)
    assert cluster.divide("auto", None, 99) == Shape(2, 1, 1, "cuda")
    assert cluster.divide("cpu", None, 99) == Shape(6, 1, 0, "cpu")
    assert cluster.divide("auto", None, 99, 2) == Shape(1, 1, 2, "cuda")
    two_nodes.add_node(num_cpus=1, num_gpus=5)
    shape = cluster.divide("auto", None, 99, 2)  # One GPU of the second node is left over.
    assert shape == Shape(3, 1, 2, "cuda")
    machines = cluster.machines_of(shape)
    assert (machines.workers, machines.gpus) == (3, 6)
    assert cluster.divide("auto", None, 99, 5) == Shape(1, 1, 5, "cuda")
    with pytest.raises(UsageError, match="--gpus-per-worker 6, but no node has so many GPUs"):
        cluster.divide("auto", None, 99, 6)
