"""Jobs on a real head: submitted twice at once, stopped, watched from outside."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.orchestrator.local_study import ROOT, Outcome, environment
from tests.orchestrator.ray_head import RAY, Head, ray_head
from tests.orchestrator.test_cluster import STUDY
from tests.results import cells_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as found:
        yield found


def _submit(head: Head, study: Path, results: Path) -> str:
    """Submits as the README says; returns the job's id."""
    done = subprocess.run(
        [
            *(RAY, "job", "submit", "--address", head.dashboard, "--no-wait"),
            *("--working-dir", ".", "--runtime-env", "deploy/job.yaml", "--"),
            *("python", "-m", "orchestrator.run", "full"),
            *("--study", str(study), "--results", str(results), "--threads", "1"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"raysubmit_\w+", done.stdout)
    assert found is not None, done.stdout
    return found[0]


def _wait_for_cells(results: Path, count: int, client: JobSubmissionClient, job: str) -> None:
    while len(cells_of(results)) < count:
        assert not client.get_job_status(job).is_terminal(), client.get_job_logs(job)
        time.sleep(0.1)


def _wait_for_end(client: JobSubmissionClient, job: str) -> Outcome:
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.5)
    return Outcome(0, client.get_job_logs(job), "")


def _status(study: Path, results: Path) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "orchestrator.run", "status", "--json"),
            *("--study", str(study), "--results", str(results)),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_jobs_over_one_store_compute_each_cell_once(head: Head, tmp_path: Path) -> None:
    study, results = tmp_path / "study.toml", tmp_path / "results"
    study.write_text(STUDY)
    client = JobSubmissionClient(head.dashboard)
    first = _submit(head, study, results)
    second = _submit(head, study, results)
    live = None
    while live is None or not live["snapshot"]["running"]:
        assert not client.get_job_status(first).is_terminal(), client.get_job_logs(first)
        live = _status(study, results)["live"]
    assert live["job"] in (first, second)
    assert all("pid" in cell["node"] for cell in live["snapshot"]["running"])
    ended = [_wait_for_end(client, job) for job in (first, second)]
    for job, outcome in zip((first, second), ended, strict=True):
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, outcome.out
        assert outcome.last["code"] == 0
        assert outcome.last["done"] == outcome.last["cells"]
    waited = ["another run is at work on these results" in outcome.out for outcome in ended]
    assert sorted(waited) == [False, True]
    text = "".join(path.read_text(errors="replace") for path in head.logs.glob("worker-*.err"))
    for cell in cells_of(results):
        assert len(re.findall(rf"cell {cell} .* started$", text, re.MULTILINE)) == 1
    assert _status(study, results)["live"] is None


def test_a_stopped_job_keeps_what_it_has_and_says_how_to_go_on(head: Head, tmp_path: Path) -> None:
    study, results = tmp_path / "study.toml", tmp_path / "results"
    study.write_text(STUDY)
    client = JobSubmissionClient(head.dashboard)
    job = _submit(head, study, results)
    _wait_for_cells(results, 3, client, job)
    before = cells_of(results)
    assert client.stop_job(job)
    outcome = _wait_for_end(client, job)
    assert client.get_job_status(job) == JobStatus.STOPPED
    assert "nothing new is begun" in outcome.out
    assert outcome.last["code"] == 130
    assert outcome.last["next"] == "run the same command again: it goes on from here"
    assert before <= cells_of(results)


def test_a_job_with_another_token_is_refused(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [RAY, "job", "submit", "--address", head.dashboard, "--", "true"],
        capture_output=True,
        text=True,
        env={**environment(), "RAY_AUTH_TOKEN": "1" * 64},
        check=False,
    )
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
