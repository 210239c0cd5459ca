"""Trials: what their rows say, that equal ones are equal to the last bit, and how they end."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from jobs.cells import Cell
from jobs.events import Event, Failed, Finished, Progress
from jobs.finetune_spec import ON_HEAD, Finetune
from jobs.finetune_work import FinetuneWork, Halving
from jobs.task_spec import PairsTask
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.workers.measured import own
from tests.workers.tasks import kinds, run_cells, small_study, task_of
from tests.workers.test_harness import records_file
from workers.artifacts import SharedFiles
from workers.finetune import held, training
from workers.hub import load_checkpoint
from workers.run import run_task

WORDS = ("river", "stone", "cloud", "lamp", "field", "house")
RECORDS = [
    {"prompt": f"The {WORDS[n % 6]} number {n} is a", "answer": WORDS[(n * 5 + 1) % 6]}
    for n in range(24)
]
EITHER: list[dict[str, Any]] = [
    {"method": "lora"},
    {"method": "dora"},
    *({"method": method, "targets": ("attention", "head")} for method in sorted(ON_HEAD)),
    {"intervention": "equalize"},
    {"intervention": "shuffle"},
    {"intervention": "clip", "clip": 0.1},
]
Trial = Callable[..., Cell]


@pytest.fixture
def trial(tiny_series: Path, texts: Texts, tmp_path: Path) -> Trial:
    """Makes the cell of a trial at step 0 that differs from a plain one; its text is drawn."""
    training_file = records_file(tmp_path, RECORDS, "training.jsonl")
    validation_file = records_file(tmp_path, RECORDS[:10], "validation.jsonl")
    study = small_study(
        tiny_series,
        texts,
        tasks={
            "words": PairsTask(training=(str(training_file),), validation=(str(validation_file),))
        },
        finetune=Finetune(
            tasks=("words",), steps=(0,), dataset="one", dataset_sequences=8, learning_rate=1e-2
        ),
    )
    cells = make_plan(study).cells
    (plain,) = (cell for cell in cells if isinstance(cell.work, FinetuneWork))
    run_cells([cell for cell in cells if cell.id == plain.needs[0]], tmp_path)

    def make(**changes: Any) -> Cell:
        work = plain.work
        assert isinstance(work, FinetuneWork)
        of_work = {k: changes.pop(k) for k in ("halving", "rivals", "sequences") if k in changes}
        recipe = replace(work.recipe, **{"groups": 2, "epochs": 2, **changes})
        return Cell(replace(work, recipe=recipe, **of_work), plain.needs, plain.checkpoint)

    return make


def rows_of(cells: list[Cell], results: Path) -> list[dict[str, Any]]:
    """The rows of table `finetunes`, none of the cells having failed."""
    events = run_cells(cells, results)
    assert not kinds(events, Failed)
    return [
        row
        for event in kinds(events, Finished)
        for name, table in event.tables
        if name == "finetunes"
        for row in table.to_pylist()
    ]


def test_rows_have_the_columns_of_their_tables(trial: Trial, tmp_path: Path) -> None:
    (finished,) = kinds(run_cells([trial(targets=("head",))], tmp_path), Finished)
    names = [name for name, _ in finished.tables]
    assert names == ["updates", "finetunes"]
    for name, table in finished.tables:
        assert set(table.column_names) == own(name)
    (finished,) = kinds(run_cells([trial()], tmp_path), Finished)
    assert [name for name, _ in finished.tables] == ["finetunes"]


def test_the_measures_follow_from_the_losses(trial: Trial, tmp_path: Path) -> None:
    for row in rows_of([trial(**change) for change in EITHER], tmp_path):
        none, pre, post = row["loss_none"], row["loss_pre"], row["loss_post"]
        assert row["finetunability"] == (pre - post) / pre
        assert row["damage"] == pre - none
        assert row["net_gain"] == (none - post) / none
        assert row["forgetting"] == row["text_loss_post"] - row["text_loss_pre"]
        assert (row["damage"] == 0) == (row["intervention"] == "none")
        assert row["epochs_run"] == len(row["validation_losses"]) == 2
        assert row["validation_losses"][-1] == pytest.approx(post)
        assert row["finetunability"] > 0
        assert row["steps_run"] == 2 * math.ceil(24 / 16)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"learning_rate": 0.0}])
def test_training_nothing_gains_exactly_nothing(
    trial: Trial, tmp_path: Path, change: dict[str, Any]
) -> None:
    for row in rows_of([trial(**each, **change) for each in EITHER], tmp_path):
        assert row["finetunability"] == 0
        if row["intervention"] == "none":
            assert row["net_gain"] == row["damage"] == row["forgetting"] == 0


def test_equal_trials_are_equal_to_the_last_bit(trial: Trial, tmp_path: Path) -> None:
    one, other = trial(), trial(intervention="equalize", targets=("attention", "head"))
    link = SharedFiles(tmp_path).artifact(one.needs[0])
    assert link is not None
    found: list[str] = []
    for name, order in (("a", [one, other]), ("b", [other, one]), ("c", [one])):
        artifacts = tmp_path / name / "artifacts"
        artifacts.mkdir(parents=True)
        (artifacts / one.needs[0]).symlink_to(link)
        torch.manual_seed(len(found))  # Whatever the state of the process.
        rows = {row["intervention"]: row for row in rows_of(order, tmp_path / name)}
        found.append(json.dumps(rows["none"]))
        held.let_go()
    assert found[0] == found[1] == found[2]
    (seeded,) = rows_of([trial(seed=1)], tmp_path)
    assert seeded["loss_post"] != json.loads(found[0])["loss_post"]


def test_losses_are_those_of_transformers_and_a_plain_loop(trial: Trial, tmp_path: Path) -> None:
    cell = trial(dropout=0.0, sequences=None)
    (row,) = rows_of([cell], tmp_path)
    work, checkpoint = cell.work, cell.checkpoint
    assert isinstance(work, FinetuneWork)
    assert checkpoint is not None
    with held.holding(
        checkpoint, "float32", "cpu", SharedFiles(tmp_path), lambda _a, _b: None
    ) as kept:
        tokenizer = kept.loaded.tokenizer
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["query_key_value"])
        model = get_peft_model(kept.loaded.model, config)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                parameter.data.uniform_(-bound, bound, generator=generator)

        def loss(records: list[dict[str, str]]) -> torch.Tensor:
            total, count = torch.zeros(()), 0
            for record in records:
                prompt = tokenizer.encode(record["prompt"])
                whole = tokenizer.encode(f"{record['prompt']} {record['answer']}")
                labels = [-100] * len(prompt) + whole[len(prompt) :]
                kept_tokens = len(whole) - len(prompt)
                out = model(input_ids=torch.tensor([whole]), labels=torch.tensor([labels]))
                total, count = total + out.loss * kept_tokens, count + kept_tokens
            return total / count

        assert float(loss(RECORDS[:10]).detach()) == pytest.approx(row["loss_pre"], rel=1e-5)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01)
        for epoch in (1, 2):
            order = np.random.default_rng([0, epoch]).permutation(24).tolist()
            for start in range(0, 24, 16):
                loss([RECORDS[place] for place in order[start : start + 16]]).backward()
                optimizer.step()
                optimizer.zero_grad()
        assert float(loss(RECORDS[:10]).detach()) == pytest.approx(row["loss_post"], rel=1e-4)
        model.unload()
    held.let_go()


def test_a_killed_trial_goes_on_after_its_last_whole_epoch(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = trial(epochs=3, seed=5)
    steps: list[int] = []

    def killed(event: Event) -> None:
        if isinstance(event, Progress) and event.total == 6:
            steps.append(event.done)
            if event.done == 5:  # In the middle of the third epoch.
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "_REPORT_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        run_task(task_of([cell]), SharedFiles(tmp_path), killed)
    assert max(steps) == 5
    events = run_cells([cell], tmp_path)
    resumed = [e.done for e in kinds(events, Progress) if e.total == 6]
    assert min(resumed) == 5
    (row,) = rows_of([cell], tmp_path)  # From its artifact: nothing is trained again.
    link = SharedFiles(tmp_path).artifact(cell.needs[0])
    assert link is not None
    (tmp_path / "whole" / "artifacts").mkdir(parents=True)
    (tmp_path / "whole" / "artifacts" / cell.needs[0]).symlink_to(link)
    assert rows_of([cell], tmp_path / "whole") == [row]
    assert not list((tmp_path / "work").glob("*"))


def test_a_diverged_trial_fails_with_its_step(trial: Trial, tmp_path: Path) -> None:
    (failed,) = kinds(run_cells([trial(learning_rate=1e25)], tmp_path), Failed)
    assert failed.cause == "diverged"
    assert "at step" in failed.message
    assert "1e+25" in failed.message
    (row,) = rows_of([trial()], tmp_path)  # What is held was left as it was.
    assert row["finetunability"] > 0


def test_a_search_stops_the_worse_and_takes_divergence_for_a_result(
    trial: Trial, tmp_path: Path
) -> None:
    first = trial()
    halving = Halving(1, 3)
    same = trial(learning_rate=1.1e-2, halving=halving, rivals=(first.id,))
    bad = trial(learning_rate=1e-6, halving=halving, rivals=(first.id, same.id))
    lost = trial(learning_rate=1e25, halving=halving, rivals=(first.id, same.id, bad.id))
    rows = rows_of([first, same, bad, lost], tmp_path)
    assert [row["epochs_run"] for row in rows[:1]] == [2]
    assert rows[2]["epochs_run"] == 1
    assert rows[2]["loss_post"] is not None
    assert rows[3]["loss_post"] is None
    assert rows[3].get("net_gain") is rows[3].get("finetunability") is None
    assert rows[3]["epochs_run"] == 0
    assert [row["searched"] for row in rows] == [False, True, True, True]


def test_trials_of_a_task_need_one_load(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []

    def counted(path: Path, *arguments: Any) -> Any:
        loads.append(path)
        return load_checkpoint(path, *arguments)

    monkeypatch.setattr(held, "load_checkpoint", counted)
    held.let_go()
    rows_of([trial(epochs=1), trial(epochs=1, seed=2)], tmp_path)
    rows_of([trial(epochs=1, seed=3)], tmp_path)
    assert len(loads) == 1


def test_unsuitable_targets_and_ranks_fail_in_words(trial: Trial, tmp_path: Path) -> None:
    cells = [trial(targets=("attention", "nowhere")), trial(rank=10_000)]
    failed = kinds(run_cells(cells, tmp_path), Failed)
    assert [each.cause for each in failed] == ["data", "data"]
    assert "nowhere" in failed[0].message
    assert "10000" in failed[1].message
