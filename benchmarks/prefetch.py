"""How far downloads run beside the measuring: a study of checkpoints, with prefetch and without."""

from collections.abc import Mapping

from benchmarks.limits import Figure
from benchmarks.sleepers import Spent, Times, nodes, run, varied

_CHECKPOINTS, _NODES = 36, 2
_SECONDS: Mapping[str, tuple[float, float]] = {
    "compute-bound": (0.3, 0.6),
    "transfer-bound": (0.6, 0.3),
    "balanced": (0.6, 0.6),
}
"""Mean seconds of a checkpoint's transfer and of its computation."""


def figures() -> list[Figure]:
    """The share of the smaller of transfer and compute that prefetch hides."""
    found = []
    with nodes(_NODES) as address:
        for name, (transfer, compute) in _SECONDS.items():
            times = varied(_CHECKPOINTS, transfer, compute)
            spent = run(address, _NODES, times)
            without = run(address, _NODES, times, prefetches=False)
            found.append(_hidden(name, times, spent, without))
    return found


def _hidden(name: str, times: Times, spent: Spent, without: Spent) -> Figure:
    transfers, computes = (sum(part) / _NODES for part in zip(*times, strict=True))
    # Before the first transfer's end nothing can be computed: it is hidden from nobody.
    hidden = (without.makespan - spent.makespan) / (min(transfers, computes) - spent.first)
    return Figure(
        f"{name}, {_CHECKPOINTS} checkpoints, {_NODES} nodes: share of the smaller that is hidden",
        *(hidden, "", "≥ 0.9"),
        beside=f"{transfers:.3g} s of transfer and {computes:.3g} s of compute in "
        f"{spent.makespan:.3g} s, {without.makespan:.3g} s without; {spent.transfers} transfers",
    )
