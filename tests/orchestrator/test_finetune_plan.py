"""Fine-tunes as cells: every trial once, searches in order, mistakes refused in words."""

from collections import Counter
from pathlib import Path

import pytest

from jobs.cells import Cell
from jobs.errors import StudyError
from jobs.finetune_work import FinetuneWork, HarnessPairs, PairFiles
from jobs.study import load_study
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.orchestrator.local_study import write_study

TUNING = """
[tasks.mine]
kind = "pairs"
training = ["{records}"]
validation = ["{records}"]

[tasks.sciq]
kind = "harness"
data = ["{records}"]
training_data = ["{records}"]

[finetune]
tasks = ["mine"]
seeds = [0, 1]
arms = [{{ ranks = [4, 8] }}, {{ intervention = "equalize", search = true }}]
dataset = "words"

[finetune.search]
learning_rates = [2e-4, 1e-3, 5e-5]
steps = [100]
"""


@pytest.fixture
def tuning(tmp_path: Path, tiny_series: Path, texts: Texts) -> str:
    """A study of three checkpoints that are fine-tuned."""
    records = tmp_path / "pairs.jsonl"
    records.write_text('{"prompt": "p", "answer": "a"}\n')
    path = write_study(tmp_path, tiny_series, texts.txt)
    path.write_text(path.read_text() + TUNING.format(records=records))
    return str(path)


def _cells(study: str, *overrides: str) -> tuple[Cell, ...]:
    return make_plan(load_study(study, overrides)).cells


def _trials(study: str, *overrides: str) -> list[tuple[Cell, FinetuneWork]]:
    return [(c, c.work) for c in _cells(study, *overrides) if isinstance(c.work, FinetuneWork)]


def test_every_trial_is_there_once(tuning: str) -> None:
    trials = _trials(tuning)
    steps = Counter(cell.checkpoint.step for cell, _ in trials if cell.checkpoint)
    # Three arms and two seeds; at step 100 two further rates each, the first being the arm's own.
    assert steps == {0: 6, 10: 6, 100: 6 + 2 * 2}
    assert len({cell.id for cell, _ in trials}) == len(trials)
    by_id = {cell.id: cell for cell in _cells(tuning)}
    for cell, work in trials:
        assert {by_id[need].work.kind for need in cell.needs} <= {"sequences", "finetune"}
        assert isinstance(work.examples, PairFiles)


def test_a_trial_of_a_search_needs_those_before_it(tuning: str) -> None:
    searched = [(c, w) for c, w in _trials(tuning) if w.recipe.intervention == "equalize"]
    searched = [(c, w) for c, w in searched if c.checkpoint and c.checkpoint.step == 100]
    for seed in (0, 1):
        found = [(c, w) for c, w in searched if w.recipe.seed == seed]
        assert [w.recipe.learning_rate for _, w in found] == [2e-4, 1e-3, 5e-5]
        ids = [c.id for c, _ in found]
        assert [w.rivals for _, w in found] == [(), (ids[0],), (ids[0], ids[1])]
        assert all(set(w.rivals) <= set(c.needs) for c, w in found)
        assert [w.halving is None for _, w in found] == [True, False, False]
        assert len({c.group for c, _ in found}) == 1


def test_models_steps_and_tasks_are_chosen(tuning: str) -> None:
    trials = _trials(tuning, "finetune.steps=[10,100]", 'finetune.tasks=["sciq"]')
    assert {c.checkpoint.step for c, _ in trials if c.checkpoint} == {10, 100}
    assert all(isinstance(work.examples, HarnessPairs) for _, work in trials)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['finetune.tasks=["mime"]'], "did you mean 'mine'"),
        (["finetune.steps=[3]"], "no checkpoint has step 3"),
        (["finetune.search.steps=[7]"], "no checkpoint has step 7"),
        (['finetune.models=["nobody"]'], "names 'nobody', which no suite has"),
        (["finetune.dataset=absent"], "measures on dataset 'absent'"),
        (['evals.tasks=["mine"]'], "is for fine-tuning and can't be asked"),
        (['finetune.tasks=["sciq"]', "tasks.sciq.training_data=[]"], "no records to train on"),
        (['tasks.mine.validation=["/absent.jsonl"]'], "there is no file /absent.jsonl"),
        (["tasks.mine.validation=[]"], "validation"),
        (["finetune.template=Answer:"], "must hold {prompt} once"),
        (['finetune.arms=[{method="norm_lr"}]'], "acts on the head"),
    ],
)
def test_mistakes_are_told_before_the_run(tuning: str, overrides: list[str], message: str) -> None:
    with pytest.raises(StudyError) as told:
        _cells(tuning, *overrides)
    assert message in str(told.value)
