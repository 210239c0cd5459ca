"""One forward pass that feeds every measurement: last-token features, layers, held-out loss.

No logits are computed for features; the loss computes them from the pass's own hidden states.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from jobs.errors import DataError
from workers.hub import float64_device
from workers.kernels.moments import MomentAccumulator
from workers.sequences import TokenSequences
from workers.tally import phase

_LOGITS_AT_ONCE = 2**25
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ForwardPass:
    """What one pass over the sequences gave.

    Attributes:
        features: Last-token features after the final norm, (M, d) float32, in sequence order, where
            `float64_device` says.
        layers: Moments of the embedding output (0) and of the residual stream after block i.
        loss_sums: Sum of the token losses of each sequence, (M,) float64 nats; None unless asked.
        loss_counts: Number of predicted tokens of each sequence that count, (M,).
        swept: For each asked L, what `features` would be if sequences were cut at L tokens.
    """

    features: torch.Tensor
    layers: dict[int, MomentAccumulator]
    loss_sums: torch.Tensor | None
    loss_counts: torch.Tensor
    swept: dict[int, torch.Tensor] = field(default_factory=dict)


@phase("forward")
@torch.no_grad()
def forward_pass(
    model: Any,
    sequences: TokenSequences,
    *,
    batch_size: int,
    layers: bool,
    loss: bool,
    report: Callable[[int, int], None],
    sequence_lengths: tuple[int, ...] = (),
) -> ForwardPass:
    """Runs a causal language model once over all sequences.

    Right padding leaves the last real token's state as it is, since attention is causal; for the
    same reason the state of an earlier token is the last one of a shorter input.

    Args:
        model: A transformers causal language model in evaluation mode.
        sequences: The sequences.
        batch_size: Sequences per pass.
        layers: Whether to accumulate the embedding output's and the blocks' moments.
        loss: Whether to compute the token losses.
        report: Called with (sequences done, M).
        sequence_lengths: L of a sweep, each at least 1: the states at position min(L, n) − 1 of
            sequences of n tokens are kept as well.

    Raises:
        DataError: Token ids beyond the embedding, sequences beyond the model's longest input,
            features that are not finite.
    """
    _check_fit(model, sequences)
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    width, device = head.weight.shape[1], head.weight.device
    exact, count = float64_device(device), len(sequences)
    # Kept on the device, so that no batch waits for the one before.
    features = torch.empty(count, width, dtype=torch.float32, device=exact)
    swept = {length: torch.empty_like(features) for length in sequence_lengths}
    sums = torch.zeros(count, dtype=torch.float64, device=exact)
    taps = _LayerTaps(decoder, model.config.num_hidden_layers) if layers else None
    done = 0
    with taps.attached() if taps else contextlib.nullcontext():
        for places, ids, lengths in sequences.batches(batch_size):
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            sent, last, at = (_send(t, device) for t in (ids, lengths - 1, places))
            if taps:
                taps.last = last
            hidden = decoder(
                input_ids=sent,
                # Without padding, no mask: the attention kernels are faster then.
                attention_mask=None if bool(mask.all()) else _send(mask.long(), device),
                use_cache=False,
            ).last_hidden_state
            at = at.to(exact)
            features[at] = _at(hidden, last).float().to(exact)
            for length, rows in swept.items():
                rows[at] = _at(hidden, last.clamp(max=length - 1)).float().to(exact)
            if loss:
                sums[at] = _token_losses(model, hidden, ids, sequences.counted(places))
            done += len(places)
            report(done, count)
    if not bool(torch.isfinite(features).all()):
        raise DataError(
            "the features are not finite", 'try forward.dtype = "float32"; else the run diverged'
        )
    return ForwardPass(
        features,
        taps.moments() if taps else {},
        sums.cpu() if loss else None,
        sequences.predicted,
        swept,
    )


@torch.no_grad()
def check_logits(model: Any) -> None:
    """Compares the logits of `logits_of` with the model's own, on two tokens.

    Raises:
        DataError: The architecture does something to its logits that isn't known here.
    """
    ids = torch.arange(2, device=model.get_output_embeddings().weight.device)[None]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    ours, own = logits_of(model, hidden), model(input_ids=ids, use_cache=False).logits.float()
    tolerance = 1e-4 if hidden.dtype in (torch.float32, torch.float64) else 3e-2
    if not bool((ours - own).abs().max() <= tolerance * own.abs().max()):
        raise DataError(
            f"{type(model).__name__} changes its logits after the head in a way that isn't known "
            "here, so its loss would be wrong, and its likelihoods without some directions, too",
            "leave the suite out of evals.loss, ablation and memorization",
        )


def logits_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Returns the logits of hidden states in float32, scaled and capped as the model does."""
    return scaled_logits(model, model.get_output_embeddings()(hidden).float())


