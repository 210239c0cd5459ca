"""Adapters on the head: its update, tokens' rates and groups, and its norms before."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DataError
from jobs.finetune_spec import InterventionName, Method
from jobs.finetune_work import Recipe
from tests.workers.finetune.adapting import (
    TOKENS,
    batch,
    equal_norms,
    logits,
    recipe,
    tiny,
    train,
)
from tests.workers.models import VOCABULARY
from workers.finetune.adapters import Adapted, adapted, intervened_head
from workers.hub import LoadedCheckpoint
from workers.kernels.head import row_norms
from workers.kernels.head_norms import norm_groups, token_rates

BOTH = ("attention", "head")
METHODS: tuple[Method, ...] = ("lora", "dora", "norm_lr", "inverse_norm_lr", "norm_group_lora")
RATES: tuple[Method, ...] = ("norm_lr", "inverse_norm_lr")


def on_head(method: Method, **changes: object) -> Recipe:
    groups = changes.pop("groups", 3 if method == "norm_group_lora" else None)
    return recipe(method=method, targets=BOTH, groups=groups, dropout=0.1, **changes)


def moved(has: Adapted) -> torch.Tensor:
    update = has.head_update()
    assert update is not None
    assert (update.dtype, update.shape) == (torch.float32, has.head.shape)
    return update


def trained(checkpoint: LoadedCheckpoint, asked: Recipe) -> list[torch.Tensor]:
    """All that training ends with: parameters, update, logits."""
    with intervened_head(checkpoint, asked), adapted(checkpoint, asked) as has:
        train(has)
        ended = [parameter.detach().clone() for parameter in has.parameters]
        return [*ended, moved(has), logits(has.model, batch(9)).detach()]


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_the_update_is_what_the_head_does(name: str, method: Method) -> None:
    checkpoint = tiny(name)
    asked = on_head(method, intervention="shuffle")
    basis = torch.eye(24)
    with intervened_head(checkpoint, asked), adapted(checkpoint, asked) as has, torch.no_grad():
        head = checkpoint.model.get_output_embeddings()
        before = head(basis)
        assert torch.equal(has.head, head.weight[:TOKENS])
        torch.testing.assert_close(before.T[:TOKENS], has.head, rtol=0, atol=1e-6)
        with torch.enable_grad():
            train(has)
        brute = (head(basis) - before).T
        assert float(brute.abs().min()) > 0
        torch.testing.assert_close(moved(has), brute[:TOKENS], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
def test_with_equal_norms_rates_are_plain(name: str) -> None:
    checkpoint = tiny(name, tie_word_embeddings=False)
    equal_norms(checkpoint)
    plain = trained(checkpoint, on_head("lora"))
    for method in RATES:
        for ours, theirs in zip(trained(checkpoint, on_head(method)), plain, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
def test_with_equalized_norms_rates_are_plain_but_for_rounding(name: str) -> None:
    checkpoint = tiny(name)
    plain = trained(checkpoint, on_head("lora", intervention="equalize"))
    for method in RATES:
        asked = on_head(method, intervention="equalize")
        for ours, theirs in zip(trained(checkpoint, asked), plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    # Where norms differ, they are not.
    uneven = trained(checkpoint, on_head("norm_lr"))
    assert float((uneven[-1] - trained(checkpoint, on_head("lora"))[-1]).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_group_is_plain(name: str, dtype: torch.dtype) -> None:
    checkpoint = tiny(name, dtype)
    plain = trained(checkpoint, on_head("lora"))
    grouped = trained(checkpoint, on_head("norm_group_lora", groups=1))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(grouped, plain, strict=True))


@settings(max_examples=10)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
def test_each_group_moves_in_a_space_of_its_own(groups: int, rank: int, seed: int) -> None:
    checkpoint = tiny(seed=seed)
    asked = on_head("norm_group_lora", groups=groups, rank=rank, seed=seed)
    with adapted(checkpoint, asked) as has:
        train(has)
        update, numbers = moved(has).double(), norm_groups(row_norms(has.head), groups)
        a, b = (parameter.detach().double() for parameter in has.parameters[-2:])
    assert a.shape == (groups * rank, 24)
    for token, group in enumerate(numbers.tolist()):
        own = a[group * rank : (group + 1) * rank]
        expected = 16 / rank * b[token] @ own
        torch.testing.assert_close(update[token], expected, rtol=0, atol=1e-6)
    # Several groups together span more than one adapter could.
    assert int(torch.linalg.matrix_rank(update, atol=1e-4)) > rank
    for group in range(groups):
        members = update[numbers == group]
        assert int(torch.linalg.matrix_rank(members, atol=1e-5)) <= rank


def test_padding_rows_join_the_first_group() -> None:
    checkpoint = tiny()
    with adapted(checkpoint, on_head("norm_group_lora", groups=2)) as has, torch.no_grad():
        a, b = has.parameters[-2:]
        b.normal_()
        head = checkpoint.model.get_output_embeddings()
        padding = (head(torch.eye(24)).T - head.weight)[TOKENS:]
        torch.testing.assert_close(padding, 16 / 3 * b[TOKENS:] @ a[:3], rtol=0, atol=1e-5)
        assert len(padding) == VOCABULARY - TOKENS


@pytest.mark.parametrize("method", RATES)
def test_rates_are_learning_rates(method: Method) -> None:
    checkpoint = tiny()

    def first_step(asked: Recipe) -> torch.Tensor:
        with adapted(checkpoint, asked) as has:
            # Adam's ε would count more for tokens of smaller gradients.
            train(has, 1, epsilon=1e-30)
            return moved(has)

    plain, ours = first_step(on_head("lora")), first_step(on_head(method))
    assert method in ("norm_lr", "inverse_norm_lr")
    rates = token_rates(row_norms(checkpoint.model.get_output_embeddings().weight[:TOKENS]), method)
    assert float(rates.max() / rates.min()) > 1.5
    torch.testing.assert_close(ours, rates[:, None].float() * plain, rtol=1e-5, atol=1e-8)
    lengths = row_norms(ours) / row_norms(plain)
    np.testing.assert_allclose(lengths, rates, rtol=1e-5)


@pytest.mark.parametrize("name", ["neox", "gpt2", "gemma"])
def test_a_tied_head_is_untied_where_it_changes(name: str) -> None:
    checkpoint, tied = tiny(name), name != "neox"
    assert checkpoint.tied is tied
    model, ids = checkpoint.model, batch(0)
    embedded = model.get_input_embeddings()(ids)
    changes: tuple[InterventionName, ...] = ("none", "equalize")
    for targets, change in itertools.product((("attention",), BOTH), changes):
        asked = recipe(targets=targets, intervention=change)
        with intervened_head(checkpoint, asked) as untied, adapted(checkpoint, asked) as has:
            assert untied is (tied and change != "none")
            assert has.head_untied is (tied and (change != "none" or targets == BOTH))
            train(has, 2)
            assert torch.equal(model.get_input_embeddings()(ids), embedded)


@pytest.mark.parametrize("name", ["neox", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_interventions_change_real_tokens_alone(name: str, dtype: torch.dtype) -> None:
    checkpoint = tiny(name, dtype)
    head = checkpoint.model.get_output_embeddings()
    original = head.weight
    before = original.clone()
    norms = row_norms(before[:TOKENS])
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3
    wanted = {
        ("equalize", None): norms.mean().expand(TOKENS),
        ("clip", 0.5): norms.quantile(0.5).expand(TOKENS),
        ("clip", 0.0): norms,
        ("none", None): norms,
    }
    for (change, clip), expected in wanted.items():
        with intervened_head(checkpoint, recipe(intervention=change, clip=clip)):
            assert head.weight.dtype == dtype
            assert not head.weight.requires_grad
            assert torch.equal(head.weight[TOKENS:], before[TOKENS:])
            found = row_norms(head.weight[:TOKENS])
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
            assert torch.equal(head.weight, before) is (change == "none" or clip == 0)
        assert head.weight is original
        assert torch.equal(original, before)
    with intervened_head(checkpoint, recipe(intervention="shuffle")):
        shuffled = head.weight.clone()
    torch.testing.assert_close(
        row_norms(shuffled[:TOKENS]).sort()[0], norms.sort()[0], rtol=tolerance, atol=0
    )
    with intervened_head(checkpoint, recipe(intervention="shuffle", seed=6)):
        assert not torch.equal(head.weight, shuffled)


def test_an_exception_restores_the_head() -> None:
    checkpoint = tiny("gpt2")
    head = checkpoint.model.get_output_embeddings()
    original, before = head.weight, head.weight.clone()
    with (
        pytest.raises(InterruptedError),
        intervened_head(checkpoint, recipe(intervention="equalize")),
    ):
        raise InterruptedError
    assert head.weight is original
    assert torch.equal(original, before)
    with (
        pytest.raises(DataError, match=r"between 0 and 0\.5, got None"),
        intervened_head(checkpoint, recipe(intervention="clip")),
    ):
        pass
    assert head.weight is original
