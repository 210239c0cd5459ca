"""A trial of fine-tuning that can be run again and again, and a bare loop on the same batches."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.cells import Cell
from jobs.events import Event, Failed
from jobs.finetune_work import FinetuneWork
from jobs.study import load_study
from orchestrator.plan import make_plan
from workers.artifacts import SharedFiles, locate
from workers.finetune.examples import TokenPair, tokenized
from workers.finetune.training import Batch, batches
from workers.run import run_task
from workers.telling import Task
from workers.threads import fixed_threads

STEPS = 96
"""Optimizer steps of the trial."""

_STUDY = (
    'suites=[{kind="pico", models=[{name="pico-64", last_step=8}]}]',
    "finetune.steps=[8]",
    "finetune.seeds=[0]",
    "finetune.arms=[{search=true}]",
    "finetune.search.steps=[8]",
)
_Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Trial:
    """A trial of `norms-pico` whose checkpoint is there.

    Attributes:
        cell: The trial.
        root: The folder of what was made for it.
    """

    cell: Cell
    root: Path

    def run(self) -> None:
        """Runs the trial anew; from the second time on, the checkpoint is loaded already."""
        shutil.rmtree(self.root / "artifacts" / self.cell.id, ignore_errors=True)
        _run(self.cell, self.root)


def make_trial(root: Path) -> Trial:
    """Plans a trial and makes what it needs."""
    study = load_study("norms-pico", _STUDY)
    assert study.finetune is not None
    tuned = study.finetune.model_copy(update={"dataset": None, "search": None})
    cells = make_plan(study.model_copy(update={"finetune": tuned})).cells
    (trial,) = (cell for cell in cells if isinstance(cell.work, FinetuneWork))
    for cell in cells:
        if cell.id in trial.needs:
            _run(cell, root)
    return Trial(trial, root)


def bare_loop(trial: Trial) -> Callable[[bool], None]:
    """Returns a loop that trains PEFT's LoRA with AdamW on transformers' own loss.

    Its batches are made beforehand, and the model is loaded; it takes whether to measure the
    validation loss as often as the trial does, or never.
    """
    work, checkpoint = trial.cell.work, trial.cell.checkpoint
    assert isinstance(work, FinetuneWork)
    assert checkpoint is not None
    files = SharedFiles(trial.root)
    folder = locate(files, checkpoint.source)  # type: ignore[arg-type]
    pairs = tokenized(work, AutoTokenizer.from_pretrained(folder), files, 128)
    recipe = work.recipe
    orders = [
        np.random.default_rng([recipe.seed, epoch]).permutation(len(pairs.training)).tolist()
        for epoch in range(1, recipe.epochs + 1)
    ]
    epochs = [_labelled(pairs.training, order, recipe.batch_size) for order in orders]
    validation = _labelled(pairs.validation, list(range(len(pairs.validation))), 64)
    base = AutoModelForCausalLM.from_pretrained(folder)

    def bare(measuring: bool) -> None:
        with fixed_threads(recipe.threads):
            model = get_peft_model(base, LoraConfig(r=8, lora_dropout=0.05, lora_alpha=16))
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, fused=True)
            losses = [_measured(model, validation)] if measuring else []
            for epoch in epochs:
                model.train()
                for ids, labels in epoch:
                    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                losses += [_measured(model, validation)] if measuring else []
            model.unload()

    return bare


def _run(cell: Cell, root: Path) -> None:
    run_task(Task((cell,), "cpu", 1, 32), SharedFiles(root), _report)


def _labelled(pairs: tuple[TokenPair, ...], order: list[int], size: int) -> _Batches:
    """Returns batches as transformers takes them: ids, and labels that are −100 in the prompt."""
    return [_with_labels(batch) for batch in batches(pairs, order, size, torch.device("cpu"))]


def _with_labels(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.nn.functional.pad(batch.ids, (0, 1))
    labels = torch.full_like(ids, -100)
    labels[batch.rows, batch.columns + 1] = batch.targets
    ids[batch.rows, batch.columns + 1] = batch.targets
    return ids, labels


@torch.no_grad()
def _measured(model: Any, validation: _Batches) -> float:
    model.eval()
    return sum(float(model(input_ids=ids, labels=labels).loss) for ids, labels in validation)


def _report(event: Event) -> None:
    if isinstance(event, Failed):
        raise RuntimeError(event.message)
