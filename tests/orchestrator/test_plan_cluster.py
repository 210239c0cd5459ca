"""A plan for the cluster at hand: it is asked what it has, and nothing is started there."""

import json
from pathlib import Path

import pytest

from tests.orchestrator.local_study import call, run_process
from tests.orchestrator.nodes import cluster_of


@pytest.mark.parametrize("other", ["--gpus=8", "--gpu-type=h100", "--workers=2", "--threads=2"])
def test_a_cluster_has_what_it_has(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call("plan", "--study", "smoke", "--results", str(tmp_path), "--cluster", other)
    found = capsys.readouterr()
    assert code == 2
    assert f"{other.partition('=')[0]} says so itself" in found.err
    assert "leave out the one or the other" in found.err


@pytest.mark.cluster
@pytest.mark.slow
def test_the_estimate_is_for_the_cluster_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ("--results", str(tmp_path))
    with cluster_of(3) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        asked = run_process("plan", "--study", "smoke", *results, "--cluster", "--json")
        estimate = json.loads(asked.out)["estimate"]
        assert (asked.code, estimate["machines"]) == (0, "3 workers of 1 thread on 3 nodes")
        assert (estimate["workers"], estimate["nodes"]) == (3, 3)
    monkeypatch.delenv("RAY_ADDRESS")
    nobody = run_process("plan", "--study", "smoke", *results, "--cluster", "127.0.0.2:1")
    assert nobody.code == 2
    assert "no Ray cluster can be used at 127.0.0.2:1" in nobody.err
    assert not (tmp_path / "eigentrace.json").exists()
