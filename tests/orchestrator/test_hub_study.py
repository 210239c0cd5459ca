"""Forty checkpoints of the hub on two nodes, each with room for four: every one measured, once."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.torch import load_file, save

from dashboards.query import load
from tests.conftest import Texts
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import run_here

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

CHECKPOINTS = 40
ROOM_FOR = 4
GONE = "step20"
REPOSITORY = "maker/model"
STUDY = """
name = "forty"

[[suites]]
kind = "hub"
name = "series"
repository = "maker/model"
pattern = "step{{step}}"

[datasets.words]
kind = "local"
paths = ["{text}"]
sequences = 60
sequence_length = 24
minimum_length = 2

[geometry]
datasets = ["words"]
"""


@pytest.fixture
def published(local_hub: LocalHub, tiny_series: Path) -> dict[str, bytes]:
    """The files of the last checkpoint; the hub has all of them, on a branch each."""
    files = files_in(tiny_series / "step100")
    weights = load_file(tiny_series / "step100" / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for step in range(CHECKPOINTS):
        for name, tensor in weights.items():
            weights[name] = tensor + 0.001 * torch.randn(tensor.shape, generator=generator)
        files["model.safetensors"] = save(weights, {"format": "pt"})
        local_hub.model(REPOSITORY).commit(f"step{step}", files)
    return files


@contextmanager
def _watching(folders: list[Path]) -> Iterator[list[int]]:
    """Measures the files of the hub in the fullest folder, again and again."""
    seen = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.append(max(_bytes_in(folder) for folder in folders))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("hub/models--*/blobs/*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:  # Evicted this very moment.
            continue
    return total


def test_forty_checkpoints_on_two_nodes_with_room_for_four(
    local_hub: LocalHub,
    published: dict[str, bytes],
    texts: Texts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (study := tmp_path / "study.toml").write_text(STUDY.format(text=texts.txt))
    budget = ROOM_FOR * sum(len(data) for data in published.values())
    caches = [tmp_path / "node1", tmp_path / "node2"]
    # One that the hub doesn't give away, whatever it lists; and the network has its moments.
    gone = local_hub.model(REPOSITORY).branches[GONE]
    local_hub.faults.refuse(f"*/resolve/{gone}/*.safetensors", 404, times=None)
    local_hub.faults.refuse("*/resolve/*", 429, times=3, retry_after=0)
    local_hub.faults.refuse("*/resolve/*", 500, times=3)
    local_hub.faults.cut("*/resolve/*/model.safetensors", 1000, times=3)
    local_hub.faults.corrupt("*/resolve/*/model.safetensors", times=2)

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for cache in caches:
            cluster.add_node(num_cpus=1, env_vars={"EIGENTRACE_CACHE": str(cache)})
        with _watching(caches) as seen:
            outcome = run_here(
                capsys,
                "full",
                *("--study", str(study), "--results", str(tmp_path / "results")),
                *("--address", cluster.address, "--threads", "1", "--device", "cpu"),
                *("--disk-budget", str(budget)),
            )
    finally:
        ray.shutdown()
        cluster.shutdown()

    assert outcome.code == 1, outcome.out
    rows = load("geometry", tmp_path / "results")
    expected = {f"step{step}" for step in range(CHECKPOINTS)} - {GONE}
    assert Counter(rows["revision"].to_pylist()) == Counter(expected)
    failures = load("failures", tmp_path / "results").to_pylist()
    assert {row["revision"] for row in failures} == {GONE}
    assert all("model.safetensors" in row["message"] for row in failures)
    assert max(seen) <= budget
    assert max(seen) > budget // 2  # Room that is there is used.
    # A file is fetched twice only if it was corrupt, or if a slot took over what another fetched.
    weights = local_hub.matching("*/model.safetensors", "GET")
    whole = Counter(r.path for r in weights if r.sent >= len(published["model.safetensors"]))
    assert sum(whole.values()) <= CHECKPOINTS + 4
