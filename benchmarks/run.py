"""Runs every benchmark: `python -m benchmarks.run [--json PATH]`; sides alternate."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import forward_sides, overlap_sides, standard_error_sides

_ROUNDS = 5


def _seconds(side: Callable[[], object]) -> float:
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    table = Table(
        title=f"medians of {_ROUNDS} alternating rounds, {torch.get_num_threads()} threads"
    )
    for header in ("what", "ours, s", "other, s", "other / ours", "spread", "goal"):
        table.add_column(header)
    rows = []
    for what, ours, other, goal in [*forward_sides(), *standard_error_sides(), *overlap_sides()]:
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
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
