"""Features beside the least that they could cost, on models of the shape of Pythia-70M."""

from collections.abc import Callable

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from jobs.work import GeometryWork
from workers.features import forward_pass
from workers.hub import LoadedModel
from workers.measure import geometry_rows
from workers.sequences import TokenSequences

VOCABULARY, TOKENS = 50304, 50277
"""Rows of Pythia's head, and ids of its tokenizer."""

_BATCH = 16
_COUNT, _LENGTH = 96, 128
_PAPER_COUNT, _PAPER_LENGTH = 80, 512
"""The papers' L; of their M, 15,000, so few that the spectra's share is far overstated."""


def figures(device: str) -> list[Figure]:
    """Ratios of our passes to bare ones over the same batches."""
    return beside(_sides(device))


def pythia_70m_shape() -> GPTNeoXForCausalLM:
    """Returns a model with random weights."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def _sides(device: str) -> list[Sides]:
    model = pythia_70m_shape().to(device)
    decoder, head = model.get_decoder(), model.get_output_embeddings().weight[:TOKENS]
    loaded = LoadedModel(model, None, head, torch.ones(512, dtype=torch.float64), tied=False)
    work = GeometryWork("text", "0" * 64, "last", "float32")
    generator = torch.Generator().manual_seed(0)
    equal = _drawn(torch.full((_COUNT,), _LENGTH), _LENGTH, generator)
    ragged = _drawn(torch.randint(8, _LENGTH, (_COUNT,), generator=generator), _LENGTH, generator)
    paper = _drawn(torch.full((_PAPER_COUNT,), _PAPER_LENGTH), _PAPER_LENGTH, generator)

    @torch.inference_mode()
    def bare() -> None:
        for batch in paper.ids.view(_PAPER_COUNT, _PAPER_LENGTH).split(_BATCH):
            decoder(input_ids=batch.to(device), use_cache=False)

    @torch.inference_mode()
    def padded() -> None:
        starts = ragged.lengths.cumsum(0) - ragged.lengths
        for places in torch.arange(_COUNT).split(_BATCH):
            batch = torch.zeros(len(places), _LENGTH, dtype=torch.int64)
            mask = torch.arange(_LENGTH) < ragged.lengths[places][:, None]
            for row, place in enumerate(places.tolist()):
                start, length = int(starts[place]), int(ragged.lengths[place])
                batch[row, :length] = ragged.ids[start : start + length]
            decoder(
                input_ids=batch.to(device),
                attention_mask=mask.long().to(device),
                use_cache=False,
            )

    def ours(sequences: TokenSequences, layers: bool = False) -> Callable[[], object]:
        return lambda: forward_pass(
            model, sequences, batch_size=_BATCH, layers=layers, loss=False, report=_ignore
        )

    def cell() -> None:
        passed = forward_pass(
            model, paper, batch_size=_BATCH, layers=False, loss=False, report=_ignore
        )
        geometry_rows(work, loaded, paper, passed)

    return [
        Sides(
            f"a geometry cell, {_PAPER_COUNT} × {_PAPER_LENGTH} tokens, against the base model's "
            "bare forward",
            *(cell, bare, "≥ 0.95"),
            rounds=2,
        ),
        Sides(
            "features of all layers, against the last alone",
            *(ours(equal, layers=True), ours(equal), "≥ 0.85"),
            rounds=2,
        ),
        Sides(
            "ragged lengths in buckets, against padding to L", ours(ragged), padded, "> 1", rounds=2
        ),
    ]


def _drawn(lengths: torch.Tensor, longest: int, generator: torch.Generator) -> TokenSequences:
    ids = torch.randint(0, TOKENS, (int(lengths.sum()),), generator=generator)
    return TokenSequences(ids, lengths, longest, "")


def _ignore(_done: int, _total: int) -> None:
    return None
