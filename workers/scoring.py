"""What a loaded checkpoint says of continuations: to lm-eval, and to any number of heads.

Both see the same tokens, cut alike. For heads, one pass yields the hidden states that predict the
continuations, and no logits at all.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from jobs.errors import DataError
from workers.hub import LoadedCheckpoint

TIE = 1e-6
"""Options whose log-likelihoods are that close to the best share the credit of acc_tie, in nats."""

_USUAL_NEW_TOKENS = 256  # lm-eval's own for tasks that name none.


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


def tie_credit(log_likelihoods: Sequence[float], right: frozenset[int]) -> float:
    """Returns the share of right ones among the options within `TIE` of the best."""
    best = max(log_likelihoods)
    tied = [place for place, value in enumerate(log_likelihoods) if value >= best - TIE]
    return sum(place in right for place in tied) / len(tied)


class LoadedModel(HFLM):
    """A loaded checkpoint as lm-eval sees it.

    Attributes:
        truncated: Examples, by their place in the task, that were cut to fit the context.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        batch_size: int,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Wraps a checkpoint; nothing is loaded or moved.

        Args:
            checkpoint: The checkpoint.
            batch_size: Requests per forward pass.
            report: Called with (requests done, all requests).
        """
        super().__init__(
            pretrained=checkpoint.model,
            # A copy, since lm-eval gives it a padding token.
            tokenizer=copy.deepcopy(checkpoint.tokenizer),
            batch_size=batch_size,
        )
        self.truncated: set[int] = set()
        self._report = report
        self._done = self._total = 0
        self._lengths: list[int] = []

    @property
    def max_gen_toks(self) -> int:
        """Longest answer for tasks that name none: half of a context too small for lm-eval's."""
        return min(_USUAL_NEW_TOKENS, self.max_length // 2)

    def token_requests(self, pairs: Iterable[tuple[int, int, str, str]]) -> list[TokenRequest]:
        """Returns continuations as lm-eval tokenizes and truncates them.

        Args:
            pairs: Example, option, context and continuation.

        Raises:
            DataError: A continuation without tokens, or one longer than the context.
        """
        requests = []
        for example, option, context, continuation in pairs:
            if context:
                before, after = self._encode_pair(context, continuation)
            else:
                before = [self.prefix_token_id]
                after = self.tok_encode(continuation, add_special_tokens=False)
                if after and after[0] == self.prefix_token_id:
                    before, after = after[:1], after[1:]
            self._check_length(continuation, len(after))
            room = self.max_length + 1 - len(after)
            requests.append(
                TokenRequest(
                    example, option, tuple(before[-room:]), tuple(after), len(before) > room
                )
            )
        return requests

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Returns log-likelihoods, and notes which prompts are cut.

        Raises:
            DataError: Likelihoods that are not finite; a continuation without tokens, or one
                longer than the context.
        """
        self._done, self._total, self._lengths = 0, len(requests), []
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        if not all(math.isfinite(value) for value, _ in found):
            raise _not_finite()
        room = self.max_length + 1
        pairs = zip(requests, self._lengths, strict=True)
        self.truncated |= {request.doc_id for request, length in pairs if length > room}
        self._report(self._total, self._total)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Returns answers, and notes which prompts are cut.

        Raises:
            DataError: Logits that are not finite; answers that leave no room for a prompt.
        """
        self._done, self._total = 0, len(requests)
        for request in requests:
            longest = normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"]
            room = self.max_length - longest
            if room < 1:
                raise DataError(
                    f"answers of {longest} tokens leave no room in a context of {self.max_length}",
                    "lower generation_kwargs.max_gen_toks in a `config` of your own",
                )
            if len(self.tok_encode(request.args[0])) > room:
                self.truncated.add(request.doc_id)
        answers: list[str] = super().generate_until(requests, disable_tqdm=True)
        self._report(self._total, self._total)
        return answers

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        for (_, continuation), before, after in requests:
            self._check_length(continuation, len(after))
            self._lengths.append(len(before) + len(after))
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm=True)
        return found

    def _model_call(self, inps: torch.Tensor, **options: Any) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, **options)
        self._advance(len(inps))
        return logits

    def _model_generate(self, context: torch.Tensor, **options: Any) -> torch.Tensor:
        finite = torch.ones((), dtype=torch.bool, device=context.device)

        def check(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
            finite.logical_and_(torch.isfinite(logits[:, -1]).all())

        # The likeliest token of logits that aren't numbers is a token like any other.
        watch = self.model.get_output_embeddings().register_forward_hook(check)
        try:
            tokens: torch.Tensor = super()._model_generate(context, **options)
        finally:
            watch.remove()
        if not bool(finite):
            raise _not_finite()
        self._advance(len(context))
        return tokens

    def _advance(self, count: int) -> None:
        self._done += count
        self._report(self._done, self._total)

    def _check_length(self, continuation: str, length: int) -> None:
        if not length:
            raise DataError(f"the answer {continuation!r} has no tokens", "mend the record")
        if length > self.max_length:
            raise DataError(
                f"an answer has {length} tokens, the context {self.max_length}: "
                f"'{continuation[:40]}…'",
                "shorten it, or leave the task out for this suite",
            )


def _not_finite() -> DataError:
    return DataError(
        "the answers' likelihoods are not finite",
        'try forward.dtype = "float32"; else the run diverged',
    )