def scaled_logits(model: Any, logits: torch.Tensor) -> torch.Tensor:
    """Returns what a model makes of the numbers that its head gives, in float32."""
    config = model.config
    logits = logits * (getattr(config, "logit_scale", None) or 1.0)  # Cohere
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return logits if cap is None else cap * torch.tanh(logits / cap)


def states_at_once(model: Any) -> int:
    """Returns of how many hidden states the logits may be in memory together."""
    return max(1, _LOGITS_AT_ONCE // len(model.get_output_embeddings().weight))


class _LayerTaps:
    """Gathers the last tokens' residual stream before the first and after every block."""

    def __init__(self, decoder: nn.Module, blocks: int) -> None:
        lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == blocks]
        if not lists:
            raise DataError(
                f"{type(decoder).__name__} has no list of {blocks} blocks",
                'measure it with geometry.layers = "last"',
            )
        self._blocks = lists[0]
        self._accumulators = {layer: MomentAccumulator() for layer in range(blocks + 1)}
        self._waiting: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(blocks + 1)}
        self.last = torch.empty(0)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Taps the blocks for the length of the block."""
        handles = [
            self._blocks[0].register_forward_pre_hook(self._before, with_kwargs=True),
            *(
                block.register_forward_hook(
                    lambda _module, _args, output, layer=layer: self._take(
                        layer, output[0] if isinstance(output, tuple) else output
                    )
                )
                for layer, block in enumerate(self._blocks, start=1)
            ),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def moments(self) -> dict[int, MomentAccumulator]:
        """Returns the moments of every layer."""
        for layer in self._waiting:
            self._flush(layer)
        return self._accumulators

    def _before(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._take(0, args[0] if args else kwargs["hidden_states"])

    def _take(self, layer: int, hidden: torch.Tensor) -> None:
        rows = _at(hidden, self.last).float()
        self._waiting[layer].append(rows.to(float64_device(rows.device)))
        if sum(map(len, self._waiting[layer])) >= _ROWS_AT_ONCE:
            self._flush(layer)

    def _flush(self, layer: int) -> None:
        if self._waiting[layer]:
            self._accumulators[layer].update(torch.cat(self._waiting[layer]))
            self._waiting[layer].clear()


def _at(hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Returns hidden[b, last[b]] for every b: (B, T, d), (B,) → (B, d)."""
    return hidden[torch.arange(len(last), device=hidden.device), last]


def _send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a tensor from the host to the device without waiting for what the device does."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _token_losses(
    model: Any, hidden: torch.Tensor, ids: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """Returns each sequence's sum of next-token losses, (B,) float64, logits a piece at a time.

    Ids and the tokens that count, (B, T), are on the host: which states predict is known without
    asking the device.
    """
    device, exact = hidden.device, float64_device(hidden.device)
    rows, columns = counted[:, 1:].nonzero(as_tuple=True)
    targets = _send(ids[rows, columns + 1], device)
    rows, columns = _send(rows, device), _send(columns, device)
    sums = torch.zeros(len(ids), dtype=torch.float64, device=exact)
    piece = states_at_once(model)
    for start in range(0, len(rows), piece):
        part = slice(start, start + piece)
        logits = logits_of(model, hidden[rows[part], columns[part]])
        losses = nn.functional.cross_entropy(logits, targets[part], reduction="none")
        sums.index_add_(0, rows[part].to(exact), losses.to(exact).double())
    return sums


def _check_fit(model: Any, sequences: TokenSequences) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    largest, longest = int(sequences.ids.max()), int(sequences.lengths.max())
    if largest >= rows:
        raise DataError(
            f"token id {largest} is beyond the model's {rows} embeddings",
            "give the suite the tokenizer that the model was trained with",
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise DataError(
            f"sequences of {longest} tokens exceed the model's {positions} positions",
            "lower the dataset's `sequence_length`",
        )
