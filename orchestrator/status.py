"""What is done, what is left, and what runs now. Reads the results, changes nothing."""

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.live import Live as Screen

from jobs.cells import Cell
from jobs.place import Place
from jobs.spec import Study
from orchestrator.live import Live, read_live
from orchestrator.plan import Plan, make_plan
from orchestrator.progress import duration
from orchestrator.store import Ledger, Store

_REFRESH_SECONDS = 2.0
_LINES_EVERY_SECONDS = 10.0
_SHOWN = 20


def show(
    study: Study, place: Place, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Tells what a study consists of, what of it is done, and what is at work on the results."""
    plan = make_plan(study)
    store = Store(place, write=False)
    live = read_live(place) if options.command == "status" else None
    if live is not None and not options.json and options.watch:
        _watch(place, console)
        live = read_live(place)
    outcome = counts(plan, store.ledger(plan.cells))
    if not options.json:
        for kind, numbers in outcome["by_kind"].items():
            parts = ", ".join(f"{value} {name}" for name, value in numbers.items() if value)
            console.print(f"  {kind}: {parts}", markup=False)
        if options.command == "status":
            console.print("\n".join(live_lines(live)), markup=False)
    outcome |= {"study": study.name, "results": str(place)}
    if options.command == "status":
        outcome["live"] = asdict(live) | {"silent": live.silent} if live is not None else None
    return outcome


def live_lines(live: Live | None) -> list[str]:
    """Returns what is known of a run at work, line by line."""
    if live is None:
        return ["no run is at work on these results"]
    run, job = live.snapshot, f", Ray job {live.job}" if live.job else ""
    heard = f"heard {duration(live.age)} ago"
    who = f"study {live.study} on {live.host} (process {live.pid}{job}), {heard}"
    if live.silent:
        return [f"a run has fallen silent, killed or cut off: {who}"]
    stages = " · ".join(
        f"{stage} {done}/{total}" + (f" ({failed} failed)" if failed else "")
        for stage, done, total, failed in run.stages
    )
    return [
        f"{run.state} since {duration(run.seconds)}: {who}",
        f"{stages} · {run.cells_per_minute:.0f} cells/min · "
        f"about {duration(run.remaining_seconds)} left · "
        f"{run.workers_ready} of {run.workers_wanted} workers",
        *(
            f"  {cell.label} [{cell.cell_id[:12]}] on {cell.node}, {duration(cell.seconds)}"
            + ("" if cell.fraction is None else f", {cell.fraction:.0%}")
            for cell in run.running[:_SHOWN]
        ),
        *([f"  … and {len(run.running) - _SHOWN} more"] if len(run.running) > _SHOWN else []),
        *(f"  failed: {label} [{cell[:12]}] {message}" for cell, label, message in run.failures),
    ]


def _watch(place: Place, console: Console) -> None:
    """Shows the run at work until it ends or is interrupted."""
    printed = 0.0
    with Screen(console=console, auto_refresh=False, transient=True) as screen:
        try:
            while (live := read_live(place)) is not None and not live.silent:
                if console.is_terminal:
                    screen.update("\n".join(live_lines(live)), refresh=True)
                elif time.monotonic() - printed >= _LINES_EVERY_SECONDS:
                    printed = time.monotonic()
                    console.print("\n".join(live_lines(live)), markup=False)
                time.sleep(_REFRESH_SECONDS)
        except KeyboardInterrupt:  # The watching ends, not the run.
            return


def todo(plan: Plan, ledger: Ledger) -> list[Cell]:
    """Returns the cells that can still be run: not done, not failed, not behind a failure."""
    hopeless = set(ledger.failed)
    left = []
    for cell in plan.cells:
        if cell.id in ledger.done or cell.id in hopeless:
            continue
        if any(need in hopeless for need in cell.needs):
            hopeless.add(cell.id)
        else:
            left.append(cell)
    return left


def counts(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Counts the plan's cells by state, in all and by kind."""
    left = {cell.id for cell in todo(plan, ledger)}

    def state(cell: Cell) -> str:
        if cell.id in ledger.done:
            return "done"
        if cell.id in ledger.failed:
            return "failed"
        return "todo" if cell.id in left else "blocked"

    by_kind: dict[str, Counter[str]] = {}
    for cell in plan.cells:
        by_kind.setdefault(cell.work.kind, Counter())[state(cell)] += 1
    total: Mapping[str, int] = sum(by_kind.values(), Counter())
    names = ("done", "todo", "failed", "blocked")
    return {
        "code": 0,
        "cells": len(plan.cells),
        **{name: total[name] for name in names},
        "by_kind": {k: {name: c[name] for name in names} for k, c in by_kind.items()},
    }
