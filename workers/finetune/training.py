"""The training loop of adapters.

Invariant: the adapters after epoch e depend on the checkpoint, the examples and the recipe alone: a
trial that is killed and begun again goes on after its last whole epoch and ends in the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from jobs.errors import DivergedError
from jobs.finetune_work import Recipe
from workers.features import logits_of
from workers.finetune.adapters import Adapted
from workers.finetune.examples import TokenPair

_STATE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_REPORT_EVERY = 8


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right.

    Attributes:
        ids: Token ids, (B, T).
        rows: Row of each state that predicts an answer token, (P,).
        columns: Its place in the row, (P,).
        targets: The answer tokens, (P,).
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor


@dataclass
class Course:
    """What training went through.

    Attributes:
        training_losses: Mean loss of the answer tokens of each epoch, dropout on, in nats.
        validation_losses: Validation loss after each epoch, in nats per token.
        steps: Optimizer steps taken.
    """

    training_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    steps: int = 0


def batches(
    pairs: Sequence[TokenPair], places: Sequence[int], size: int, device: torch.device
) -> list[Batch]:
    """Returns examples in batches, in the order of their places."""
    found = []
    for start in range(0, len(places), size):
        chosen = [pairs[place] for place in places[start : start + size]]
        # The last token predicts nothing.
        ids = torch.zeros(len(chosen), max(len(p.tokens) for p in chosen) - 1, dtype=torch.int64)
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        for row, pair in enumerate(chosen):
            ids[row, : len(pair.tokens) - 1] = torch.tensor(pair.tokens[:-1])
            first = len(pair.tokens) - pair.answer_length
            rows += [row] * pair.answer_length
            columns += range(first - 1, len(pair.tokens) - 1)
            targets += pair.tokens[first:]
        numbers = (torch.tensor(values, device=device) for values in (rows, columns, targets))
        found.append(Batch(ids.to(device), *numbers))
    return found


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Returns the sum of the answer tokens' losses, in nats.

    No mask is needed: attention is causal and the padding comes last. Logits are computed for the
    answer tokens alone.
    """
    hidden = model.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = logits_of(model, hidden[batch.rows, batch.columns])
    return cross_entropy(logits, batch.targets, reduction="sum")


@torch.no_grad()
def validation_loss(model: Any, validation: Sequence[Batch]) -> float:
    """Returns the mean loss of the answer tokens in nats, NaN where it isn't finite."""
    total = sum(float(answer_loss(model, batch)) for batch in validation)
    return total / sum(len(batch.targets) for batch in validation)


def train(
    adapted: Adapted,
    training: Sequence[TokenPair],
    validation: Sequence[Batch],
    recipe: Recipe,
    folder: Path,
    goes_on: Callable[[int, float], bool],
    report: Callable[[int, int], None],
) -> Course:
    """Trains adapters with AdamW at a constant learning rate, on the answer tokens' mean loss.

    Args:
        adapted: The model with fresh adapters.
        training: Examples; each epoch visits all, in an order that follows from (seed, epoch).
        validation: What the loss after each epoch is measured on.
        recipe: How it is trained.
        folder: Where the state after each epoch is kept; that of a killed call is resumed.
        goes_on: Asked after each epoch but the last, with (epoch, validation loss).
        report: Called with (steps done, all steps).

    Raises:
        DivergedError: A loss that is no longer finite; the course so far is its `course`.
    """
    model, device = adapted.model, adapted.parameters[0].device
    optimizer = torch.optim.AdamW(
        adapted.parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=device.type != "mps",
    )
    course = _resumed(folder / _STATE, adapted.parameters, optimizer)
    per_epoch = -(-len(training) // recipe.batch_size)
    total = per_epoch * recipe.epochs
    for epoch in range(len(course.validation_losses) + 1, recipe.epochs + 1):
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(training)).tolist()
        loss_sum, count = 0.0, 0
        adapted.train(True)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.default_rng([recipe.seed, epoch, 1]).integers(2**63)))
            for batch in batches(training, order, recipe.batch_size, device):
                loss = answer_loss(model, batch)
                value = loss.item()
                if not math.isfinite(value):
                    raise _diverged(course, f"the training loss is {value}", recipe)
                (loss / len(batch.targets)).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                loss_sum, count = loss_sum + value, count + len(batch.targets)
                course.steps += 1
                if course.steps % _REPORT_EVERY == 0:
                    report(course.steps, total)
        adapted.train(False)
        after = validation_loss(model, validation)
        if not math.isfinite(after):
            raise _diverged(course, f"the validation loss is {after}", recipe)
        course.training_losses.append(loss_sum / count)
        course.validation_losses.append(after)
        report(course.steps, total)
        if epoch == recipe.epochs or not goes_on(epoch, after):
            break
        _save(folder / _STATE, adapted.parameters, optimizer, course)
    return course


class TrialDivergedError(DivergedError):
    """Training whose loss is no longer a number.

    Attributes:
        course: What it went through before.
    """

    def __init__(self, message: str, remedy: str, course: Course) -> None:
        super().__init__(message, remedy)
        self.course = course


def _diverged(course: Course, what: str, recipe: Recipe) -> TrialDivergedError:
    return TrialDivergedError(
        f"{what} at step {course.steps}, learning rate {recipe.learning_rate:g}",
        "lower the learning rate, or search for one with finetune.search",
        course,
    )


def _save(
    path: Path, parameters: Sequence[torch.Tensor], optimizer: torch.optim.AdamW, course: Course
) -> None:
    """Replaces the state in one go: adapters, moments, and the course so far."""
    tensors = {
        "training_losses": torch.tensor(course.training_losses, dtype=torch.float64),
        "validation_losses": torch.tensor(course.validation_losses, dtype=torch.float64),
        "steps": torch.tensor(course.steps),
    }
    for place, parameter in enumerate(parameters):
        tensors[f"parameter.{place}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}.{place}"] = optimizer.state[parameter][moment]
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


def _resumed(
    path: Path, parameters: Sequence[torch.Tensor], optimizer: torch.optim.AdamW
) -> Course:
    """Restores adapters and moments of the last whole epoch, and returns the course up to it."""
    if not path.exists():
        return Course()
    state = load_file(path)
    steps = int(state["steps"])
    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            parameter.copy_(state[f"parameter.{place}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(steps)),
                **{m: state[f"{m}.{place}"].to(parameter.device) for m in _MOMENTS},
            }
    return Course(state["training_losses"].tolist(), state["validation_losses"].tolist(), steps)
