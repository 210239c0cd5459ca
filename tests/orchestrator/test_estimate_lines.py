"""What `plan` prints, and how a run tells how far its estimate was off."""

from pathlib import Path

import pytest

from orchestrator.costs import Costs
from orchestrator.estimate import Estimate, estimate
from orchestrator.estimate_lines import Terms, brief, estimate_json, estimate_lines
from orchestrator.hardware import Machines, cpu, gpu_machines
from orchestrator.measured import Rates
from orchestrator.model_sizes import ModelSizes
from tests.conftest import Texts
from tests.orchestrator.hub_cells import series
from tests.orchestrator.local_study import inline, run_here, write_study


def _found(machines: Machines, count: int = 2) -> Estimate:
    cells = series(count)
    sizes = ModelSizes(tuple(cells))
    return estimate(cells, sizes, Costs(cells, sizes, 32), Rates(), machines, 100_000_000)


def test_the_table_by_stage() -> None:
    found = _found(gpu_machines(2, "h100"))
    lines = estimate_lines(found, Terms(price=3600.0, machines_given=True))
    assert lines[0] == "estimate for 2 h100"
    assert [line.split()[0] for line in lines[1:7]] == [
        *("stage", "fetch", "geometry", "head", "evals", "all"),
    ]
    fetch = found.stages["fetch"].seconds
    assert lines[2].split() == [
        *("fetch", "3", "4.0", "GB", "4.0", "GB", f"{fetch / 3600:.3f}", f"{fetch:,.2f}"),
        *("assumed,", "from", "FLOPs"),
    ]
    assert lines[7].startswith("peak disk is what the stage needs of a node's cache")
    assert lines[8].startswith("hours are GPU hours;")
    ends = {line.index("assumed") for line in lines[2:7]}
    assert len(ends) == 1
    assert "downloading 40 s at 100.0 MB/s for each node (assumed)" in lines[9]
    held = found.seconds * 2
    assert lines[10] == f"cost: {held:,.2f} if the 2 GPUs are held all that time"
    assert lines[11].startswith("disk: 4.0 GB of each node's cache")
    assert lines[12].startswith("parameters assumed from the bytes of the weights: model-1b")
    assert len(lines) == 13


def test_without_a_price_nothing_costs() -> None:
    found = _found(Machines(cpu(1), 2))
    lines = estimate_lines(found, Terms(bandwidth_given=True))
    assert "as this machine has" in lines[0]
    assert any(line.startswith("hours are worker hours;") for line in lines)
    assert "cost" not in "\n".join(lines)
    assert "(given)" in "\n".join(lines)
    told = estimate_json(found, Terms())
    assert (told["gpu_hours"], told["cost"], told["cost_held"], told["gpus"]) == (
        None,
        None,
        None,
        0,
    )


def test_small_and_large_hours_can_be_read() -> None:
    tiny = "\n".join(estimate_lines(_found(gpu_machines(1, "h100"), 1), Terms()))
    assert "<0.001" in tiny
    assert "0.000" in tiny  # The pass of the held-out loss is the geometry's.


def test_the_json_adds_up() -> None:
    found = _found(gpu_machines(16, "a100-80gb"))
    told = estimate_json(found, Terms(price=2.0))
    stages = told["by_stage"]
    assert list(stages) == ["fetch", "geometry", "head", "evals"]
    assert all(
        stage.keys() >= {"cells", "download_bytes", "peak_disk_bytes", "hours", "basis"}
        for stage in stages.values()
    )
    for name in ("cells", "download_bytes", "artifact_bytes"):
        assert told[name] == sum(stage[name] for stage in stages.values())
    assert max(s["peak_disk_bytes"] for s in stages.values()) == told["peak_disk_bytes"]
    assert told["hours"] == pytest.approx(sum(s["hours"] for s in stages.values()), abs=1e-5)
    assert (told["gpu_hours"], told["gpus"], told["nodes"]) == (told["hours"], 16, 2)
    assert told["cost_held"] == round(found.seconds * 16 / 3600 * 2, 2)
    assert brief(found).endswith("s (assumed, from FLOPs)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "0"], "not a whole number above 0"),
        (["--gpu-type", "h10"], "invalid choice: 'h10'"),
        (["--bandwidth", "fast"], "fast is no size"),
        (["--price", "-1"], "-1 is not a number from 0"),
        (["--price", "nan"], "nan is not a number from 0"),
        (["--gpus", "8", "--threads", "2"], "leave out the one or the other"),
    ],
)
def test_mistakes_are_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    outcome = run_here(capsys, "plan", "--results", str(tmp_path / "results"), *arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_a_price_needs_gpus(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.hardware._DRIVER", tmp_path / "missing")
    arguments = ("plan", "--study", "smoke", "--results", str(tmp_path / "results"), "--price", "2")
    refused = run_here(capsys, *arguments)
    assert (refused.code, "name the GPUs" in refused.err) == (2, True)
    named = run_here(capsys, *arguments, "--gpu-type", "l4")
    assert named.last["estimate"]["machines"] == "1 l4"
    assert named.last["estimate"]["cost"] > 0


def test_a_run_tells_how_far_the_estimate_was_off(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    study = write_study(tmp_path, tiny_series, texts.txt)
    results = tmp_path / "results"
    first = run_here(capsys, *inline("head", study, results))
    assert "(assumed, from FLOPs)" in first.out
    planned = run_here(capsys, "plan", "--study", str(study), "--results", str(results), "--json")
    stages = planned.last["estimate"]["by_stage"]
    assert {name: stage["cells"] for name, stage in stages.items()} == {
        "fetch": 4,
        "geometry": 3,
        "evals": 3,
    }
    # Heads were measured, and with them the load; nothing has passed a text yet.
    assert (stages["fetch"]["basis"], stages["geometry"]["basis"]) == ("measured", "assumed")
    rest = run_here(capsys, *inline("full", study, results))
    assert "; the estimate was " in rest.out
    assert "part measured, part assumed from FLOPs" in rest.out
    assert rest.last["estimated_seconds"] > 0
    assert rest.last["worked_seconds"] > 0
    idle = run_here(capsys, *inline("full", study, results))
    assert "estimated_seconds" not in idle.last
    asked = ("plan", "--study", str(study), "--results", str(results))
    assert "nothing is left to do" in run_here(capsys, *asked).out
