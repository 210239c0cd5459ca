"""Overlaps of a head's rows beside a loop over all blocks, and beside this machine's products.

At d = 4096 the whole of a large head would take minutes, so fewer rows are measured. What they come
to at a full vocabulary is computed: blocks of pairs by how many there are on and above the
diagonal, the lengths of rows by the rows, the loop by their square.
"""

import torch

from benchmarks.limits import Figure, median_of
from benchmarks.peers import Sides, beside, took
from workers.kernels import head as kernels

_BLOCK = 2048
_ROWS = 24576
_WIDE, _WIDE_ROWS = 4096, 16384
_VOCABULARY = 50304
_ROUNDS = 3


def figures(device: str) -> list[Figure]:
    """Ratios at d = 512, and at d = 4096 by parts."""
    head = _head(_ROWS, 512, device)
    what = f"overlaps of {_ROWS:,} rows, d 512"
    narrow = [
        Sides(
            f"{what}, against a loop over all blocks",
            *(lambda: kernels.overlap_statistics(head), lambda: _full_loop(head), "≥ 1.8"),
            rounds=3,
        ),
        Sides(
            f"{what}, against nothing but the products of its blocks",
            *(lambda: kernels.overlap_statistics(head), lambda: _products(head), "≥ 0.8"),
            rounds=3,
        ),
    ]
    return [*beside(narrow), *_wide(device)]


def _wide(device: str) -> list[Figure]:
    head = _head(_WIDE_ROWS, _WIDE, device)
    norms, edge = kernels.row_norms(head), kernels._EDGES[device]
    sides = (
        lambda: kernels._deviations(head, norms, 0.01, edge),
        lambda: kernels.row_norms(head),
        lambda: _products(head),
        lambda: _full_loop(head),
    )
    sides[0]()
    rounds = [[took(side) for side in sides] for _ in range(_ROUNDS)]
    shares = [products / pairs for pairs, _, products, _ in rounds]
    more = _VOCABULARY / _WIDE_ROWS
    more_pairs = _blocks(_VOCABULARY, edge) / _blocks(_WIDE_ROWS, edge)
    whole = [
        loop * more**2 / (pairs * more_pairs + lengths * more) for pairs, lengths, _, loop in rounds
    ]
    what = f"overlaps of {_WIDE_ROWS:,} rows, d {_WIDE}"
    pairs, lengths, products, loop = (min(times) for times in zip(*rounds, strict=True))
    return [
        median_of(
            f"{what}: their pairs, against nothing but the products",
            *(shares, "×", "≥ 0.8", f"{pairs:.3g} s against {products:.3g} s"),
        ),
        Figure(f"{what}: lengths of the rows", lengths, "s"),
        median_of(
            f"overlaps of {_VOCABULARY:,} rows, d {_WIDE}, from these, against a loop over all",
            *(whole, "×", "≥ 1.8", f"{loop:.3g} s for a loop over {_WIDE_ROWS:,} rows"),
        ),
    ]


def _blocks(rows: int, edge: int) -> float:
    """Returns how many blocks of pairs rows have on and above the diagonal."""
    along = rows / edge
    return along * (along + 1) / 2


def _head(rows: int, width: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, width, generator=generator).to(device)


def _full_loop(head: torch.Tensor) -> tuple[float, float]:
    directions = head / head.norm(dim=1, keepdim=True)
    total, squares = 0.0, 0.0
    for rows in directions.split(_BLOCK):
        for columns in directions.split(_BLOCK):
            cosines = (rows @ columns.T).abs()
            total += float(cosines.sum())
            squares += float(cosines.square().sum())
    return total, squares


def _products(head: torch.Tensor) -> None:
    """Forms the blocks on and above the diagonal, and does nothing with them."""
    buffer = torch.empty(_BLOCK, _BLOCK, device=head.device)
    blocks = head.split(_BLOCK)
    for place, rows in enumerate(blocks):
        for columns in blocks[place:]:
            torch.mm(rows, columns.T, out=buffer)
