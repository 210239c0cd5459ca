"""One pass against transformers' own outputs, one sequence at a time, in float64."""

import copy
import functools
from typing import Any

import pytest
import torch

from jobs.errors import DataError
from tests.workers.models import (
    ARCHITECTURES,
    LAYERS,
    SCALED_LOGITS,
    Architecture,
    build,
    random_sequences,
    silent,
    token_sequences,
)
from workers import features
from workers.features import ForwardPass, check_logits, forward_pass
from workers.kernels.moments import MomentAccumulator

SEQUENCES = random_sequences(24)
EVERY = ARCHITECTURES | SCALED_LOGITS


def _pass(model: Any, sequences: list[list[int]] = SEQUENCES, batch_size: int = 5) -> ForwardPass:
    return forward_pass(
        model,
        token_sequences(sequences, 12),
        batch_size=batch_size,
        layers=True,
        loss=True,
        report=silent,
    )


def _reference(
    model: Any, architecture: Architecture, sequences: list[list[int]]
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Features, layers and loss sums from transformers' own outputs, one sequence at a time."""
    model = copy.deepcopy(model).double()
    before_norm: list[torch.Tensor] = []
    norm = functools.reduce(getattr, architecture.norm.split("."), model)
    norm.register_forward_pre_hook(lambda _, args: before_norm.append(args[0][0, -1]))
    last, layers, losses = [], [], []
    with torch.no_grad():
        for sequence in sequences:
            ids = torch.tensor([sequence])
            out = model(input_ids=ids, labels=ids, output_hidden_states=True, use_cache=False)
            last.append(out.hidden_states[-1][0, -1])
            layers.append(
                torch.stack([*(h[0, -1] for h in out.hidden_states[:LAYERS]), before_norm[-1]])
            )
            losses.append(float(out.loss) * (len(sequence) - 1) if len(sequence) > 1 else 0.0)
    return torch.stack(last), list(torch.stack(layers, dim=1)), torch.tensor(losses).double()


def _close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance)


def _same_moments(ours: MomentAccumulator, rows: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert ours.count == len(rows)
    rows = rows.double()
    _close(ours.mean, rows.mean(dim=0), tolerance)
    _close(ours.covariance(), torch.cov(rows.T, correction=0), tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_features_layers_and_losses_are_those_of_transformers(name: str) -> None:
    architecture = EVERY[name]
    model = build(architecture)
    last, layers, losses = _reference(model, architecture, SEQUENCES)
    passed = _pass(model)
    _close(passed.features, last)
    assert list(passed.layers) == list(range(LAYERS + 1))
    for layer, rows in enumerate(layers):
        _same_moments(passed.layers[layer], rows, 2e-5)
    assert passed.loss_sums is not None
    _close(passed.loss_sums, losses)
    assert passed.loss_counts.tolist() == [len(s) - 1 for s in SEQUENCES]
    check_logits(model)


def test_the_loss_is_summed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ARCHITECTURES["neox"])
    whole = _pass(model).loss_sums
    monkeypatch.setattr(features, "_LOGITS_AT_ONCE", 200)
    pieces = _pass(model).loss_sums
    assert whole is not None
    assert pieces is not None
    _close(pieces, whole, 1e-6)


def test_logits_that_are_changed_in_an_unknown_way_are_refused() -> None:
    model = build(ARCHITECTURES["llama"])
    forward = model.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = 2 * out.logits
        return out

    model.forward = doubled
    with pytest.raises(DataError, match="LlamaForCausalLM changes its logits") as error:
        check_logits(model)
    assert error.value.remedy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_checked_in_half_precision_too(dtype: torch.dtype) -> None:
    for architecture in EVERY.values():
        check_logits(build(architecture).to(dtype))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_neither_padding_nor_batch_size_nor_order_changes_a_number(name: str) -> None:
    model = build(ARCHITECTURES[name])
    alone = _pass(model, batch_size=1)
    order = torch.randperm(len(SEQUENCES), generator=torch.Generator().manual_seed(3)).tolist()
    shuffled = _pass(model, [SEQUENCES[i] for i in order])
    back = torch.argsort(torch.tensor(order))
    for batch_size in (3, 32):
        together = _pass(model, batch_size=batch_size)
        for other, places in ((together, slice(None)), (shuffled, back)):
            _close(other.features[places], alone.features)
            assert other.loss_sums is not None
            assert alone.loss_sums is not None
            _close(other.loss_sums[places], alone.loss_sums)
            for layer, moments in alone.layers.items():
                _close(other.layers[layer].mean, moments.mean)
                _close(other.layers[layer].covariance(), moments.covariance())


def test_what_stands_in_the_padding_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ARCHITECTURES["neox"])
    clean = _pass(model)
    zeros = torch.zeros

    def sevens(*args: Any, **kwargs: Any) -> torch.Tensor:
        return (
            zeros(*args, **kwargs) + 7
            if kwargs.get("dtype") == torch.int64
            else zeros(*args, **kwargs)
        )

    monkeypatch.setattr("workers.sequences.torch.zeros", sevens)
    _, ids, lengths = next(token_sequences([[1], [1, 2]], 2).batches(2))
    assert ids[lengths == 1].tolist() == [[1, 7]]
    dirty = _pass(model)
    assert torch.equal(dirty.features, clean.features)
    assert dirty.loss_sums is not None
    assert clean.loss_sums is not None
    assert torch.equal(dirty.loss_sums, clean.loss_sums)


