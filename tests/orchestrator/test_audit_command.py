"""The audit from the command line: what is refused, without a weight fetched, Ray or torch."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dashboards.query import load
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import inline, run_here, run_process, write_study

CONFIG = json.dumps({"model_type": "gpt_neox"}).encode()
INDEX = b'{"weight_map": {}}'


def _spoil(series: Path) -> None:
    weights = (series / "step0" / "model.safetensors").read_bytes()
    (series / "step10" / "model.safetensors").write_bytes(weights)


def test_a_clean_study_exits_with_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    study, results = write_study(tmp_path, tiny_series, texts.txt), tmp_path / "results"
    found = run_here(capsys, "audit", "--study", str(study), "--results", str(results))
    assert (found.code, found.last["checkpoints"]) == (0, 3)
    assert (found.last["refused"], found.last["findings"]) == (0, 0)
    assert not results.exists()


def test_refused_checkpoints_are_named_and_the_rest_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, copy_series: Path, texts: Texts
) -> None:
    _spoil(copy_series)
    study, results = write_study(tmp_path, copy_series, texts.txt), tmp_path / "results"
    place = ("--study", str(study), "--results", str(results))
    found = run_here(capsys, "audit", *place)
    assert (found.code, found.last["refused"], found.last["findings"]) == (1, 2, 2)
    assert "refused: series/series@step0: it serves the same weights as step 10" in found.out
    quiet = run_here(capsys, "audit", "--json", *place)
    assert json.loads(quiet.out)["details"][0]["verdict"] == "duplicate"

    full = run_here(capsys, *inline("full", study, results))
    assert (full.code, full.last["failed"], full.last["refused"]) == (0, 0, 2)
    assert "refused: series/series@step10" in full.out
    rows = {row["step"]: row for row in load("checkpoints", results).to_pylist()}
    assert [rows[step]["refused"] for step in (0, 10, 100)] == [True, True, False]
    assert rows[0]["weights_sha256"] is None
    assert rows[0]["fingerprint"] == rows[10]["fingerprint"] != rows[100]["fingerprint"]
    assert "step 10" in rows[0]["finding"]
    assert load("geometry", results).column("step").to_pylist() == [100]
    audit = load("audit", results).to_pylist()
    assert [row["verdict"] for row in audit] == ["duplicate", "duplicate", "summary"]
    assert "2 checkpoints were refused" in (results / "report.html").read_text()


def test_an_audit_needs_neither_torch_nor_ray(
    tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    study = write_study(tmp_path, tiny_series, texts.txt)
    done = run_process(
        *("audit", "--study", str(study), "--results", str(tmp_path / "results")),
        after="print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)), file=sys.stderr)",
    )
    assert (done.code, done.err.splitlines()[-1]) == (0, "[]")


def test_planted_faults_of_a_hub_are_found_without_a_weight(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, local_hub: LocalHub
) -> None:
    steps = [step for step in range(1000, 11000, 1000) if step != 6000]
    shards = {step: (f"{step}/1".encode() * 99, f"{step}/2".encode() * 99) for step in steps}
    shards[3000] = shards[10000]
    shards[8000] = (shards[10000][0], shards[8000][1])
    repository = local_hub.model("org/model")

    def files(one: bytes, two: bytes) -> Mapping[str, bytes]:
        return {
            "config.json": CONFIG,
            "tokenizer.json": b"{}",
            "model-00001-of-00002.safetensors": one,
            "model-00002-of-00002.safetensors": two,
            "model.safetensors.index.json": INDEX,
        }

    for step in steps:
        repository.commit(f"step{step}", dict(files(*shards[step])))
    pickled = {"config.json": CONFIG, "tokenizer.json": b"{}", "pytorch_model.bin": b"unread"}
    repository.commit("step5000", pickled)
    study = tmp_path / "study.toml"
    study.write_text(
        """
        name = "hub"
        [[suites]]
        kind = "hub"
        name = "s"
        repository = "org/model"
        pattern = "step{step}"
        schedule = ["1000:10000:1000"]
        """
    )
    results = str(tmp_path / "results")
    found = run_here(capsys, "audit", "--study", str(study), "--results", results)
    details = [(f["verdict"], f["step"]) for f in found.last["details"]]
    assert sorted(details) == [
        ("duplicate", 3000),
        ("gap", 6000),
        ("no_safetensors", 5000),
        ("swapped_shard", 8000),
    ]
    assert (found.code, found.last["refused"], found.last["checkpoints"]) == (1, 3, 9)
    assert local_hub.sent() == 0
