"""Multiple-choice questions answered without, and with nothing but, the leading directions.

Invariant: one forward pass serves every variant; they differ in nothing but the states that the
head is given.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from numpy.typing import NDArray
from torch import nn

from jobs.capability_work import AblationWork
from jobs.errors import DataError
from workers.artifacts import Files
from workers.features import check_logits, scaled_logits, states_at_once
from workers.harness import (
    asking,
    build_requests,
    load_task,
    right_options,
    template_fingerprint,
)
from workers.hub import LoadedCheckpoint, float64_device
from workers.kernels.projection import MODES, AblatedLogits, variance_share
from workers.kernels.spectrum import Spectrum
from workers.measure import Rows
from workers.scoring import LoadedModel, TokenRequest, continuation_states, tie_credit
from workers.sequences import TokenSequences
from workers.spectra import LAST_LAYER, checked_spectrum, moments_of
from workers.tally import phase

Variant = tuple[str, int | None]
"""Mode and rank; the rank of mode none is None."""

_WHOLE: Variant = ("none", None)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Attributes:
        lengths: Length of each option in characters, which acc_norm divides by.
        right: Places of the right options.
    """

    lengths: tuple[int, ...]
    right: frozenset[int]


@dataclass(frozen=True)
class Scores:
    """What answering a task's questions gave, one value per question.

    Attributes:
        acc: Whether the likeliest option, the first of several, is right.
        acc_norm: Likewise with log-likelihoods divided by the options' characters.
        acc_tie: Share of right ones among the options that are as likely as the best.
    """

    acc: NDArray[np.float64]
    acc_norm: NDArray[np.float64]
    acc_tie: NDArray[np.float64]


@phase("forward")
def ablation_rows(
    work: AblationWork,
    checkpoint: LoadedCheckpoint,
    sequences: TokenSequences,
    features: torch.Tensor,
    files: Files,
    batch_size: int,
    report: Callable[[int, int], None],
) -> Rows:
    """Returns the rows of table `ablation`: mode none, then both modes of each rank up to d.

    In half precision the model's own logits are as coarse as it makes them; what is removed from
    them, or retained, is computed in float32.

    Args:
        work: The task and the ranks.
        checkpoint: What is asked.
        sequences: What the features belong to.
        features: Last-token features after the final norm, (M, d).
        files: Where the task's records are.
        batch_size: Requests per forward pass.
        report: Called with (requests done, all requests).

    Raises:
        DataError: A task without options, or that scores in a way of its own, or whose records
            don't fit it; an architecture whose logits aren't known; features that don't vary;
            likelihoods that are not finite.
    """
    task = load_task(work.questions, files)
    instances = build_requests(task, work.questions.limit)
    questions, asked = _questions(task, instances)
    check_logits(checkpoint.model)
    found = checked_spectrum(LAST_LAYER, moments_of(features))
    ranks = [rank for rank in dict.fromkeys(work.ranks) if rank <= features.shape[1]]
    requests = LoadedModel(checkpoint, batch_size).token_requests(asked)
    sums = _log_likelihoods(work, checkpoint.model, found, ranks, requests, batch_size, report)
    shared = {
        "task": work.questions.name,
        "dataset": work.dataset,
        "sequences_fingerprint": sequences.fingerprint,
        "ablation_mean": work.mean,
        "chance": sum(len(q.right) / len(q.lengths) for q in questions) / len(questions),
        "n": len(questions),
        "n_truncated": len({request.example for request in requests if request.truncated}),
        "forward_dtype": work.dtype,
        "template_fingerprint": template_fingerprint(instances),
    }
    variants = [_WHOLE, *((mode, rank) for rank in ranks for mode in MODES)]
    return [
        shared
        | {
            "mode": mode,
            "rank": rank,
            "variance_share": None if rank is None else variance_share(found, rank),
        }
        | _accuracies(questions, sums[mode, rank])
        for mode, rank in variants
    ]


