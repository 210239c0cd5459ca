"""Tiny random models of every kind of norm, residual stream and head that differ in the code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
import transformers

from workers.sequences import TokenSequences

VOCABULARY = 61
LAYERS = 2


@dataclass(frozen=True)
class Architecture:
    """How to build one and where its final norm is.

    Attributes:
        config: Name of the transformers config.
        norm: Path of the final norm in the model.
        options: What its config needs beside the sizes.
        gain: The gain as it multiplies, from the norm's weight.
    """

    config: str
    norm: str
    options: dict[str, Any]
    gain: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight


def _one_plus(weight: torch.Tensor) -> torch.Tensor:
    return 1 + weight


_LLAMA_LIKE = {"intermediate_size": 40, "num_attention_heads": 3, "num_key_value_heads": 1}
ARCHITECTURES = {
    "neox": Architecture(
        "GPTNeoXConfig",
        "gpt_neox.final_layer_norm",
        {"intermediate_size": 40, "num_attention_heads": 3},
    ),
    "gpt2": Architecture("GPT2Config", "transformer.ln_f", {"num_attention_heads": 3}),
    "llama": Architecture("LlamaConfig", "model.norm", {**_LLAMA_LIKE, "head_dim": 8}),
    "olmo2": Architecture("Olmo2Config", "model.norm", {**_LLAMA_LIKE, "head_dim": 8}),
    "gemma": Architecture("GemmaConfig", "model.norm", {**_LLAMA_LIKE, "head_dim": 8}, _one_plus),
}
SCALED_LOGITS = {
    "gemma2": Architecture(
        "Gemma2Config",
        "model.norm",
        {**_LLAMA_LIKE, "head_dim": 8, "final_logit_softcapping": 2.0},
        _one_plus,
    ),
    "cohere": Architecture("CohereConfig", "model.norm", {**_LLAMA_LIKE, "logit_scale": 0.25}),
    "granite": Architecture("GraniteConfig", "model.norm", {**_LLAMA_LIKE, "logits_scaling": 8.0}),
}


def build(architecture: Architecture, width: int = 24, seed: int = 0, **options: Any) -> Any:
    """A model whose every parameter, gains and biases too, is random."""
    config = getattr(transformers, architecture.config)(
        vocab_size=options.pop("vocab_size", VOCABULARY),
        hidden_size=width,
        num_hidden_layers=LAYERS,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        **architecture.options | options,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def token_sequences(sequences: Sequence[Sequence[int]], seq_len: int) -> TokenSequences:
    """Sequences as `draw_sequences` would have stored them."""
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    fingerprint = sha256(ids.numpy().tobytes() + lengths.numpy().tobytes()).hexdigest()
    return TokenSequences(ids, lengths, seq_len, fingerprint)


def random_sequences(
    count: int, longest: int = 12, vocabulary: int = VOCABULARY, seed: int = 0
) -> list[list[int]]:
    """Sequences of 1 to `longest` tokens; the first has 1 and the second `longest`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    lengths[:2] = 1, longest
    return [
        torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in lengths
    ]


def silent(done: int, total: int) -> None:
    """A report that checks its own arguments."""
    assert 0 <= done <= total
