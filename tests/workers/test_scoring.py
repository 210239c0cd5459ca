"""Likelihoods from hidden states, and the harness's view of a model, against plain lm-eval."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from jobs.errors import DataError
from tests.conftest import Texts
from tests.workers.models import ARCHITECTURES, VOCABULARY, build, silent
from workers.hub import LoadedCheckpoint
from workers.scoring import LoadedModel, TokenRequest, continuation_states, tie_credit

CONTEXT = 128  # Of the tiny checkpoint.


def sums(model: Any, requests: Sequence[TokenRequest], batch_size: int) -> list[float]:
    """Log-likelihoods by way of the hidden states."""
    found = torch.zeros(len(requests))
    head = model.get_output_embeddings()
    for batch in continuation_states(model, requests, batch_size, silent):
        logits = head(batch.states).log_softmax(dim=-1)
        values = logits.gather(1, batch.targets[:, None])[:, 0]
        found.index_add_(0, batch.places[batch.owners.cpu()], values)
    return found.tolist()


def ragged(count: int, vocabulary: int, longest: int) -> list[TokenRequest]:
    generator = random.Random(7)

    def some(most: int) -> tuple[int, ...]:
        return tuple(generator.randrange(vocabulary) for _ in range(generator.randint(1, most)))

    pairs = [(some(longest - 9), some(9)) for _ in range(count)]
    # Likewise several that share a prompt and differ in their last token alone.
    pairs += [(pairs[0][0], (token,)) for token in range(5)]
    return [TokenRequest(n, 0, before, after, False) for n, (before, after) in enumerate(pairs)]


def instances(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    metadata: list[tuple[str, int, int]] = [("task", place, 1) for place in range(len(pairs))]
    return [
        Instance("loglikelihood", {}, pair, 0, metadata=about)
        for pair, about in zip(pairs, metadata, strict=True)
    ]


def pairs_of(texts: Texts) -> list[tuple[str, str]]:
    """Prompts that are empty, end in a space, fit by a hair or not at all, and all in between."""
    generator = random.Random(3)
    words = " ".join(texts.documents).split()
    pairs = [("", " the river"), ("", "stone"), ("a bird ", "sings"), ("winter\n", "road")]
    for length in (*range(1, 40, 3), 110, 120, 125, 126, 127, 128, 129, 140, 200, 400):
        start = generator.randrange(len(words) - length - 9)
        cut = start + length
        pairs.append(
            (" ".join(words[start:cut]), " " + " ".join(words[cut : cut + length % 5 + 1]))
        )
    return pairs


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_likelihoods_of_ragged_requests_are_those_of_lm_eval(
    checkpoint: LoadedCheckpoint, name: str, batch_size: int
) -> None:
    model = build(ARCHITECTURES[name])
    requests = ragged(30, VOCABULARY, longest=60)
    oracle = HFLM(pretrained=model, tokenizer=checkpoint.tokenizer, batch_size=1)
    expected = oracle._loglikelihood_tokens(
        [(("", str(r.example)), [*r.context], [*r.continuation]) for r in requests],
        disable_tqdm=True,
    )
    found = sums(model, requests, batch_size)
    assert found == pytest.approx([value for value, _ in expected], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_texts_are_tokenized_and_cut_as_lm_eval_does_it(
    checkpoint: LoadedCheckpoint, texts: Texts, batch_size: int
) -> None:
    pairs = pairs_of(texts)
    oracle = HFLM(pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=1)
    expected = oracle.loglikelihood(instances(pairs), disable_tqdm=True)
    seen: list[tuple[int, int]] = []
    model = LoadedModel(checkpoint, batch_size, lambda done, total: seen.append((done, total)))
    found = model.loglikelihood(instances(pairs))
    assert [value for value, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    requests = model.token_requests((n, 0, *pair) for n, pair in enumerate(pairs))
    assert sums(checkpoint.model, requests, batch_size) == pytest.approx(
        [value for value, _ in expected], abs=1e-4
    )
    lengths = [
        len(before or [0]) + len(after)
        for before, after in (_encoded(checkpoint, p) for p in pairs)
    ]
    too_long = {place for place, length in enumerate(lengths) if length > CONTEXT + 1}
    assert 3 < len(too_long) < len(pairs)
    assert CONTEXT + 1 in lengths or max(lengths) > CONTEXT + 1
    assert model.truncated == too_long
    assert {r.example for r in requests if r.truncated} == too_long
    assert all(len(r.context) + len(r.continuation) <= CONTEXT + 1 for r in requests)
    assert seen == sorted(seen)
    assert seen[-1] == (len(pairs), len(pairs))


def _encoded(checkpoint: LoadedCheckpoint, pair: tuple[str, str]) -> tuple[list[int], list[int]]:
    context, whole = (checkpoint.tokenizer.encode(text) for text in (pair[0], "".join(pair)))
    return context, whole[len(context) :]


def test_a_prompt_that_fits_to_the_last_token_is_not_cut(checkpoint: LoadedCheckpoint) -> None:
    # Bytes that no merge joins: one token each.
    model = LoadedModel(checkpoint, 4)
    pairs = [("#" * length, "%" * 3) for length in (CONTEXT - 2, CONTEXT - 1)]
    model.loglikelihood(instances(pairs))
    assert model.truncated == {1}
    requests = model.token_requests((n, 0, *pair) for n, pair in enumerate(pairs))
    assert [request.truncated for request in requests] == [False, True]
    assert {len(request.context) for request in requests} == {CONTEXT - 2}


def test_answers_are_those_of_lm_eval_and_cut_prompts_are_noted(
    checkpoint: LoadedCheckpoint, texts: Texts
) -> None:
    arguments = {"until": ["\n"], "do_sample": False, "max_gen_toks": 8}
    prompts = [pair[0] for pair in pairs_of(texts) if pair[0]]

    def asked() -> list[Instance]:
        return [
            Instance("generate_until", {}, (prompt, arguments), 0, metadata=("task", place, 1))
            for place, prompt in enumerate(prompts)
        ]

    oracle = HFLM(pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=1)
    expected = oracle.generate_until(asked(), disable_tqdm=True)
    model = LoadedModel(checkpoint, 1, silent)
    assert model.generate_until(asked()) == expected
    lengths = [len(checkpoint.tokenizer.encode(prompt)) for prompt in prompts]
    assert model.truncated == {n for n, length in enumerate(lengths) if length > CONTEXT - 8}
    assert model.max_gen_toks == CONTEXT // 2


def test_the_checkpoint_stays_as_it_was(checkpoint: LoadedCheckpoint) -> None:
    before = checkpoint.tokenizer.pad_token
    model = LoadedModel(checkpoint, 2)
    assert model.tokenizer.pad_token is not None
    assert checkpoint.tokenizer.pad_token is before
    assert model.model is checkpoint.model


def test_answers_that_lm_eval_cannot_score_are_refused(checkpoint: LoadedCheckpoint) -> None:
    model = LoadedModel(checkpoint, 2)
    for continuation, message in (
        ("", "the answer '' has no tokens → mend the record"),
        (
            "#" * (CONTEXT + 1),
            f"an answer has {CONTEXT + 1} tokens, the context {CONTEXT}: .* → sh",
        ),
    ):
        with pytest.raises(DataError, match=message):
            model.token_requests([(0, 0, "why", continuation)])
        with pytest.raises(DataError, match=message):
            model.loglikelihood(instances([("why", continuation)]))
    model.token_requests([(0, 0, "why", "#" * CONTEXT)])
    arguments = {"until": [], "max_gen_toks": CONTEXT}
    request = Instance("generate_until", {}, ("why", arguments), 0, metadata=("task", 0, 1))
    with pytest.raises(
        DataError, match=r"128 tokens leave no room in a context of 128 → lower gen"
    ):
        model.generate_until([request])


def test_logits_that_are_not_finite_are_refused(checkpoint: LoadedCheckpoint) -> None:
    model = build(ARCHITECTURES["neox"], vocab_size=302)
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = torch.nan
    broken = LoadedModel(replace(checkpoint, model=model), 2)
    message = 'are not finite → try forward.dtype = "float32"; else the run diverged'
    with pytest.raises(DataError, match=message):
        broken.loglikelihood(instances([("a bird", " sings")]))
    arguments = {"until": ["\n"], "max_gen_toks": 4}
    request = Instance("generate_until", {}, ("why", arguments), 0, metadata=("task", 0, 1))
    with pytest.raises(DataError, match=message):
        broken.generate_until([request])


def test_ties_share_the_credit() -> None:
    assert tie_credit([-1.0, -2.0, -1.0], frozenset({0})) == 0.5
    assert tie_credit([-1.0, -2.0, -1.0 - 2e-6], frozenset({0})) == 1
    assert tie_credit([-1.0, -2.0, -1.0 + 5e-7], frozenset({0, 2})) == 1
    assert tie_credit([-1.0, -2.0, -1.0], frozenset({1})) == 0
    assert tie_credit([-3.0] * 4, frozenset({3})) == 0.25