def score(questions: Sequence[Question], log_likelihoods: NDArray[np.float64]) -> Scores:
    """Scores questions as lm-eval does, and with credit for ties.

    Args:
        questions: The questions.
        log_likelihoods: Of every option of every question, in order.
    """
    acc, acc_norm, acc_tie = [], [], []
    start = 0
    for question in questions:
        given = log_likelihoods[start : start + len(question.lengths)]
        start += len(given)
        with np.errstate(divide="ignore"):  # An empty option is never the likeliest.
            by_length = given / np.array(question.lengths, dtype=np.float64)
        acc.append(float(int(given.argmax()) in question.right))
        acc_norm.append(float(int(by_length.argmax()) in question.right))
        acc_tie.append(tie_credit(given.tolist(), question.right))
    return Scores(np.array(acc), np.array(acc_norm), np.array(acc_tie))


def _accuracies(questions: Sequence[Question], sums: NDArray[np.float64]) -> dict[str, Any]:
    scores = score(questions, sums)
    count = len(questions)
    # As in lm-eval: that of a mean of independent examples.
    error = float(scores.acc.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return {
        "acc": float(scores.acc.mean()),
        "acc_stderr": error,
        "acc_norm": float(scores.acc_norm.mean()),
        "acc_tie": float(scores.acc_tie.mean()),
        "log_likelihoods": sums.astype(np.float32),
    }


def _questions(
    task: Any, instances: Sequence[Instance]
) -> tuple[list[Question], list[tuple[int, int, str, str]]]:
    """Returns a task's questions, and (question, option, context, continuation) of each option."""
    name = task.config.task
    if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
        raise DataError(
            f"task '{name}' is no multiple-choice task whose likeliest option is the answer",
            "leave it out of ablation.tasks",
        )
    documents: dict[int, list[Instance]] = defaultdict(list)
    for instance in instances:
        documents[instance.doc_id].append(instance)
    questions: list[Question] = []
    asked: list[tuple[int, int, str, str]] = []
    for place, (_, options) in enumerate(sorted(documents.items())):
        document = options[0].doc
        with asking(name):
            choices = task.doc_to_choice(document)
            questions.append(Question(tuple(map(len, choices)), right_options(task, document)))
        # Some tasks ask for every option's likelihood without a prompt as well, after the others.
        asked += [
            (place, option.idx, *option.args)
            for option in sorted(options, key=lambda option: option.idx)[: len(choices)]
        ]
    return questions, asked


@torch.no_grad()
def _log_likelihoods(
    work: AblationWork,
    model: Any,
    found: Spectrum,
    ranks: Sequence[int],
    requests: Sequence[TokenRequest],
    batch_size: int,
    report: Callable[[int, int], None],
) -> dict[Variant, NDArray[np.float64]]:
    """Returns the log-likelihood of every request under every variant."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise DataError(
            f"the head of {type(model).__name__} is no linear map",
            "leave the suite out of ablation",
        )
    ablation = AblatedLogits(found, head.weight, head.bias, ranks, keep_mean=work.mean == "keep")
    exact = float64_device(head.weight.device)
    sums: dict[Variant, torch.Tensor] = defaultdict(
        lambda: torch.zeros(len(requests), dtype=torch.float64, device=exact)
    )
    for batch in continuation_states(model, requests, batch_size, report):
        owners = batch.places.to(exact)[batch.owners.to(exact)]
        pieces = (tensor.split(states_at_once(model)) for tensor in (batch.states, batch.targets))
        start = 0
        for states, targets in zip(*pieces, strict=True):
            belonging = owners[start : start + len(states)]
            start += len(states)
            for variant, logits in _variants(ablation, states, head(states).float()):
                losses = nn.functional.cross_entropy(
                    scaled_logits(model, logits), targets, reduction="none"
                )
                sums[variant].index_add_(0, belonging, -losses.to(exact).double())
    if not all(bool(torch.isfinite(each).all()) for each in sums.values()):
        raise DataError(
            f"log-likelihoods of task '{work.questions.name}' are not finite",
            'try forward.dtype = "float32"; else the run diverged',
        )
    return {variant: each.cpu().numpy() for variant, each in sums.items()}


def _variants(
    ablation: AblatedLogits, states: torch.Tensor, logits: torch.Tensor
) -> Iterator[tuple[Variant, torch.Tensor]]:
    """Yields every variant with its logits, the whole states' first."""
    yield _WHOLE, logits
    for rank, mode, changed in ablation.variants(states, logits):
        yield (mode, rank), changed
