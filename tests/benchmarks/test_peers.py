"""Two sides in turns, and a hub that has whatever a study names."""

from pathlib import Path

from benchmarks.invented_hub import InventedHub
from benchmarks.peers import Sides, beside
from jobs.study import load_study
from orchestrator.messages import to_fetch
from orchestrator.plan import make_plan


def test_sides_alternate_and_their_ratio_is_told() -> None:
    calls: list[str] = []
    sides = Sides("speed", lambda: calls.append("ours"), lambda: calls.append("other"), "> 0", 3)
    (found,) = beside([sides])
    assert calls == ["ours", *(["ours", "other"] * 3)]
    assert found.met is True
    assert found.spread is not None
    assert found.spread[0] <= found.value <= found.spread[1]


def test_studies_of_public_models_plan_against_an_invented_hub(tmp_path: Path) -> None:
    study = load_study("tulu")
    plan = make_plan(study, InventedHub(study, tmp_path))
    assert sum(work.refused for _, work in plan.audits) == 0
    fetched = [source for cell in plan.cells for source in to_fetch(cell)]
    assert max(sum(file.size for file in source.files) for source in fetched) > 16e9
    assert not list(tmp_path.iterdir())
