"""Win rates in the plan: what is compared with what, and what it needs."""

from pathlib import Path
from typing import Any

import pytest

from jobs.cells import Cell
from jobs.errors import StudyError
from jobs.posttrain_spec import Chain, LocalExamples, TrainingStage
from jobs.posttrain_work import PosttrainWork
from jobs.sources import Produced
from jobs.spec import LocalSuite, Study
from jobs.winrate_spec import EndpointJudge, LocalJudge, SuiteJudge, Winrates
from jobs.winrate_work import JudgeCheckpoint, RespondWork, WinrateWork
from orchestrator.costs import Costs
from orchestrator.hardware import cpu
from orchestrator.model_sizes import ModelSizes
from orchestrator.plan import make_plan
from tests.judge.studies import instructions_file

STAGES = (
    TrainingStage(method="sft", data="asked", steps=8, save_steps=(4,)),
    TrainingStage(method="dpo", data="asked", steps=8),
)


def _study(series: Path, folder: Path, chains: dict[str, dict[str, Any]], **asked: Any) -> Study:
    judge = asked.pop("judge", LocalJudge(checkpoint=str(series / "step0")))
    return Study(
        name="test",
        suites=(LocalSuite(name="base", model="tiny", path=str(series)),),
        training={"asked": LocalExamples(paths=(str(instructions_file(folder)),))},
        posttrain=tuple(
            Chain(**{"name": name, "suite": "base", "stages": STAGES[:1], **settings})
            for name, settings in chains.items()
        ),
        winrates=Winrates(instructions="asked", judge=judge, **asked),
    )


def _compared(study: Study) -> list[tuple[str, ...]]:
    """Each comparison as (suite, model, checkpoint) of the compared and of the baseline."""
    found = []
    for cell in make_plan(study).cells:
        if isinstance(cell.work, WinrateWork):
            before, after = cell.work.sides
            found.append(tuple(f"{s.suite}/{s.model}/{s.revision}" for s in (after, before)))
    return found


def test_pairs_are_of_the_same_model_start_and_stage(tiny_series: Path, tmp_path: Path) -> None:
    other = STAGES[0].model_copy(update={"learning_rate": 1e-3})
    chains: dict[str, dict[str, Any]] = {
        "hh": {"steps": (0, 10, 100), "stages": STAGES},
        "af": {"steps": (10, 100), "stages": (other,)},
    }
    study = _study(tiny_series, tmp_path, chains, pairs=(("hh", "af"),))
    assert _compared(study) == [
        ("hh/tiny@10/sft-step8", "af/tiny@10/sft-step8"),
        ("hh/tiny@100/sft-step8", "af/tiny@100/sft-step8"),
    ]


def test_a_start_is_known_by_what_it_is_not_by_its_name(tiny_series: Path, tmp_path: Path) -> None:
    chains = {"hh": {"steps": (0, 100)}, "af": {}}  # The latter's models have no step in the name.
    study = _study(tiny_series, tmp_path, chains, pairs=(("hh", "af"),))
    # Equal stages of equal data give the same checkpoint, under two names.
    assert _compared(study) == [("hh/tiny@100/sft-step8", "af/tiny/sft-step8")]


def test_seeds_are_compared_with_themselves(tiny_series: Path, tmp_path: Path) -> None:
    chains = {"hh": {"steps": (10, 0, 100), "seeds": (0, 1)}}
    study = _study(tiny_series, tmp_path, chains, against_last=("hh",))
    assert sorted(_compared(study)) == sorted(
        (f"hh/tiny@{step}-seed{seed}/sft-step8", f"hh/tiny@100-seed{seed}/sft-step8")
        for step in (0, 10)
        for seed in (0, 1)
    )


def test_answers_come_once_and_from_what_is_trained(tiny_series: Path, tmp_path: Path) -> None:
    chains = {"hh": {"steps": (0, 10, 100)}}
    cells = make_plan(_study(tiny_series, tmp_path, chains, against_last=("hh",))).cells
    places = {cell.id: place for place, cell in enumerate(cells)}
    assert all(places[need] < places[cell.id] for cell in cells for need in cell.needs)
    answering = [cell for cell in cells if isinstance(cell.work, RespondWork)]
    assert len(answering) == 3
    by_id: dict[str, Cell] = {cell.id: cell for cell in cells}
    for cell in answering:
        assert [by_id[need].work.kind for need in cell.needs] == ["posttrain"]
    for cell in cells:
        if isinstance(cell.work, WinrateWork):
            assert cell.needs == cell.work.responses
            assert (cell.suite, cell.work.sides[1].start) in {("hh", 0), ("hh", 10)}
            assert cell.checkpoint is None
    stages = make_plan(_study(tiny_series, tmp_path, chains, against_last=("hh",)))
    kinds = {cell.work.kind for cell in stages.only(["posttrain"]).cells}
    assert {"respond", "winrate", "posttrain"} <= kinds


