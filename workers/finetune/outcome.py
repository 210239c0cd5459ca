"""The rows of a fine-tune: what it was, what it changed, and how far the head's rows moved."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from jobs.finetune_work import FinetuneWork
from workers.finetune.adapters import Adapted
from workers.finetune.examples import TokenPairs
from workers.finetune.training import Course
from workers.kernels.update_sizes import update_sizes
from workers.measure import Rows


@dataclass
class Losses:
    """Losses in nats per token; None where the trial diverged, or there is no text.

    Attributes:
        none: On the validation examples, before any intervention.
        pre: Likewise, interventions made.
        post: Likewise, after training.
        text_pre: On general text, before any intervention.
        text_post: Likewise, after training.
    """

    none: float = 0.0
    pre: float = 0.0
    post: float | None = None
    text_pre: float | None = None
    text_post: float | None = None


def trial_rows(
    work: FinetuneWork,
    pairs: TokenPairs,
    adapted: Adapted,
    untied: bool,
    course: Course,
    losses: Losses,
) -> dict[str, Rows]:
    """Returns the rows of a trial by table, `updates` first where the head was adapted.

    Args:
        work: The trial.
        pairs: Its examples.
        adapted: The model, adapters still in place.
        untied: Whether the intervention copied a tied head.
        course: What training went through.
        losses: Before and after.
    """
    recipe = work.recipe
    trial = {
        "task": work.examples.name,
        "method": recipe.method,
        "intervention": recipe.intervention,
        "clip": recipe.clip,
        "rank": recipe.rank,
        "targets": "+".join(recipe.targets),
        "seed": recipe.seed,
        "lr": recipe.learning_rate,
    }
    norms = adapted.head.double().norm(dim=1)
    moved, deciles = _moved(pairs, adapted) if losses.post is not None else ({}, [])
    row = {
        **trial,
        "groups": recipe.groups,
        "alpha": recipe.alpha,
        "dropout": recipe.dropout,
        "epochs": recipe.epochs,
        "epochs_run": len(course.validation_losses),
        "steps_run": course.steps,
        "batch_size": recipe.batch_size,
        "weight_decay": recipe.weight_decay,
        "searched": work.halving is not None,
        "n_training": len(pairs.training),
        "n_validation": len(pairs.validation),
        "n_truncated": pairs.n_truncated,
        "template": work.template,
        "template_fingerprint": pairs.fingerprint,
        "adapted_modules": list(adapted.modules),
        "trainable_parameters": sum(p.numel() for p in adapted.parameters),
        "head_untied": untied or adapted.head_untied,
        "loss_none": losses.none,
        "loss_pre": losses.pre,
        "loss_post": losses.post,
        "validation_losses": course.validation_losses,
        "training_losses": course.training_losses,
        "damage": losses.pre - losses.none,
        "forgetting_dataset": work.dataset,
        "text_loss_pre": losses.text_pre,
        "text_loss_post": losses.text_post,
        "norm_cv_tuned": float(norms.std(correction=0) / norms.mean()),
        "forward_dtype": recipe.dtype,
        **moved,
    }
    if losses.post is not None:
        row["finetunability"] = (losses.pre - losses.post) / losses.pre
        row["net_gain"] = (losses.none - losses.post) / losses.none
    if losses.text_pre is not None and losses.text_post is not None:
        row["forgetting"] = losses.text_post - losses.text_pre
    side = {"updates": [trial | decile for decile in deciles]} if deciles else {}
    return {**side, work.table: [row]}


def _moved(pairs: TokenPairs, adapted: Adapted) -> tuple[dict[str, Any], Rows]:
    """Returns how the head's updates depend on its norms, and their sizes by norm decile."""
    update = adapted.head_update()
    if update is None:
        return {}, []
    counts = torch.zeros(len(adapted.head), dtype=torch.int64)
    for token, count in Counter(t for pair in pairs.training for t in pair.tokens).items():
        counts[token] = count
    sizes = update_sizes(adapted.head, update, counts.numpy())
    slopes = {
        "beta": sizes.beta,
        "beta_seen": sizes.beta_seen,
        "beta_unseen": sizes.beta_unseen,
        "beta_given_count": sizes.beta_given_count,
    }
    found = {name: slope.value for name, slope in slopes.items() if slope is not None}
    if sizes.beta is not None:
        found["beta_se"] = sizes.beta.stderr
    return found, [asdict(decile) for decile in sizes.deciles]
