"""Measurements beside the least that they could cost, or beside the usual way of doing them."""

from collections.abc import Callable

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from workers.features import forward_pass
from workers.kernels.head import overlap_statistics
from workers.kernels.influence import influences, standard_error
from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import fit_alpha_req, rankme, spectrum
from workers.sequences import TokenSequences

Sides = tuple[str, Callable[[], object], Callable[[], object], str]
"""What is measured, ours, the other side, and what the ratio other/ours should reach."""

_BATCH = 16
_COUNT, _LENGTH = 96, 128
_BOOTSTRAPS = 100


def _pythia_70m_shape() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def _ignore(_done: int, _total: int) -> None:
    return None


def forward_sides() -> list[Sides]:
    """Our pass beside the bare base model's forward on the same batches."""
    model = _pythia_70m_shape()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50277, (_COUNT * _LENGTH,), generator=generator)
    lengths = torch.full((_COUNT,), _LENGTH)
    equal = TokenSequences(ids, lengths, _LENGTH, "")
    ragged = TokenSequences(
        ids, torch.randint(8, _LENGTH, (_COUNT,), generator=generator), _LENGTH, ""
    )

    @torch.inference_mode()
    def bare() -> None:
        for batch in ids.view(_COUNT, _LENGTH).split(_BATCH):
            model.get_decoder()(input_ids=batch, use_cache=False)

    @torch.inference_mode()
    def padded() -> None:
        starts = ragged.lengths.cumsum(0) - ragged.lengths
        for places in torch.arange(_COUNT).split(_BATCH):
            batch = torch.zeros(len(places), _LENGTH, dtype=torch.int64)
            mask = torch.arange(_LENGTH) < ragged.lengths[places][:, None]
            for row, place in enumerate(places.tolist()):
                start, length = int(starts[place]), int(ragged.lengths[place])
                batch[row, :length] = ragged.ids[start : start + length]
            model.get_decoder()(input_ids=batch, attention_mask=mask.long(), use_cache=False)

    def ours(sequences: TokenSequences, layers: bool) -> Callable[[], object]:
        return lambda: forward_pass(
            model, sequences, batch_size=_BATCH, layers=layers, loss=False, report=_ignore
        )

    return [
        ("features of the last layer, against the bare forward", ours(equal, False), bare, "0.95"),
        (
            "features of all layers, against the last alone",
            ours(equal, True),
            ours(equal, False),
            "0.85",
        ),
        ("ragged lengths in buckets, against padding to L", ours(ragged, False), padded, "1"),
    ]


def standard_error_sides() -> list[Sides]:
    """The infinitesimal jackknife beside a bootstrap that refits every resample."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, 129, dtype=torch.float32).rsqrt()
    features = torch.randn(1500, 128, generator=generator) * scale

    def fitted(rows: torch.Tensor) -> tuple[float, float]:
        moments = MomentAccumulator()
        moments.update(rows)
        eigenvalues = spectrum(moments).eigenvalues
        return rankme(eigenvalues), fit_alpha_req(eigenvalues, len(rows)).value

    def jackknife() -> None:
        moments = MomentAccumulator()
        moments.update(features)
        found = spectrum(moments)
        for influence in influences(features, found, fit_alpha_req(found.eigenvalues, 1500)):
            standard_error(influence)

    def bootstrap() -> None:
        draws = [
            fitted(features[torch.randint(0, 1500, (1500,), generator=generator)])
            for _ in range(_BOOTSTRAPS)
        ]
        torch.tensor(draws).std(dim=0)

    return [("standard errors, against a bootstrap of 100", jackknife, bootstrap, "10")]


def overlap_sides() -> list[Sides]:
    """Overlaps by symmetry beside a loop over all blocks of the full matrix."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(12288, 512, generator=generator)

    def full_loop() -> None:
        directions = head / head.norm(dim=1, keepdim=True)
        total, squares = 0.0, 0.0
        for rows in directions.split(2048):
            for columns in directions.split(2048):
                cosines = (rows @ columns.T).abs()
                total += float(cosines.sum())
                squares += float(cosines.square().sum())

    return [
        (
            "overlaps of 12k × 12k, d 512, against a loop over all blocks",
            lambda: overlap_statistics(head),
            full_loop,
            "1.8",
        )
    ]