def test_the_cap_is_shared_by_all_comparisons(tiny_series: Path, tmp_path: Path) -> None:
    judge = EndpointJudge(
        base_url="https://api.example.com/v1", model="judge", input_price=1.0, most_cost=10.0
    )
    chains = {"hh": {"steps": (0, 10, 100)}}
    study = _study(tiny_series, tmp_path, chains, against_last=("hh",), judge=judge)
    works = [cell.work for cell in make_plan(study).cells if isinstance(cell.work, WinrateWork)]
    assert [w.judge.most_cost for w in works if isinstance(w.judge, EndpointJudge)] == [5.0, 5.0]


def test_every_cell_is_estimated(tiny_series: Path, tmp_path: Path) -> None:
    study = _study(tiny_series, tmp_path, {"hh": {"steps": (0, 100)}}, against_last=("hh",))
    cells = make_plan(study).cells
    costs = Costs(cells, ModelSizes(cells), 32)
    for cell in cells:
        if isinstance(cell.work, RespondWork | WinrateWork):
            assert all(part.seconds > 0 for part in costs.parts(cell, cpu(1)))


@pytest.mark.parametrize(
    ("chains", "asked", "match"),
    [
        ({"hh": {}}, {"pairs": (("hh", "hhh"),)}, r"'hhh'.*did you mean 'hh'"),
        ({"hh": {}}, {"against_last": ("hh",)}, "no earlier one"),
        ({"hh": {}, "af": {"steps": (0,)}}, {"pairs": (("hh", "af"),)}, "counterpart"),
        (
            {"hh": {"steps": (0, 10)}},
            {"against_last": ("hh",), "difficulties": "/x.csv"},
            "no file",
        ),
        (
            {"hh": {"steps": (0, 10)}},
            {"against_last": ("hh",), "judge": LocalJudge(checkpoint="/nowhere")},
            "no folder",
        ),
        (
            {"hh": {"steps": (0, 10)}},
            {"against_last": ("hh",), "judge": SuiteJudge(suite="bass")},
            r"judge names suite 'bass'.*did you mean 'base'",
        ),
        (
            {"hh": {"steps": (0, 10)}},
            {"against_last": ("hh",), "judge": SuiteJudge(suite="hh")},
            "2 models",
        ),
        (
            {"hh": {"steps": (0, 10)}},
            {"against_last": ("hh",), "judge": SuiteJudge(suite="base", model="tinny")},
            r"model 'tinny'.*did you mean 'tiny'",
        ),
    ],
)
def test_what_can_not_be_compared(
    tiny_series: Path, tmp_path: Path, chains: Any, asked: Any, match: str
) -> None:
    with pytest.raises(StudyError, match=match):
        make_plan(_study(tiny_series, tmp_path, chains, **asked))


def test_a_chain_judges_once_it_is_made(tiny_series: Path, tmp_path: Path) -> None:
    judge = SuiteJudge(suite="hh", model="tiny@10")
    chains: dict[str, dict[str, Any]] = {"hh": {"steps": (0, 10)}}
    study = _study(tiny_series, tmp_path, chains, against_last=("hh",), judge=judge)
    cells = make_plan(study).cells
    (made,) = [c for c in cells if isinstance(c.work, PosttrainWork) and _starts_at(c, 10)]
    (judged,) = [c for c in cells if isinstance(c.work, WinrateWork)]
    assert made.id in judged.needs
    assert isinstance(judged.work, WinrateWork)
    assert isinstance(judged.work.judge, JudgeCheckpoint)
    assert judged.work.judge.source == Produced(made.id, "step8")


def _starts_at(cell: Cell, step: int) -> bool:
    return cell.checkpoint is not None and cell.checkpoint.step == step


def test_instructions_must_be_defined(tiny_series: Path, tmp_path: Path) -> None:
    study = _study(tiny_series, tmp_path, {"hh": {"steps": (0, 10)}}, against_last=("hh",))
    asked = study.winrates.model_copy(update={"instructions": "askd"}) if study.winrates else None
    with pytest.raises(StudyError, match=r"winrates\.instructions names 'askd'"):
        make_plan(study.model_copy(update={"winrates": asked}))
