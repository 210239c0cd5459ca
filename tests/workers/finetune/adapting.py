"""What tests of adapters share: loaded tiny models, recipes, and a short training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from jobs.finetune_work import Recipe
from tests.workers.models import ARCHITECTURES, VOCABULARY, build
from workers.features import logits_of
from workers.finetune.adapters import Adapted
from workers.hub import LoadedCheckpoint

TOKENS = VOCABULARY - 4
"""Real tokens; the other rows of the head are padding."""

RECIPE = Recipe(
    method="lora",
    intervention="none",
    clip=None,
    rank=3,
    targets=("attention",),
    groups=None,
    alpha=16.0,
    dropout=0.0,
    epochs=1,
    batch_size=4,
    learning_rate=1e-2,
    weight_decay=0.01,
    seed=5,
    threads=1,
    dtype="float32",
)


def recipe(**changes: Any) -> Recipe:
    """`RECIPE` with other values."""
    return replace(RECIPE, **changes)


def loaded(model: Any, dtype: torch.dtype = torch.float32) -> LoadedCheckpoint:
    """A model as `load_checkpoint` would have loaded it, with `TOKENS` real tokens."""
    model = model.eval().requires_grad_(False)
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    stored = head[:TOKENS].detach().float().clone()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return LoadedCheckpoint(
        model=model,
        tokenizer=range(TOKENS),
        head=stored,
        final_norm_gain=torch.ones(head.shape[1]),
        tied=tied,
        path=Path("tiny"),
        weights_sha256="",
        stored_dtype="float32",
        weight_bytes=0,
        weight_profile=(),
    )


def tiny(name: str = "neox", dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A loaded tiny model; gpt2's and gemma's heads are tied unless told."""
    return loaded(build(ARCHITECTURES[name], **options), dtype)


def other(config: str, **options: Any) -> Any:
    """A tiny model of an architecture that `ARCHITECTURES` lacks."""
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(transformers, config)(**sizes | options)
        return transformers.AutoModelForCausalLM.from_config(made)


def equal_norms(checkpoint: LoadedCheckpoint) -> None:
    """Makes all rows of the head the same up to signs, so that norms are equal to the last bit."""
    weight = checkpoint.model.get_output_embeddings().weight
    signs = torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)).sign()
    weight.data = 0.1 * torch.arange(1.0, weight.shape[1] + 1) * signs


def batch(step: int) -> torch.Tensor:
    """Random tokens, (4, 9)."""
    return torch.randint(0, TOKENS, (4, 9), generator=torch.Generator().manual_seed(step))


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """As the training loop gets them: the decoder, then the head."""
    return logits_of(model, model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)


def train(has: Adapted, steps: int = 4, epsilon: float = 1e-8) -> None:
    """A few steps of AdamW on random tokens, dropout on; then off again."""
    chosen = torch.optim.AdamW(has.parameters, lr=1e-2, weight_decay=0.01, eps=epsilon)
    has.train(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        for step in range(steps):
            ids = batch(step)
            found = logits(has.model, ids)[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(found, ids[:, 1:].flatten())
            chosen.zero_grad()
            loss.backward()
            chosen.step()
    has.train(False)