def test_halves_together_are_the_whole() -> None:
    model = build(ARCHITECTURES["llama"])
    whole, first, second = _pass(model), _pass(model, SEQUENCES[:11]), _pass(model, SEQUENCES[11:])
    _close(torch.cat([first.features, second.features]), whole.features)
    for layer, moments in whole.layers.items():
        merged = first.layers[layer]
        merged.merge(second.layers[layer])
        assert merged.count == moments.count
        _close(merged.mean, moments.mean)
        _close(merged.covariance(), moments.covariance())


def test_layers_are_accumulated_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ARCHITECTURES["gpt2"])
    whole = _pass(model)
    monkeypatch.setattr(features, "_ROWS_AT_ONCE", 4)
    for layer, moments in _pass(model).layers.items():
        _close(moments.covariance(), whole.layers[layer].covariance(), 1e-9)


def test_the_hooks_are_gone_after_the_pass() -> None:
    model = build(ARCHITECTURES["neox"])
    _pass(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_only_what_is_asked_for_is_made() -> None:
    model = build(ARCHITECTURES["neox"])
    seen: list[tuple[int, int]] = []
    passed = forward_pass(
        model,
        token_sequences(SEQUENCES, 12),
        batch_size=10,
        layers=False,
        loss=False,
        report=lambda done, total: seen.append((done, total)),
    )
    assert passed.layers == {}
    assert passed.loss_sums is None
    assert passed.swept == {}
    assert seen == [(10, 24), (20, 24), (24, 24)]


@pytest.mark.parametrize("name", EVERY)
def test_earlier_states_are_those_of_shorter_sequences(name: str) -> None:
    model = build(EVERY[name])
    lengths = (1, 4, 11, 12)
    passed = forward_pass(
        model,
        token_sequences(SEQUENCES, 12),
        batch_size=5,
        layers=False,
        loss=False,
        report=silent,
        sequence_lengths=lengths,
    )
    assert tuple(passed.swept) == lengths
    for length in lengths:
        shorter = _pass(model, [sequence[:length] for sequence in SEQUENCES])
        _close(passed.swept[length], shorter.features)
    assert torch.equal(passed.swept[12], passed.features)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[1, 61]], "token id 61 is beyond the model's 61 embeddings"),
        ([[1] * 65], "sequences of 65 tokens exceed the model's 64 positions"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(sequences: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        _pass(build(ARCHITECTURES["neox"]), sequences)
    assert error.value.remedy


def test_features_that_are_not_finite_are_refused() -> None:
    model = build(ARCHITECTURES["llama"])
    model.model.norm.weight.data[3] = torch.inf
    with pytest.raises(DataError, match="not finite"):
        _pass(model)


def test_a_decoder_without_a_list_of_blocks_is_refused_for_layers() -> None:
    model = build(ARCHITECTURES["neox"])
    model.config.num_hidden_layers = 7
    with pytest.raises(DataError, match="no list of 7 blocks") as error:
        _pass(model)
    assert "layers" in error.value.remedy
