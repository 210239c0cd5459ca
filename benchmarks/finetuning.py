"""A trial of fine-tuning beside a bare training loop on the same batches."""

import atexit
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.measurements import Sides
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

_STUDY = (
    'suites=[{kind="pico", models=[{name="pico-64", last_step=8}]}]',
    "finetune.steps=[8]",
    "finetune.seeds=[0]",
    "finetune.arms=[{search=true}]",
    "finetune.search.steps=[8]",
)


def finetuning_sides() -> list[Sides]:
    """A trial of `norms-pico`, the checkpoint loaded already, as within a task of several.

    The other side trains PEFT's LoRA with AdamW on transformers' own loss, from batches that are
    made beforehand; once it measures the validation loss as often as a trial does, once never.
    """
    holder = TemporaryDirectory(prefix="eigentrace-bench-")
    atexit.register(holder.cleanup)
    root = Path(holder.name)
    files = SharedFiles(root)
    study = load_study("norms-pico", _STUDY)
    assert study.finetune is not None
    tuned = study.finetune.model_copy(update={"dataset": None, "search": None})
    cells = make_plan(study.model_copy(update={"finetune": tuned})).cells
    (trial,) = (cell for cell in cells if isinstance(cell.work, FinetuneWork))
    work, checkpoint = trial.work, trial.checkpoint
    assert isinstance(work, FinetuneWork)
    assert checkpoint is not None

    def run(cell: Any) -> None:
        run_task(Task((cell,), "cpu", 1, 32), files, _report)

    for cell in cells:
        if cell.id in trial.needs:
            run(cell)

    def ours() -> None:
        shutil.rmtree(root / "artifacts" / trial.id, ignore_errors=True)
        run(trial)

    folder = locate(files, checkpoint.source)  # type: ignore[arg-type]
    pairs = tokenized(work, AutoTokenizer.from_pretrained(folder), files, 128)
    recipe = work.recipe
    orders = [
        np.random.default_rng([recipe.seed, epoch]).permutation(len(pairs.training)).tolist()
        for epoch in range(1, recipe.epochs + 1)
    ]
    epochs = [_labelled(pairs.training, order, recipe.batch_size) for order in orders]
    validation = _labelled(pairs.validation, list(range(len(pairs.validation))), 64)

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

    base = AutoModelForCausalLM.from_pretrained(folder)
    ours()
    what = "a trial of 96 steps of LoRA"
    return [
        (f"{what}, against a bare loop that measures as often", ours, lambda: bare(True), "0.91"),
        (f"{what}, against a bare loop that measures nothing", ours, lambda: bare(False), "0.5"),
    ]


def _labelled(
    pairs: tuple[TokenPair, ...], order: list[int], size: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns batches as transformers takes them: ids, and labels that are −100 in the prompt."""
    return [_with_labels(batch) for batch in batches(pairs, order, size, torch.device("cpu"))]


def _with_labels(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.nn.functional.pad(batch.ids, (0, 1))
    labels = torch.full_like(ids, -100)
    labels[batch.rows, batch.columns + 1] = batch.targets
    ids[batch.rows, batch.columns + 1] = batch.targets
    return ids, labels


@torch.no_grad()
def _measured(model: Any, validation: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    model.eval()
    return sum(float(model(input_ids=ids, labels=labels).loss) for ids, labels in validation)


def _report(event: Event) -> None:
    if isinstance(event, Failed):
        raise RuntimeError(event.message)
