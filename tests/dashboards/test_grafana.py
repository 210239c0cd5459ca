"""Grafana's dashboard: it names what runs tell, and a real Prometheus has all of it."""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.metrics import OF_RUNS, OF_WORKERS
from tests.conftest import Texts
from tests.dashboards.monitored import (
    GRAFANA,
    ask,
    dashboard,
    expressions,
    names,
    prometheus,
    running,
)
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import write_study

OWN = {metric.exported: metric for metric in (*OF_RUNS, *OF_WORKERS)}
MORE = """
[tasks.mine]
kind = "pairs"
training = ["{pairs}"]
validation = ["{pairs}"]

[finetune]
tasks = ["mine"]
steps = [100]
epochs = 1

[training.sums]
kind = "local"
paths = ["{problems}"]

[passk]
problems = ["sums"]
suites = ["series"]
samples = 4
k = [1, 4]
new_tokens = 4
engine = "transformers"

[[suites]]
kind = "hub"
name = "far"
repository = "maker/model"
pattern = "step{{step}}"
"""


def test_every_metric_is_shown_and_every_shown_one_is_told() -> None:
    shown = {name for expression in expressions() for name in names(expression)}
    assert {name for name in shown if name.startswith("ray_eigentrace_")} == OWN.keys()


def test_labels_are_those_that_metrics_have() -> None:
    of_series = {"NodeAddress", "instance", "study"}
    for expression in expressions():
        labels = {label for metric in names(expression) for label in _labels(metric)}
        grouped = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", expression)
            for label in group.split(",")
        }
        chosen = set(re.findall(r"[{,](\w+)=", expression))
        assert grouped | chosen <= labels | of_series, expression


def _labels(metric: str) -> tuple[str, ...]:
    return OWN[metric].labels if metric in OWN else ()


def test_only_what_a_run_tells_is_chosen_by_its_study() -> None:
    for expression in expressions():
        of_runs = {metric.exported for metric in OF_RUNS} & names(expression)
        assert expression.count("study=~") >= len(of_runs)
        assert ("study=~" in expression) == bool(of_runs), expression


def test_panels_lie_beside_each_other_and_use_the_chosen_datasource() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for each in (panel, *panel.get("targets", ())):
            assert panel["type"] == "row" or each["datasource"]["uid"] == "${datasource}"


def test_what_grafana_is_given_stays_on_this_machine() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://127.0.0.1:9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards/eigentrace.yaml").read_text())[
        "providers"
    ]
    readme = (GRAFANA / "README.md").read_text()
    assert provider["options"]["path"].removeprefix("$") in readme
    assert "0.0.0.0" not in readme


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path: Ray puts sockets into it."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def study(local_hub: LocalHub, copy_series: Path, texts: Texts, tmp_path: Path) -> Path:
    """A study of three checkpoints, the first of them damaged, and of one on the hub."""
    os.truncate(copy_series / "step0" / "model.safetensors", 1000)
    (pairs := tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"prompt": "the river", "answer": " sings"}) + "\n" for _ in range(8))
    )
    (problems := tmp_path / "sums.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n' * 2)
    local_hub.model("maker/model").commit("step1", files_in(copy_series / "step10"))
    more = MORE.format(pairs=pairs, problems=problems)
    return write_study(tmp_path, copy_series, texts.txt, more)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_prometheus_has_every_expression(
    local_hub: LocalHub, study: Path, ray_folder: Path, tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on PATH (Debian's package prometheus)")
    # The run goes on until all was asked for.
    last = local_hub.faults.hold("*.safetensors", times=None)
    extra = {"RAY_TMPDIR": str(ray_folder), "RAY_metrics_report_interval_ms": "2000"}
    with (
        prometheus(program, tmp_path, ray_folder / "ray") as address,
        running(study, tmp_path, extra) as run,
    ):
        left, end = expressions(), time.monotonic() + 150
        while left and run.poll() is None and time.monotonic() < end:
            time.sleep(1)
            left = {each: title for each, title in left.items() if not ask(address, each)}
        last.release()
        code = run.wait(120)
    told = (tmp_path / "run.log").read_text()
    assert not left, told
    assert code == 1, told  # The damaged checkpoint.
    assert "metrics" not in told
