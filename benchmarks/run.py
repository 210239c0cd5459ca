"""Runs the benchmarks, each row in a process of its own: one that ends badly takes no other along.

    python -m benchmarks.run [--only ROW …] [--gpu] [--json PATH] [--markdown PATH]

A whole run on the CPU writes `figures.json` and `README.md` beside this file. The exit code is 1
where a row crashed; a goal that is missed is marked and changes no exit code.
"""

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.limits import Figure, alone
from benchmarks.table import as_json, as_markdown, as_table, this_machine

_HERE = Path(__file__).parent
_HEAD = """# Speed and scale

`make bench` measures each row beside a peer or a limit and writes this page. Ratios are the other
side's time over ours, medians of rounds in which both sides alternate; `beside` tells the times
behind them. A row without a goal explains the others. `docs/speed.md` tells what each row compares,
why a goal is missed where one is, and what profiling found.
"""


@dataclass(frozen=True)
class Row:
    """A row of the benchmarks.

    Attributes:
        name: Name of its module, `-` for `_`; the module's `figures` measures it.
        seconds: About what it takes on 2 cores.
        on_gpu: Whether it can be measured on a GPU; `figures` takes the device then.
    """

    name: str
    seconds: int
    on_gpu: bool = False


ROWS = (
    Row("features", 68, on_gpu=True),
    Row("checkpoint", 160, on_gpu=True),
    Row("overlaps", 72, on_gpu=True),
    Row("standard-errors", 5, on_gpu=True),
    Row("peak-memory", 62),
    Row("memorization", 20),
    Row("executors", 102),
    Row("prefetch", 138),
    Row("simulated", 105),
    Row("planning", 22),
    Row("ledger", 124),
    Row("resume", 30),
    Row("finetuning", 42),
    Row("packing", 48),
    Row("sampling", 127),
    Row("probe", 23),
    Row("toy", 12),
    Row("report", 33),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", action="append", choices=names, help="may be given repeatedly")
    parser.add_argument("--gpu", action="store_true", help="the rows that a GPU helps, on one")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="also write their page to this file")
    options = parser.parse_args(arguments)
    device = "cuda" if options.gpu else "cpu"
    if options.gpu and (mistake := _no_gpu(options.only)):
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    rows = [
        row
        for row in ROWS
        if (row.on_gpu or not options.gpu) and row.name in (options.only or names)
    ]
    whole = not (options.only or options.gpu)
    figures = options.json or (_HERE / "figures.json" if whole else None)
    page = options.markdown or (_HERE / "README.md" if whole else None)
    found: dict[str, Any] = {}
    # Written after each row, so that an interrupt loses none.
    for found in measure(rows, device, Console(soft_wrap=True)):
        if figures is not None:
            figures.write_text(_as_text(found), encoding="utf-8")
        if page is not None:
            page.write_text(as_markdown(found, _HEAD), encoding="utf-8")
    for name, error in found["crashed"].items():
        print(f"\n{name} crashed:\n{error}", file=sys.stderr)
    return 1 if found["crashed"] else 0


def measure(
    rows: Sequence[Row],
    device: str,
    console: Console,
    call: Callable[[Row, str], list[Figure]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Measures rows one after another; after each, yields what `as_json` makes of all so far.

    Args:
        rows: The rows.
        device: `cpu` or `cuda`.
        console: Takes progress and tables.
        call: Measures a row; by default in a process of its own.
    """
    call = call or _in_own_process
    measured: dict[str, list[Figure]] = {}
    crashed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    machine = this_machine(device)
    for place, row in enumerate(rows):
        left = ", ".join(later.name for later in rows[place + 1 :])
        console.print(
            f"{place + 1} of {len(rows)}: {row.name}, about {row.seconds} s"
            + (f"; then, about {_minutes(rows[place + 1 :])} min: {left}" if left else ""),
            markup=False,
        )
        started = time.monotonic()
        try:
            measured[row.name] = call(row, device)
            console.print(as_table(row.name, measured[row.name]))
        except Exception:  # noqa: BLE001 - it is told at the end, and the other rows go on.
            crashed[row.name] = traceback.format_exc()
            console.print(f"{row.name} crashed: {crashed[row.name].splitlines()[-1]}", markup=False)
        seconds[row.name] = time.monotonic() - started
        yield as_json(machine, measured, crashed, seconds)


def figures_of(name: str, *arguments: object) -> list[Figure]:
    """Measures the row of a name in this process."""
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    found: list[Figure] = module.figures(*arguments)
    return found


def _in_own_process(row: Row, device: str) -> list[Figure]:
    return alone(figures_of, row.name, *([device] if row.on_gpu else []))


def _no_gpu(only: Sequence[str] | None) -> str | None:
    """Returns why rows cannot be measured on a GPU, if they cannot."""
    on_gpu = [row.name for row in ROWS if row.on_gpu]
    if wrong := [name for name in only or () if name not in on_gpu]:
        return f"a GPU doesn't help the row '{wrong[0]}' → with --gpu, use {', '.join(on_gpu)}"
    import torch

    if not torch.cuda.is_available():
        return "--gpu, but torch finds no CUDA GPU here → run without --gpu"
    return None


def _as_text(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _minutes(rows: Iterable[Row]) -> int:
    return max(1, round(sum(row.seconds for row in rows) / 60))


if __name__ == "__main__":
    sys.exit(main())
