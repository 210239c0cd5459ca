"""Chains of post-training as cells: stages in order, their checkpoints measured like others."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from jobs.capability_work import ChatsWork
from jobs.cells import Cell
from jobs.errors import StudyError
from jobs.posttrain_work import HubRecords, PassKWork, PosttrainWork, SampleWork
from jobs.sources import Produced
from jobs.study import load_study
from jobs.work import LossWork
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import run_here, write_study

CHAIN = """
[training.chats]
kind = "local"
paths = ["{records}"]

[training.problems]
kind = "local"
paths = ["{problems}"]

[[posttrain]]
name = "tuned"
suite = "tiny"
seeds = [0, 1]
stages = [
    {{ method = "sft", data = "chats", steps = 4, save_steps = [2] }},
    {{ method = "rlvr", data = "problems", steps = 6 }},
]

[passk]
problems = ["problems"]
samples = 4
k = [1, 4]
batch = 2
engine = "transformers"
"""


@pytest.fixture
def chain(tmp_path: Path, tiny_series: Path, texts: Texts) -> str:
    """A study of three checkpoints, the last of which is post-trained."""
    records = tmp_path / "chats.json"
    records.write_text(json.dumps([{"prompt": "p", "completion": "c"}] * 3))
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "1+1", "answer": "2"}\n' * 5)
    path = write_study(tmp_path, tiny_series, texts.txt)
    name = load_study(str(path)).suites[0].name
    path.write_text(
        path.read_text()
        + CHAIN.format(records=records, problems=problems).replace('"tiny"', f'"{name}"')
    )
    return str(path)


def _cells(study: str, *overrides: str) -> tuple[Cell, ...]:
    return make_plan(load_study(study, overrides)).cells


def test_stages_follow_each_other_and_their_checkpoints_are_measured(chain: str) -> None:
    cells = _cells(chain)
    by_id = {cell.id: cell for cell in cells}
    stages = [cell for cell in cells if isinstance(cell.work, PosttrainWork)]
    assert len(stages) == 4
    for first, second in (stages[:2], stages[2:]):
        assert second.needs == (first.id,)
        assert second.checkpoint is not None
        assert second.checkpoint.source == Produced(first.id, "step4")
        assert second.checkpoint.stage == "sft"
    made = [c.checkpoint for c in cells if c.checkpoint and c.checkpoint.suite == "tuned"]
    labels = {(c.model, c.revision, c.step, c.stage) for c in made}
    model = stages[0].checkpoint.model if stages[0].checkpoint else ""
    assert labels == {
        (f"{model}-seed{seed}", *rest)
        for seed in (0, 1)
        for rest in (
            ("sft-step2", 2, "sft"),
            ("sft-step4", 4, "sft"),
            ("rlvr-step6", 10, "rlvr"),
        )
    }
    measured = Counter(c.work.kind for c in cells if c.checkpoint and c.checkpoint.suite == "tuned")
    assert measured["geometry"] == measured["checkpoint"] == 6
    assert len({c.work.kind for c in cells if c.work.kind == "sequences"}) == 1
    assert all(set(cell.needs) <= set(by_id) for cell in cells)


def test_the_last_checkpoint_of_each_stage_is_sampled_in_batches(chain: str) -> None:
    cells = _cells(chain)
    sampled = [cell for cell in cells if isinstance(cell.work, SampleWork)]
    estimated = [cell for cell in cells if isinstance(cell.work, PassKWork)]
    where = {cell.checkpoint.label for cell in estimated if cell.checkpoint}
    assert len(where) == len(estimated) == 1 + 2 * 2
    assert len(sampled) == 3 * len(estimated)
    for cell in estimated:
        assert [
            (c.work.first, c.work.count)
            for c in sampled
            if c.id in cell.needs and isinstance(c.work, SampleWork)
        ] == [(0, 2), (2, 2), (4, 1)]
    everywhere = _cells(chain, "passk.last_only=false")
    assert sum(isinstance(cell.work, PassKWork) for cell in everywhere) == 3 + 2 * 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['passk.problems=["problem"]'], "did you mean 'problems'"),
        (['passk.suites=["absent"]'], "names 'absent', which isn't there"),
        (['passk.models=["absent"]'], "names 'absent', which isn't there"),
        (['training.chats.paths=["/absent.json"]'], "there is no file /absent.json"),
        (['training.chats.paths=["/absent.csv"]'], "there is no file /absent.csv"),
        (["posttrain.tuned.name=series"], "the chain 'series' has the name of a suite or chain"),
        (["posttrain.tuned.suite=absent"], "begins from suite 'absent', which has no checkpoints"),
        (["posttrain.tuned.steps=[7]"], "has no checkpoint of step 7"),
        (['posttrain.tuned.models=["absent"]'], "begins from model 'absent'"),
        (["passk.k=[1,8]"], "pass@8 needs 8 samples"),
        (['training.chats.paths=["~nobody-of-this-name/a.json"]'], "is of no use"),
    ],
)
def test_mistakes_are_told_before_the_run(chain: str, overrides: list[str], message: str) -> None:
    with pytest.raises(StudyError) as told:
        _cells(chain, *overrides)
    assert message in str(told.value)


def test_epochs_are_counted_over_the_records(chain: str) -> None:
    epochs = "{ method='sft', data='chats', epochs=3, batch_size=2, save_steps=[2] }"
    reward = "{ method='rlvr', data='problems', epochs=1, completions=4, batch_size=8 }"
    cells = _cells(chain, f"posttrain.tuned.stages=[{epochs}, {reward}]")
    steps = [c.work.training.steps for c in cells if isinstance(c.work, PosttrainWork)]
    assert steps == [5, 3, 5, 3]  # 3 × 3 chats in pairs; 5 problems, two at a time.
    counted = {c.id for c in cells}
    given = epochs.replace("epochs=3", "steps=5"), reward.replace("epochs=1", "steps=3")
    assert counted == {c.id for c in _cells(chain, f"posttrain.tuned.stages=[{', '.join(given)}]")}
    with pytest.raises(StudyError, match=r"3 epochs of 'chats': save_steps names 9, beyond .* 5"):
        _cells(chain, f"posttrain.tuned.stages=[{epochs.replace('[2]', '[9]')}]")


def test_what_is_on_the_hub_has_to_be_counted_by_the_study(
    chain: str, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    commit = local_hub.dataset("a/b").commit("main", {"a.jsonl": b"{}"})
    chats = "training.chats={kind='hub', repository='a/b', files=['a.jsonl']"
    stage = "posttrain.tuned.stages=[{ method='sft', data='chats', epochs=2, batch_size=2 }]"
    with pytest.raises(
        StudyError, match=r"2 epochs of 'chats', and how many .* isn't known"
    ) as told:
        _cells(chain, f"{chats}}}", stage)
    assert told.value.remedy == (
        "set training.chats.records to their number, or training.chats.limit, or give the stage "
        "`steps`"
    )
    for known, steps in (("records=7", 7), ("limit=5", 5), ("records=7, limit=5", 5)):
        cells = _cells(chain, f"{chats}, {known}}}", stage)
        works = [c.work for c in cells if isinstance(c.work, PosttrainWork)]
        assert [work.training.steps for work in works] == [steps, steps]
        assert isinstance(works[0].records, HubRecords)
        assert (works[0].records.commit, works[0].records.files) == (commit, ("a.jsonl",))
    problems = "training.problems={kind='hub', repository='a/b'"
    with pytest.raises(StudyError, match="how many records 'problems' has isn't known") as told:
        _cells(chain, f"{problems}}}")
    assert "set training.problems.records" in told.value.remedy
    sampled = _cells(chain, f"{problems}, records=3}}")
    assert sum(isinstance(cell.work, SampleWork) for cell in sampled) == 2 * 5


def test_losses_of_chats_are_measured_on_every_checkpoint(chain: str) -> None:
    asked = ("evals.chats.data=['chats', 'problems']", "evals.chats.sequences=4")
    cells = _cells(chain, *asked)
    by_id = {cell.id: cell for cell in cells}
    drawn = [cell for cell in cells if isinstance(cell.work, ChatsWork)]
    assert [cell.work.dataset for cell in drawn if isinstance(cell.work, ChatsWork)] == [
        "chats",
        "problems",
    ]
    for cell in drawn:
        read = [c for c in cells if isinstance(c.work, LossWork) and c.work.sequences == cell.id]
        assert len(read) == 3 + 2 * 3
        groups = {c.group for c in cells if c.work.kind == "geometry"}
        assert {c.group for c in read} == groups
        assert all(cell.id in c.needs and set(c.needs) <= set(by_id) for c in read)
    before = {cell.id for cell in _cells(chain)}
    assert before < set(by_id)
    with pytest.raises(StudyError, match=r"evals.chats names 'chat'.*did you mean 'chats'"):
        _cells(chain, "evals.chats.data=['chat']")


def test_empty_and_malformed_records_are_refused(chain: str, tmp_path: Path) -> None:
    (tmp_path / "chats.json").write_text("[]")
    with pytest.raises(StudyError, match="holds no records"):
        _cells(chain)
    for malformed in ("{", "[" * 100_000):
        (tmp_path / "chats.json").write_text(malformed)
        with pytest.raises(StudyError, match="is no list of records"):
            _cells(chain)


def test_more_batches_than_anyone_samples_are_refused(chain: str) -> None:
    changes = [
        "suites=[{kind='pico', corpus={heldout_problems=100000000}}]",
        "posttrain=[{name='c', suite='pico', stages=[{method='sft', data='chats', steps=1}]}]",
        "training.problems={kind='pico', form='heldout_problems'}",
        "passk.suites=['pico']",
        "datasets.words={kind='pico', sequences=8, sequence_length=8}",
    ]
    with pytest.raises(StudyError, match=r"more than 100000 cells.*raise passk.batch"):
        _cells(chain, *changes)


def test_processes_and_gpus_reach_the_cells(chain: str) -> None:
    cells = _cells(chain, "posttrain.tuned.processes=2", "posttrain.tuned.stages.1.completions=8")
    assert {c.work.processes for c in cells if isinstance(c.work, PosttrainWork)} == {2}
    cells = _cells(chain, "passk.engine=vllm", "passk.tensor_parallel=2")
    sampling = {c.work.sampling for c in cells if isinstance(c.work, SampleWork)}
    assert {each.tensor_parallel for each in sampling} == {2}


def test_too_few_gpus_are_told_of_before_anything_runs(
    chain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    results = tmp_path / "results"
    options = ["--study", chain, "--results", str(results), "--executor", "inline"]
    changes = ["--set", "posttrain.tuned.processes=2"]
    changes += ["--set", "posttrain.tuned.stages.1.completions=8"]
    outcome = run_here(capsys, "posttrain", *options, *changes)
    assert outcome.code == 2
    assert "needs 2 GPUs at once, and a worker has 1" in outcome.err
    assert not (results / "artifacts").exists()
