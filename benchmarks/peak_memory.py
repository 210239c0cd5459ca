"""What measuring takes of memory beyond the model's own size, at the papers' M and d = 4096.

Features are synthetic, since what makes them is the model. They come in the pieces in which a pass
gives them, to the very functions that a checkpoint's cells call: geometry of the last layer with
its standard errors, further layers' accumulators, and overlaps of the head. The head counts as the
model's own.
"""

import torch

from benchmarks.limits import Figure, alone, memory
from jobs.work import GeometryWork
from workers.features import ForwardPass
from workers.hub import LoadedModel
from workers.kernels.head import overlap_statistics, row_norms
from workers.kernels.moments import MomentAccumulator
from workers.measure import geometry_rows
from workers.sequences import TokenSequences

_COUNT, _WIDTH = 15_000, 4096
_PIECE = 1024
_LAYERS = 4
_TOKENS = 8192
_MATRIX = _WIDTH**2 * 8 / 2**30
"""GiB of a d × d matrix in float64."""


def figures() -> list[Figure]:
    """Growth of peaks in processes of their own."""
    geometry, layers, overlaps = alone(_geometry), alone(_layers), alone(_overlaps)
    size = f"M {_COUNT:,}, d {_WIDTH}"
    return [
        Figure(f"geometry of the last layer, {size}", geometry, "GiB", "≤ 1"),
        Figure(
            f"each further layer, {size}",
            *(layers / _LAYERS, "GiB", f"≤ {1.1 * _MATRIX:.3g}"),
            beside=f"a d × d accumulator has {_MATRIX:.3g} GiB; a tenth for what rows wait in",
        ),
        Figure(f"overlaps, a head of {_TOKENS:,} × {_WIDTH}", overlaps, "GiB", "≤ 1"),
    ]


def _geometry() -> float:
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(_TOKENS, _WIDTH, generator=generator)
    loaded = LoadedModel(None, None, head, torch.ones(_WIDTH, dtype=torch.float64), tied=False)
    lengths = torch.full((_COUNT,), 2)
    sequences = TokenSequences(torch.zeros(2 * _COUNT, dtype=torch.int64), lengths, 2, "")
    work = GeometryWork("text", "0" * 64, "last", "float32")
    before = _warm()
    features = torch.empty(_COUNT, _WIDTH)
    for piece in features.split(_PIECE):
        piece.copy_(_rows(len(piece), generator))
    passed = ForwardPass(features, {}, None, lengths - 1)
    geometry_rows(work, loaded, sequences, passed)
    return memory("VmHWM") - before


def _layers() -> float:
    """Returns the peak of a last layer and some further ones, less that of the last alone."""
    grown = [alone(_accumulated, count) for count in (1, 1 + _LAYERS)]
    return grown[1] - grown[0]


def _accumulated(layers: int) -> float:
    generator = torch.Generator().manual_seed(0)
    accumulators = [MomentAccumulator() for _ in range(layers)]
    before = _warm()
    for _ in range(2):  # More pieces take time and no memory.
        rows = _rows(_PIECE, generator)
        for accumulator in accumulators:
            accumulator.update(rows)
    return memory("VmHWM") - before


def _overlaps() -> float:
    head = torch.randn(_TOKENS, _WIDTH, generator=torch.Generator().manual_seed(0))
    row_norms(head[:_PIECE])
    before = _warm()
    overlap_statistics(head)
    return memory("VmHWM") - before


def _warm() -> float:
    """Returns the memory of this process with what libraries take on their first use."""
    small = torch.randn(64, 64, dtype=torch.float64)
    torch.linalg.eigh(small.T @ small), torch.linalg.svdvals(small)
    return memory("VmRSS")


def _rows(count: int, generator: torch.Generator) -> torch.Tensor:
    scale = torch.arange(1, _WIDTH + 1, dtype=torch.float32).rsqrt()
    return torch.randn(count, _WIDTH, generator=generator) * scale
