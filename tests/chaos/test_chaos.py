"""Whatever befalls a run, and however often it is begun again: its results are as undisturbed."""

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dashboards.query import load
from jobs.records import TABLES
from jobs.study import load_study
from orchestrator.plan import make_plan
from tests.chaos import faults, studies
from tests.chaos.ordeal import endure
from tests.chaos.world import world_of
from tests.conftest import Texts

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_MOST_SECONDS = 6000.0
SEED = int(os.environ.get("EIGENTRACE_CHAOS_SEED", "0"))

FEW = (
    faults.worker_killed,
    faults.trial_killed,
    faults.node_died,
    faults.node_drained,
    faults.worker_hung,
    *[faults.driver_killed] * 3,
)
MANY = (
    *[faults.worker_killed] * 4,
    *[faults.worker_hung] * 3,
    *[faults.trial_killed] * 3,
    *[faults.trial_hung] * 2,
    *[faults.learner_killed] * 2,
    *[faults.sampler_killed] * 2,
    *[faults.node_died] * 3,
    *[faults.node_drained] * 2,
    *[faults.objects_lost] * 2,
    *[faults.memory_short] * 2,
    *[faults.driver_killed] * 3,
    *[faults.head_died] * 1,
    *[faults.disk_full] * 2,
    *[faults.store_away] * 2,
    *[faults.artifact_cut] * 2,
    *[faults.clock_jumped] * 3,
    *[faults.second_driver] * 2,
)


@pytest.mark.timeout(600)
def test_five_faults_and_three_killed_drivers(
    tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    study = studies.small(tmp_path, tiny_series, texts.txt)
    befallen = _endured(study, tmp_path / "undisturbed", FEW, nodes=2, behind_url=False, over=0.08)
    assert befallen == Counter(fault.__name__ for fault in FEW)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_everything_that_can_befall_a_run(
    tmp_path: Path, tiny_series: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    study = studies.large(tmp_path, tiny_series, texts.txt)
    cells = make_plan(load_study(str(study))).cells
    assert len(cells) >= 200
    befallen = _endured(study, tmp_path / "undisturbed", MANY, nodes=4, behind_url=True, over=0.35)
    assert sum(befallen.values()) >= 30
    # Not everybody may mount a small disk.
    assert befallen.keys() | {"disk_full"} == {fault.__name__ for fault in MANY}


def _endured(
    study: Path,
    undisturbed: Path,
    befalling: tuple[faults.Fault, ...],
    *,
    nodes: int,
    behind_url: bool,
    over: float,
) -> Counter[str]:
    """Runs a study in peace and amid faults, compares all rows, and counts the faults.

    Args:
        study: The study.
        undisturbed: Where the results of the peaceful run go.
        befalling: The faults.
        nodes: How many nodes run work.
        behind_url: Whether the results lie in an object store.
        over: Share of the cells after which the last fault is due.
    """
    # In a process of its own: vLLM looks into all modules, and fails at what Flask keeps in its.
    command = [sys.executable, "-m", "orchestrator.run", "full", "--study", str(study)]
    command += ["--results", str(undisturbed), "--executor", "inline", "--device", "cpu"]
    assert subprocess.run([*command, "--threads", "1"], check=False).returncode == 1
    assert {row["suite"] for row in load("failures", undisturbed).to_pylist()} == {"poisoned"}
    cells = make_plan(load_study(str(study))).cells
    with world_of(study, nodes, behind_url=behind_url) as world:
        befallen = endure(world, befalling, SEED, over * len(cells), _MOST_SECONDS)
        print(*(f"{name}: {did}" for name, did in befallen), sep="\n")
        for results in world.finished:
            _compare(undisturbed, results)
    return Counter(name for name, _ in befallen)


def _compare(expected: Path, found: Path | str) -> None:
    """Asserts that the rows are the same, but for rounding and for how they came to be."""
    poisoned, failed = (
        {row["cell_id"]: row["message"] for row in load("failures", there).to_pylist()}
        for there in (expected, found)
    )
    assert failed.keys() == poisoned.keys(), [failed[i] for i in failed.keys() - poisoned.keys()]
    for table in TABLES:
        ours, theirs = load(table, expected).to_pylist(), load(table, found).to_pylist()
        assert [row["cell_id"] for row in ours] == [row["cell_id"] for row in theirs], table
        for mine, other in zip(ours, theirs, strict=True):
            for column, value in mine.items():
                if table == "failures" and column in ("attempts", "traceback", "message"):
                    continue
                assert _same(value, other[column]), (table, column, value, other[column])


def _same(mine: object, other: object) -> bool:
    """Tells whether two values are equal, numbers up to rounding: smaller batches round anew."""
    if isinstance(mine, float) and isinstance(other, float):
        both_nan = math.isnan(mine) and math.isnan(other)
        return both_nan or math.isclose(mine, other, rel_tol=1e-4, abs_tol=1e-5)
    if isinstance(mine, list) and isinstance(other, list):
        return len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, dict) and isinstance(other, dict):
        return mine.keys() == other.keys() and all(_same(mine[k], other[k]) for k in mine)
    return mine == other
