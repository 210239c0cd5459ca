"""Distributional memorization: do a model's answers have the likelihoods that its corpus gives?

Invariant: both models see the same tokens, but where the model's context is too short for the
prompt; a correlation that doesn't exist is null, never a number.

Source: equation 2 of the tracing paper (arXiv 2509.23024), after Wang et al. 2025, Generalization
v.s. memorization. Neither says what becomes of answer tokens that never follow their suffix; the
policies here are what can become of them.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.capability_work import MemorizationWork
from jobs.errors import DataError
from workers.features import check_logits, logits_of, states_at_once
from workers.hub import LoadedCheckpoint
from workers.infinigram import Answers, load_answers
from workers.kernels.rank_correlation import partial_spearman, rank_correlation
from workers.measure import Rows
from workers.scoring import LoadedModel, TokenRequest, continuation_states
from workers.spectra import number_or_none

ZeroPolicy = Literal["drop_token_both", "drop_token", "drop_example", "floor"]

Likelihoods = list[NDArray[np.float64]]
"""Log-probabilities of each answer's tokens, in nats."""


def memorization_rows(
    work: MemorizationWork,
    checkpoint: LoadedCheckpoint,
    answers: Path,
    batch_size: int,
    report: Callable[[int, int], None],
) -> tuple[Rows, Rows]:
    """Returns the rows of `memorization`, one per zero policy, and of its side table.

    The default policy is first. Prompts too long for the model are cut from the left, as lm-eval
    does; the ∞-gram model has seen them whole.

    Args:
        work: The task.
        checkpoint: What is asked.
        answers: The artifact of the cell that looked the answers up.
        batch_size: Requests per forward pass.
        report: Called with (examples done, all examples).

    Raises:
        DataError: A damaged artifact; tokens that the model doesn't have; answers longer than its
            context; an architecture whose logits aren't known; likelihoods that are not finite.
    """
    found = load_answers(answers)
    requests = _cut(found.requests, checkpoint, batch_size)
    ours = _log_probabilities(checkpoint.model, requests, batch_size, report)
    # Last, since of logits that aren't numbers it would say that they are unknown.
    check_logits(checkpoint.model)
    with np.errstate(divide="ignore"):
        theirs = [np.log(probabilities) for probabilities in found.probabilities]
    shared = {"task": work.task, "template_fingerprint": found.template_fingerprint}
    about = {
        "forward_dtype": work.dtype,
        "dropped_tokens": sum(int((part == 0).sum()) for part in found.probabilities),
        "n_truncated": sum(request.truncated for request in requests),
    }
    rows = [
        {**shared, **about, "zero_policy": policy, **_compared(policy, found, ours, theirs)}
        for policy in get_args(ZeroPolicy)
    ]
    side = {
        **shared,
        "answer_lengths": [len(part) for part in ours],
        "model_log_probabilities": np.concatenate(ours).astype(np.float32),
        "infinigram_log_probabilities": np.concatenate(theirs).astype(np.float32),
    }
    return rows, [side]


def _compared(
    policy: ZeroPolicy, answers: Answers, ours: Likelihoods, theirs: Likelihoods
) -> dict[str, Any]:
    """Returns the correlations of both models' answer likelihoods under a zero policy."""
    sums = [
        _summed(policy, mine, other, math.log(answers.floor))
        for mine, other in zip(ours, theirs, strict=True)
    ]
    kept = [pair for pair in sums if pair is not None]
    lengths = [len(part) for part, pair in zip(ours, sums, strict=True) if pair is not None]
    by_model, by_corpus = [pair[0] for pair in kept], [pair[1] for pair in kept]
    whole = rank_correlation(by_corpus, by_model)
    return {
        "memorization": number_or_none(whole.value),
        "memorization_pvalue": number_or_none(whole.pvalue),
        "memorization_given_length": number_or_none(partial_spearman(by_corpus, by_model, lengths)),
        "n_examples": len(kept),
        "dropped_examples": len(sums) - len(kept),
    }


def _summed(
    policy: ZeroPolicy, ours: NDArray[np.float64], theirs: NDArray[np.float64], floor: float
) -> tuple[float, float] | None:
    """Returns an answer's log-likelihood by both models, in nats; None if it is left out.

    Args:
        policy: What becomes of tokens of ∞-gram probability 0. `drop_token_both`: neither model's
            sum has them, and an answer without others is left out. `drop_token`: they count as
            certain on the ∞-gram side alone, as in the official code. `drop_example`: an answer
            with one is left out. `floor`: they have the least probability that a token of the
            corpus could have.
        ours: The model's log-probability of each token, (A,).
        theirs: The ∞-gram model's, −∞ for 0, (A,).
        floor: Logarithm of that least probability.
    """
    there = np.isfinite(theirs)
    match policy:
        case "drop_token_both":
            pair = (ours[there], theirs[there]) if there.any() else None
        case "drop_token":
            pair = (ours, theirs[there])
        case "drop_example":
            pair = (ours, theirs) if there.all() else None
        case "floor":
            pair = (ours, np.where(there, theirs, floor))
    # Exactly rounded: equal tokens in another order must tie.
    return None if pair is None else (math.fsum(pair[0]), math.fsum(pair[1]))


def _cut(
    requests: Sequence[TokenRequest], checkpoint: LoadedCheckpoint, batch_size: int
) -> list[TokenRequest]:
    """Returns the requests with prompts cut from the left where they don't fit the context."""
    longest = LoadedModel(checkpoint, batch_size).max_length
    rows = checkpoint.model.get_input_embeddings().weight.shape[0]
    cut = []
    for request in requests:
        room = longest + 1 - len(request.continuation)
        if room < 1:
            raise DataError(
                f"the answer of example {request.example} has {len(request.continuation)} tokens, "
                f"the context {longest}",
                "shorten it, or leave the task out for this suite",
            )
        largest = max((*request.context, *request.continuation))
        if largest >= rows:
            raise DataError(
                f"token id {largest} is beyond the model's {rows} embeddings",
                "give the suite the tokenizer that the model was trained with",
            )
        context = request.context[-room:]
        truncated = len(request.context) > room
        cut.append(TokenRequest(request.example, 0, context, request.continuation, truncated))
    return cut


@torch.no_grad()
def _log_probabilities(
    model: Any,
    requests: Sequence[TokenRequest],
    batch_size: int,
    report: Callable[[int, int], None],
) -> Likelihoods:
    """Returns the model's log-probability of every answer token, from float32 logits."""
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(requests)
    for batch in continuation_states(model, requests, batch_size, report):
        pieces = zip(
            batch.states.split(states_at_once(model)),
            batch.targets.split(states_at_once(model)),
            strict=True,
        )
        tokens = torch.cat(
            [
                torch.log_softmax(logits_of(model, states), dim=-1).gather(1, targets[:, None])
                for states, targets in pieces
            ]
        )
        if not bool(torch.isfinite(tokens).all()):
            raise DataError(
                "the answers' likelihoods are not finite",
                'try forward.dtype = "float32"; else the run diverged',
            )
        # The tokens of a request stand together, in order.
        counts = batch.owners.bincount(minlength=len(batch.places)).tolist()
        parts = tokens.flatten().cpu().double().split(counts)
        for place, part in zip(batch.places.tolist(), parts, strict=True):
            found[place] = part.numpy()
    return found
