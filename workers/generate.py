"""Continuations of fixed prompts, and how much they repeat themselves.

Invariant: every token is the likeliest by the model alone, or drawn from it alone. Whatever its
generation_config.json asks for (sampling, penalties, forbidden words) is left out, and prompts of
one length share a batch, so that none is padded and no prompt sees what stands beside it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from jobs.capability_work import GenerateWork
from jobs.errors import DataError
from workers.hub import LoadedCheckpoint
from workers.kernels.repetition import distinct_share, longest_repeat_share, loop_length
from workers.measure import Rows

_LONGEST_RUN = 4


@dataclass(frozen=True)
class Continuation:
    """What a model says after a prompt.

    Attributes:
        tokens: Its tokens, without the end of text.
        ended: Whether the model ended it.
    """

    tokens: list[int]
    ended: bool


def generation_rows(
    work: GenerateWork,
    checkpoint: LoadedCheckpoint,
    batch_size: int,
    report: Callable[[int, int], None],
) -> Rows:
    """Returns the rows of table `generations`, one for each prompt, in order.

    Args:
        work: The prompts.
        checkpoint: What continues them.
        batch_size: Prompts per batch.
        report: Called with (prompts done, all prompts).

    Raises:
        DataError: A prompt without tokens, or one that leaves no room in the model's context.
    """
    prompts = [prompt_ids(checkpoint.tokenizer, prompt) for prompt in work.prompts]
    context = getattr(checkpoint.model.config, "max_position_embeddings", None)
    for prompt, ids in zip(work.prompts, prompts, strict=True):
        _check_room(prompt, len(ids), context)
    found = continuations(checkpoint, prompts, work.new_tokens, batch_size, report)
    return [
        _row(work, checkpoint, place, prompts[place], continuation)
        for place, continuation in enumerate(found)
    ]


def continuations(
    checkpoint: LoadedCheckpoint,
    prompts: Sequence[list[int]],
    new_tokens: int,
    batch_size: int,
    report: Callable[[int, int], None],
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Continuation]:
    """Returns what a model says after each prompt.

    A continuation ends at the model's own end of text, after `new_tokens` or where the model's
    context is full; the end of text is no part of it.

    Args:
        checkpoint: The model.
        prompts: Tokens of the prompts, each shorter than the model's context.
        new_tokens: Longest continuation.
        batch_size: Prompts per batch; what is drawn is drawn for one prompt at a time, so that it
            depends on no other.
        report: Called with (prompts done, all prompts).
        temperature: Of the sampling; 0 takes the likeliest token.
        seed: Of the sampling.
    """
    model = checkpoint.model
    context = getattr(model.config, "max_position_embeddings", None)
    ends = _end_tokens(model, checkpoint.tokenizer)
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, ids in enumerate(prompts):
        by_length[len(ids)].append(place)
    found: dict[int, list[int]] = {}
    size = 1 if temperature else batch_size
    for length, alike in sorted(by_length.items(), reverse=True):
        most = new_tokens if context is None else min(new_tokens, context - length)
        for start in range(0, len(alike), size):
            places = alike[start : start + size]
            given = [prompts[place] for place in places]
            with _drawing(model, (seed, places[0]) if temperature else None):
                continued = _continue(model, given, most, ends, temperature)
            found |= dict(zip(places, continued, strict=True))
            report(len(found), len(prompts))
    return [_cut(found[place], ends) for place in range(len(prompts))]


def _cut(continued: list[int], ends: frozenset[int]) -> Continuation:
    """Returns a continuation up to its end of text; what follows is the batch's padding."""
    end = next((i for i, token in enumerate(continued) if token in ends), None)
    return Continuation(continued[:end], end is not None)


def _row(
    work: GenerateWork,
    checkpoint: LoadedCheckpoint,
    place: int,
    prompt: list[int],
    continuation: Continuation,
) -> dict[str, Any]:
    """Returns the row of one prompt."""
    tokens = continuation.tokens
    return {
        "prompt": work.prompts[place],
        "text": text_after(checkpoint.tokenizer, prompt, tokens),
        "generated_tokens": len(tokens),
        "ended": continuation.ended,
        **{f"distinct_{n}": distinct_share(tokens, n) for n in range(1, _LONGEST_RUN + 1)},
        "longest_repeat_share": longest_repeat_share(tokens),
        "loop_length": loop_length(tokens),
        "forward_dtype": work.dtype,
    }


@contextmanager
def _drawing(model: Any, seeds: tuple[int, int] | None) -> Iterator[None]:
    """Draws from a seed of its own within the block, and leaves the generators as they were."""
    if seeds is None:
        yield
        return
    device = model.get_input_embeddings().weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        yield


@torch.no_grad()
def _continue(
    model: Any,
    prompts: Sequence[list[int]],
    new_tokens: int,
    ends: frozenset[int],
    temperature: float,
) -> list[list[int]]:
    """Returns the new tokens after prompts of one length, ends of text and padding included."""
    ids = torch.tensor(prompts, device=model.get_input_embeddings().weight.device)
    # All tokens can be drawn: transformers would leave out all but the 50 likeliest.
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    config = GenerationConfig(
        do_sample=bool(temperature),
        **sampling,
        num_beams=1,
        max_new_tokens=new_tokens,
        eos_token_id=sorted(ends) or None,
        # It only fills the rows that ended, and they are cut there.
        pad_token_id=min(ends, default=0),
    )
    with plain_defaults(model):
        given = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    return [row[ids.shape[1] :] for row in given.tolist()]


@contextmanager
def plain_defaults(model: Any) -> Iterator[None]:
    """Hides the model's generation_config, which fills what a caller's leaves open."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns the ids that end a text, by the model's generation_config and its tokenizer."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*ends, tokenizer.eos_token_id) if token is not None)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Returns a prompt's tokens, special ones before it too, but no end of text behind it."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    own = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    while ids and ids[-1] == tokenizer.eos_token_id and len(ids) > len(own):
        ids = ids[:-1]
    return ids


def _check_room(prompt: str, length: int, context: int | None) -> None:
    shown = prompt if len(prompt) <= 40 else prompt[:39] + "…"
    if length == 0:
        raise DataError(f"the prompt {shown!r} has no tokens", "take it out of generate.prompts")
    if context is not None and length >= context:
        raise DataError(
            f"the prompt {shown!r} has {length} tokens, which leaves no room for a continuation in "
            f"the model's context of {context}",
            "shorten it in generate.prompts",
        )


def text_after(tokenizer: Any, prompt: list[int], tokens: list[int]) -> str:
    """Returns the text of a continuation, with the space that may lead it."""

    def decoded(ids: list[int]) -> str:
        return str(
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    # Some tokenizers drop the space before the first word of what they are given.
    before, whole = decoded(prompt), decoded(prompt + tokens)
    return whole[len(before) :] if whole.startswith(before) else decoded(tokens)
