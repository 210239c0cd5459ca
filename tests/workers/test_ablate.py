"""Ablated likelihoods against those of a model whose head's input is changed by a hook."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import Texts
from tests.workers.measured import SEQUENCES
from tests.workers.models import ARCHITECTURES, SCALED_LOGITS, build, silent
from tests.workers.quiz import BATCH, Quiz, make_quiz
from workers import features as features_module
from workers.artifacts import SharedFiles
from workers.features import ForwardPass, forward_pass
from workers.harness import load_task
from workers.hub import LoadedCheckpoint

D, FEW = 32, 5


@pytest.fixture
def quiz(tmp_path: Path, texts: Texts) -> Quiz:
    return make_quiz(tmp_path, texts)


def _features(model: Any) -> torch.Tensor:
    return forward_pass(
        model, SEQUENCES, batch_size=32, layers=False, loss=False, report=silent
    ).features


def _by_hook(
    checkpoint: LoadedCheckpoint,
    quiz: Quiz,
    features: torch.Tensor,
    rank: int,
    removed: bool,
    keep_mean: bool,
) -> list[float]:
    """Log-likelihoods of some options, in float64, one after another, through a changed head."""
    model = copy.deepcopy(checkpoint.model).double()
    rows = features.double().numpy()
    mean = torch.from_numpy(rows.mean(axis=0))
    _, vectors = np.linalg.eigh(np.cov(rows, rowvar=False, ddof=0))
    top = vectors[:, ::-1][:, :rank]
    p = torch.from_numpy(top @ top.T)
    p = torch.eye(len(p), dtype=p.dtype) - p if removed else p
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: ((args[0] - mean) @ p.T + (mean if keep_mean else 0),)
    )
    task = load_task(quiz.tasks["sciq"], SharedFiles(quiz.folder))
    found = []
    for document in task.eval_docs.select(range(FEW)):
        context = task.doc_to_text(document)
        for choice in task.doc_to_choice(document):
            # The tiny tokenizer never joins a space with what stands before it.
            before, after = (
                checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (context, f" {choice}")
            )
            tokens = (before + after)[-model.config.max_position_embeddings - 1 :]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens[:-1]])).logits[0].double()
            likelihoods = logits.log_softmax(dim=-1)[-len(after) :]
            found.append(float(sum(likelihoods[i, token] for i, token in enumerate(after))))
    return found


def _biased(model: Any) -> Any:
    head = model.get_output_embeddings()
    model.lm_head = nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        model.lm_head.weight.copy_(head.weight)
        model.lm_head.bias.normal_()
    return model.requires_grad_(False)


def _model(name: str, vocabulary: int) -> Any:
    if name == "biased llama":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _biased(build(ARCHITECTURES["llama"], vocab_size=vocabulary))
    return build(SCALED_LOGITS[name], vocab_size=vocabulary).requires_grad_(False)


@pytest.mark.parametrize("mean", ["keep", "drop"])
@pytest.mark.parametrize("name", ["tiny", "biased llama", *SCALED_LOGITS])
def test_likelihoods_are_those_of_a_hooked_head(
    checkpoint: LoadedCheckpoint, quiz: Quiz, name: str, mean: str
) -> None:
    if name != "tiny":
        checkpoint = replace(checkpoint, model=_model(name, len(checkpoint.tokenizer)))
    features = _features(checkpoint.model)
    ranks = (3, features.shape[1] - 2)
    few = replace(quiz.tasks["sciq"], limit=FEW)
    for row in quiz.rows(checkpoint, features, ranks, mean=mean, questions=few)[1:]:
        expected = _by_hook(
            checkpoint, quiz, features, row["rank"], row["mode"] == "removed", mean == "keep"
        )
        np.testing.assert_allclose(row["log_likelihoods"], expected, rtol=0, atol=1e-4)
        assert row["ablation_mean"] == mean


def test_nothing_removed_and_everything_retained_change_nothing(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    rows = quiz.rows(checkpoint, passed.features, (0, D))
    by_variant = {(row["mode"], row["rank"]): row for row in rows}
    whole = by_variant["none", None]
    for variant in (("removed", 0), ("retained", D)):
        row = by_variant[variant]
        np.testing.assert_allclose(
            row["log_likelihoods"], whole["log_likelihoods"], rtol=0, atol=1e-4
        )
        assert row["acc"] == whole["acc"]
    # The others know of no context: the same options have the same likelihoods.
    for variant in (("removed", D), ("retained", 0)):
        likelihoods = np.sort(by_variant[variant]["log_likelihoods"].reshape(-1, 4), axis=1)
        np.testing.assert_allclose(likelihoods, np.broadcast_to(likelihoods[0], (12, 4)), atol=1e-4)


def test_one_pass_serves_every_rank(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, quiz: Quiz
) -> None:
    calls = []
    counting = checkpoint.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    try:
        quiz.rows(checkpoint, passed.features)
        alone = len(calls)
        quiz.rows(checkpoint, passed.features, tuple(range(D)))
    finally:
        counting.remove()
    # Two more are the check of the architecture's logits.
    assert alone == len(calls) - alone == 48 // BATCH + 2


def test_logits_are_made_piece_by_piece(
    checkpoint: LoadedCheckpoint,
    passed: ForwardPass,
    quiz: Quiz,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = quiz.rows(checkpoint, passed.features, (4,))
    monkeypatch.setattr(features_module, "_LOGITS_AT_ONCE", 700)
    for ours, theirs in zip(quiz.rows(checkpoint, passed.features, (4,)), whole, strict=True):
        np.testing.assert_allclose(ours["log_likelihoods"], theirs["log_likelihoods"], rtol=1e-5)


def test_in_half_precision_nothing_removed_is_the_model_itself(
    checkpoint: LoadedCheckpoint, quiz: Quiz
) -> None:
    model = copy.deepcopy(checkpoint.model).to(torch.bfloat16)
    rows = quiz.rows(replace(checkpoint, model=model), _features(model), (0, D))
    whole, nothing = rows[0], rows[1]
    assert np.array_equal(whole["log_likelihoods"], nothing["log_likelihoods"])
    np.testing.assert_allclose(
        rows[4]["log_likelihoods"], whole["log_likelihoods"], rtol=2e-2, atol=0.1
    )
