"""How far downloads run beside the measuring: a study of checkpoints, with prefetch and without."""

from collections.abc import Mapping

from benchmarks.limits import Figure
from benchmarks.sleepers import Spent, Times, nodes, run, varied

_CHECKPOINTS, _NODES = 36, 2
_SECONDS: Mapping[str, tuple[float, float]] = {
    "compute-bound": (0.4, 0.8),
    "transfer-bound": (0.8, 0.4),
    "balanced": (0.8, 0.8),
}
"""Mean seconds of a checkpoint's transfer and of its computation."""


def figures() -> list[Figure]:
    """The share of the smaller of transfer and compute that is hidden, and what it comes of."""
    found = []
    with nodes(_NODES) as address:
        for name, (transfer, compute) in _SECONDS.items():
            times = varied(_CHECKPOINTS, transfer, compute)
            spent = run(address, _NODES, times)
            found.append(_hidden(name, times, spent))
        # Of the last one, which gains most.
        without = run(address, _NODES, times, prefetches=False)
    gained = without.makespan / spent.makespan
    return [*found, Figure(f"{name}: the time without prefetch, over that with it", gained, "×")]


def _hidden(name: str, times: Times, spent: Spent) -> Figure:
    transfers, computes = (sum(part) / _NODES for part in zip(*times, strict=True))
    # Before the first transfer's end nothing can be computed: it is hidden from nobody.
    hidden = (transfers + computes - spent.makespan) / (min(transfers, computes) - spent.first)
    return Figure(
        f"{name}, {_CHECKPOINTS} checkpoints, {_NODES} nodes: share of the smaller that is hidden",
        *(hidden, "", "≥ 0.9"),
        beside=f"{transfers:.3g} s of transfer and {computes:.3g} s of compute in "
        f"{spent.makespan:.3g} s, {spent.transfers} transfers",
    )
