"""Nothing that is run reports home, however it is started, unless the user says so."""

import importlib
import os
import subprocess
import sys

import pytest
import ray

from orchestrator.cluster import connect
from tests.orchestrator.local_study import ROOT
from tests.orchestrator.nodes import cluster_of

SWITCHES = (
    "RAY_USAGE_STATS_ENABLED",
    "VLLM_NO_USAGE_STATS",
    "HF_HUB_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
)
SILENT = ("0", "1", "1", "1")
# What the libraries themselves make of it; vLLM's switch is asked without its engine.
ASK = """
import orchestrator.run
from huggingface_hub import constants
from ray._common.usage import usage_lib
from vllm import envs
from vllm.usage.usage_lib import is_usage_stats_enabled
print(constants.HF_HUB_DISABLE_TELEMETRY, usage_lib.usage_stats_enabled(), is_usage_stats_enabled())
"""


def _ask(**settings: str) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env=plain | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.split()[-3:]


@pytest.mark.slow
def test_the_libraries_report_nothing() -> None:
    assert _ask() == ["True", "False", "False"]


@pytest.mark.slow
def test_whoever_wants_to_report_may() -> None:
    wanted = dict(zip(SWITCHES, ("1", "0", "0", "0"), strict=True))
    assert _ask(**wanted) == ["False", "True", "True"]


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_on_other_nodes_report_nothing_and_get_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    with cluster_of(1) as cluster:
        secrets = {
            name: f"secret-{name.lower()}-0123456789"
            for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "JUDGE_KEY")
        }
        for name, secret in secrets.items():
            monkeypatch.setenv(name, secret)
        connect(cluster.address)

        @ray.remote
        def look() -> tuple[tuple[str | None, ...], dict[str, str]]:
            importlib.import_module("orchestrator.resident")  # What a worker is made of.
            return tuple(os.environ.get(name) for name in SWITCHES), dict(os.environ)

        switches, found = ray.get(look.remote())
        assert switches == SILENT
        # The driver's environment stays with the driver, and what the cluster's pages show of a
        # job names packages alone.
        assert not set(secrets.values()) & set(found.values())
        environment = ray.get_runtime_context().runtime_env
        assert set(environment) == {"py_modules"}
        (job,) = (j for j in ray._private.state.jobs() if not j["IsDead"])
        shown = repr(job) + repr(dict(environment))
        assert not [secret for secret in secrets.values() if secret in shown]
        assert os.environ["RAY_AUTH_TOKEN"] not in shown
