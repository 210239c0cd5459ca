"""Likelihoods of continuations from hidden states, so that one pass serves any number of heads.

No logits are computed here but those of the continuations' own tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TokenRequest:
    """A continuation whose likelihood is asked for.

    Attributes:
        example: Place of its example in the task.
        option: Place of the continuation among those of the example.
        context: Token ids of the prompt, cut from the left if they don't fit.
        continuation: Token ids of the continuation, at least one.
        truncated: Whether the prompt was cut.
    """

    example: int
    option: int
    context: tuple[int, ...]
    continuation: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class ContinuationStates:
    """What predicts the continuations of a batch of requests.

    Attributes:
        places: Place of each request of the batch among all requests, (R,).
        states: Hidden states after the final norm, (P, d), for the P tokens of all continuations.
        targets: The token that each predicts, (P,).
        owners: Place, within the batch, of the request that each belongs to, (P,).
    """

    places: torch.Tensor
    states: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor


@torch.no_grad()
def continuation_states(
    model: Any,
    requests: Sequence[TokenRequest],
    batch_size: int,
    report: Callable[[int, int], None],
) -> Iterator[ContinuationStates]:
    """Yields what predicts the continuations, batch by batch, requests of like length together.

    Args:
        model: A transformers causal language model in evaluation mode.
        requests: What is asked for.
        batch_size: Requests per forward pass.
        report: Called with (requests done, all requests).
    """
    lengths = torch.tensor([len(r.context) + len(r.continuation) for r in requests])
    done = 0
    for places in torch.argsort(lengths, descending=True, stable=True).split(batch_size):
        batch = [requests[place] for place in places.tolist()]
        yield ContinuationStates(places, *_states(model, batch))
        done += len(batch)
        report(done, len(requests))


def _states(
    model: Any, requests: Sequence[TokenRequest]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the states that predict a batch's continuations, their tokens and their owners."""
    device = model.get_output_embeddings().weight.device
    inputs = [[*request.context, *request.continuation][:-1] for request in requests]
    longest = max(map(len, inputs))
    ids = torch.zeros(len(inputs), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, (request, tokens) in enumerate(zip(requests, inputs, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        count = len(request.continuation)
        rows += [row] * count
        columns += range(len(tokens) - count, len(tokens))
        targets += request.continuation
    hidden = model.get_decoder()(
        input_ids=ids.to(device),
        attention_mask=None if bool(mask.all()) else mask.to(device),
        use_cache=False,
    ).last_hidden_state
    owners = torch.tensor(rows, device=device)
    states = hidden[owners, torch.tensor(columns, device=device)]
    return states, torch.tensor(targets, device=device), owners
