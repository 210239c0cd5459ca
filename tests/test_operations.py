"""The operator's page: every command of it exists, and those that read results are really run."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.validate import validate_parameters

from dashboards.query import load
from orchestrator.options import parser
from tests.conftest import Texts
from tests.deploy.ray_commands import check
from tests.orchestrator.local_study import call, inline, run_here, run_process, write_study
from tests.orchestrator.nodes import cluster_of
from tests.orchestrator.test_run import _spoil
from tests.test_tree import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
OURS = ["python", "-m", "orchestrator.run"]
RESULTS = "s3://BUCKET/run"
# Outside our reach here: only the files that they name are looked at.
OTHERS = {"aws", "docker", "export", "kubectl"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every command of the page, in its order."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def ours() -> list[list[str]]:
    """What follows `python -m orchestrator.run`, by itself or within a job."""
    return [
        words[start + 3 :]
        for words in commands()
        for start in range(len(words))
        if words[start : start + 3] == OURS
    ]


def test_our_commands_parse() -> None:
    found = [parser().parse_args(words) for words in ours()]
    assert {options.command for options in found} >= {
        *("plan", "full", "status", "logs", "report", "retry", "compact"),
    }
    # Nothing that is needed later is left on a node.
    assert all(options.results == RESULTS for options in found)


def test_rays_commands_are_taken() -> None:
    found = [words for words in commands() if words[0] == "ray"]
    assert len(found) >= 12
    for words in found:
        check(words)
        if words[1] == "exec":
            check(shlex.split(words[3]))


def test_nothing_else_is_asked_for() -> None:
    assert {words[0] for words in commands()} == {"ray", "python", *OTHERS}


def test_files_that_commands_and_links_name_are_there() -> None:
    named = [word for words in commands() for word in words if "/" in word or "." in word]
    files = {word.rpartition("file://")[2] for word in named if re.search(r"\.(ya?ml|json)$", word)}
    assert files - {"study.toml"} >= {"cluster.yaml", "deploy/job.yaml", "deploy/lifecycle.json"}
    for name in files | set(re.findall(r"`((?:deploy|requirements)/[\w./-]*)`", PAGE + SECURITY)):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


def test_what_is_added_to_a_description_fits_it() -> None:
    (block,) = blocks("yaml")
    added = yaml.safe_load(block)
    described = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert added.keys() <= described.keys()
    for command in added["setup_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        (source,) = re.findall(r"cat (\S+?)\)", command)
        assert source.replace("~", "/home/ray") in added["file_mounts"]


def test_the_buckets_rule_is_one_that_s3_knows() -> None:
    rule = json.loads((ROOT / "deploy" / "lifecycle.json").read_text(encoding="utf-8"))
    service = botocore.session.get_session().get_service_model("s3")
    shape = service.operation_model("PutBucketLifecycleConfiguration").input_shape
    assert shape is not None
    validate_parameters({"Bucket": "b", "LifecycleConfiguration": rule}, shape)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_series: Path, texts: Texts) -> Path:
    """A study of three checkpoints, of which one is spoilt."""
    folder = tmp_path_factory.mktemp("operated")
    series = Path(shutil.copytree(tiny_series, folder / "series"))
    _spoil(series / "step10")
    return write_study(folder, series, texts.txt)


def _meant(words: list[str], study: Path, results: Path) -> list[str]:
    """A command with the names of the page replaced by those of the test."""
    cell = load("failures", results)["cell_id"].to_pylist()[-1] if "CELL" in words else ""
    names = {RESULTS: str(results), "study.toml": str(study), "CELL": cell[:12]}
    return [names.get(word, word) for word in words]


def test_the_page_works_on_real_results(
    capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path
) -> None:
    """Every command that needs no cluster, in the order of the page; runs are done inline."""
    results = tmp_path / "results"
    assert run_here(capsys, *inline("full", study, results)).code == 1
    ran = []
    for words in ours():
        if "--cluster" in words:
            continue
        if words[0] == "retry" and not _failures(results):  # Those before it were cleared.
            assert run_here(capsys, *inline("full", study, results)).code == 1
        meant = _meant(words, study, results)
        more = inline("", study, results)[5:] if words[0] == "full" else ()
        outcome = run_here(capsys, *meant, *more)
        assert outcome.code == (1 if words[0] == "full" else 0), outcome.out + outcome.err
        ran.append(words[0])
        if words[0] == "retry":
            wanted = 0 if "--cause" in words else 1
            assert outcome.last["cleared"] >= wanted
    assert set(ran) == {"plan", "full", "status", "logs", "report", "retry", "compact"}


def _failures(results: Path) -> int:
    return int(load("failures", results).num_rows)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_plan_for_a_cluster_works_on_one(
    monkeypatch: pytest.MonkeyPatch, study: Path, tmp_path: Path
) -> None:
    (words,) = (words for words in ours() if "--cluster" in words)
    assert call(*inline("fetch", study, tmp_path / "results")) in {0, 1}
    with cluster_of(1) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        outcome = run_process(*_meant(words, study, tmp_path / "results"))
    assert outcome.code == 0, outcome.out + outcome.err
    assert "estimate for" in outcome.out


def test_what_is_said_of_times_and_limits_holds() -> None:
    described = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert "idle for five minutes" in PAGE
    assert described["idle_timeout_minutes"] == 5
    kinds = described["available_node_types"]
    assert kinds["l4-1"]["max_workers"] > 0
    dear = [name for name, k in kinds.items() if k["resources"].get("GPU", 0) > 1 or "h100" in name]
    assert dear
    assert not any(kinds[name]["max_workers"] for name in dear)
