"""Two series of tiny checkpoints whose answers are compared, and a run of all their cells."""

import json
from pathlib import Path
from typing import Any

from jobs.events import Event, Failed, Finished
from jobs.posttrain_spec import LocalExamples
from jobs.spec import LocalSuite, Study
from jobs.winrate_spec import EndpointJudge, LocalJudge, Winrates
from orchestrator.plan import Plan
from tests.workers.tasks import run_cells

INSTRUCTIONS = (
    "Tell of the river.",
    "Name a small bird.",
    "the old house and the winter road",
    "Why is the stone green?",
)
STEPS = (0, 10, 100)


def instructions_file(folder: Path) -> Path:
    path = folder / "instructions.json"
    records = [{"instruction": text, "dataset": "mine"} for text in INSTRUCTIONS]
    path.write_text(json.dumps(records))
    return path


def winrate_study(series: Path, folder: Path, **asked: Any) -> Study:
    """Series `hh`, and `af` with other weights at each step, so that no answers are alike."""
    turned = tuple(str(series / f"step{step}") for step in (100, 0, 10))
    settings: dict[str, Any] = {
        "instructions": "asked",
        "pairs": (("hh", "af"),),
        "new_tokens": 8,
        "judge": LocalJudge(checkpoint=str(series / "step100")),
        **asked,
    }
    return Study(
        name="test",
        suites=(
            LocalSuite(name="hh", model="tiny", path=str(series), stage="sft"),
            LocalSuite(name="af", model="tiny", paths=turned, steps=STEPS, stage="sft"),
        ),
        training={"asked": LocalExamples(paths=(str(instructions_file(folder)),))},
        winrates=Winrates(**settings),
    )


def endpoint_judge(base_url: str, **changes: Any) -> EndpointJudge:
    return EndpointJudge(**{"base_url": base_url, "model": "judge", **changes})


def run_all(plan: Plan, results: Path, kinds: tuple[str, ...] = ("respond", "winrate")) -> Any:
    """Runs the cells of some kinds; returns how each of them ended, by kind and in order."""
    ended: dict[str, list[Event]] = {kind: [] for kind in kinds}
    for cell in plan.cells:
        if cell.work.kind in kinds:
            last = run_cells([cell], results)[-1]
            assert isinstance(last, Finished | Failed)
            ended[cell.work.kind].append(last)
    return ended
