"""Runs the benchmarks: `python -m benchmarks.run [--only NAME] [--json PATH]`; sides alternate."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import executors, ledger, planning, prefetch, probe, report, sampling, toy
from benchmarks.finetuning import finetuning_sides
from benchmarks.limits import Figure
from benchmarks.measurements import Sides, forward_sides, overlap_sides, standard_error_sides
from benchmarks.memorization import memorization_sides

_ROUNDS = 5
_PEERS: Mapping[str, Callable[[], list[Sides]]] = {
    "forward": forward_sides,
    "standard-errors": standard_error_sides,
    "overlaps": overlap_sides,
    "memorization": memorization_sides,
    "finetuning": finetuning_sides,
}
_LIMITS: Mapping[str, Callable[[], list[Figure]]] = {
    "planning": planning.figures,
    "ledger": ledger.figures,
    "executors": executors.figures,
    "prefetch": prefetch.figures,
    "probe": probe.figures,
    "toy": toy.figures,
    "sampling": sampling.figures,
    "report": report.figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = (*_PEERS, *_LIMITS)
    parser.add_argument("--only", action="append", choices=names, help="may be given repeatedly")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    wanted = options.only or names
    console = Console()
    rows: list[dict[str, Any]] = []
    if sides := [side for name in wanted if name in _PEERS for side in _PEERS[name]()]:
        rows += _beside_peers(sides, console)
    for name in wanted:
        if name in _LIMITS:
            rows += _below_limits(name, _LIMITS[name](), console)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


def _beside_peers(sides: Iterable[Sides], console: Console) -> list[dict[str, Any]]:
    """Times both sides in turns and prints their ratios."""
    table = Table(
        title=f"medians of {_ROUNDS} alternating rounds, {torch.get_num_threads()} threads"
    )
    for header in ("what", "ours, s", "other, s", "other / ours", "spread", "goal"):
        table.add_column(header)
    rows = []
    for what, ours, other, goal in sides:
        _seconds(ours), _seconds(other)
        pairs = [(_seconds(ours), _seconds(other)) for _ in range(_ROUNDS)]
        ratios = sorted(theirs / mine for mine, theirs in pairs)
        row = {
            "what": what,
            "ours_seconds": statistics.median(mine for mine, _ in pairs),
            "other_seconds": statistics.median(theirs for _, theirs in pairs),
            "ratio": statistics.median(ratios),
            "lowest": ratios[0],
            "highest": ratios[-1],
            "goal": float(goal),
        }
        rows.append(row)
        table.add_row(
            what,
            f"{row['ours_seconds']:.3f}",
            f"{row['other_seconds']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['lowest']:.2f}–{row['highest']:.2f}",
            f"≥ {goal}",
        )
    console.print(table)
    return rows


def _below_limits(name: str, figures: Iterable[Figure], console: Console) -> list[dict[str, Any]]:
    """Prints figures beside their limits."""
    table = Table(title=name)
    for header in ("what", "measured", "goal"):
        table.add_column(header)
    rows = []
    for figure in figures:
        table.add_row(figure.what, f"{figure.value:.3g} {figure.unit}", figure.goal)
        rows.append(asdict(figure))
    console.print(table)
    return rows


def _seconds(side: Callable[[], object]) -> float:
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
