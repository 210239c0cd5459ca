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
from jobs.errors import UsageError
from jobs.place import Place
from jobs.study import shipped_studies
from orchestrator.estimate import BANDWIDTH, estimate_plan
from orchestrator.estimate_lines import Terms, estimate_json, estimate_lines
from orchestrator.hardware import USUAL_GPU, Machines, gpu_machines, this_machine
from orchestrator.live import Live, read_live
from orchestrator.options import USUAL
from orchestrator.plan import Plan
from orchestrator.progress import duration
from orchestrator.simulated_plan import simulate_plan, simulation_json, simulation_lines
from orchestrator.store import Ledger, Store

_REFRESH_SECONDS = 2.0
_LINES_EVERY_SECONDS = 10.0
_SHOWN = 20


def study_here(place: Place, console: Console) -> str:
    """Returns the name of the study to count where the user names none.

    It is that of the run at work, else that of the report; `pico` where neither is there, or where
    it is a file of the user's, which a name doesn't lead to: then that is told.

    Raises:
        StoreError: The place cannot be read, or another version is at work there.
    """
    # Imported here: `plan` needs nothing of a report.
    from dashboards.about import existing_study

    Store(place, write=False)  # What is no place of results is told as such first.
    live = read_live(place)
    name = live.study if live is not None else existing_study(place)[0]
    if name is None or name in shipped_studies():
        return name or USUAL
    console.print(
        f"these results are of study {name}, and what is counted is {USUAL}: name its file with "
        "--study",
        markup=False,
    )
    return USUAL


def show(plan: Plan, place: Place, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Tells what a study consists of, what of it is done, and what is at work on the results."""
    store = Store(place, write=False)
    live = read_live(place) if options.command == "status" else None
    if live is not None and not options.json and options.watch:
        _watch(place, console)
        live = read_live(place)
    ledger = store.ledger(plan.cells)
    outcome = counts(plan, ledger)
    if not options.json:
        for kind, numbers in outcome["by_kind"].items():
            parts = ", ".join(f"{value} {name}" for name, value in numbers.items() if value)
            console.print(f"  {kind}: {parts}", markup=False)
        if options.command == "status":
            console.print("\n".join(live_lines(live)), markup=False)
    if options.command == "plan":
        outcome["estimate"] = _estimate(plan, place, ledger, options, console)
    outcome |= {"study": plan.study.name, "results": str(place)}
    if options.command == "status":
        outcome["live"] = asdict(live) | {"silent": live.silent} if live is not None else None
    return outcome


def _estimate(
    plan: Plan, place: Place, ledger: Ledger, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Tells what the rest will take, on this machine or on those that the user names."""
    left = todo(plan, ledger)
    machines = _machines(options, len({cell.group for cell in left}))
    if options.price is not None and not machines.gpus:
        raise UsageError(
            "--price is that of a GPU hour, and this machine has no GPU that is known",
            "name the GPUs with --gpus and --gpu-type",
        )
    if not options.simulate and (options.boot_seconds or options.losses_per_hour):
        raise UsageError(
            "--boot-seconds and --losses-per-hour are of a simulated run", "add --simulate"
        )
    bandwidth = options.bandwidth or BANDWIDTH
    found = estimate_plan(plan, place, ledger, left, machines, bandwidth)
    given = any(found is not None for found in (options.gpus, options.gpu_type, options.cluster))
    terms = Terms(options.price, options.bandwidth is not None, given)
    if not options.json:
        console.print("\n".join(estimate_lines(found, terms)), markup=False)
    simulated = None
    if options.simulate and left:
        run = simulate_plan(
            plan, place, ledger, left, found, options.boot_seconds, options.losses_per_hour or 0.0
        )
        simulated = simulation_json(run, found, options.price)
        if not options.json:
            console.print("\n".join(simulation_lines(run, found, options.price)), markup=False)
    return estimate_json(found, terms) | {"simulation": simulated}


def _machines(options: argparse.Namespace, tasks: int) -> Machines:
    """Returns the machines that the user names, else this one."""
    if options.cluster is not None:
        named = ("gpus", "gpu_type", "workers", "threads")
        if given := [name for name in named if getattr(options, name) is not None]:
            other = given[0].replace("_", "-")
            raise UsageError(
                f"--cluster asks a cluster what it has, and --{other} says so itself",
                "leave out the one or the other",
            )
        # Imported here: Ray takes seconds, and no other plan needs it.
        from orchestrator.cluster import ask_machines

        return ask_machines(None if options.cluster == "auto" else options.cluster, tasks)
    if options.gpus is None and options.gpu_type is None:
        return this_machine(options.workers, options.threads)
    if options.workers is not None or options.threads is not None:
        raise UsageError(
            "--workers and --threads share out this machine, and --gpus names another",
            "leave out the one or the other",
        )
    return gpu_machines(options.gpus or 1, options.gpu_type or USUAL_GPU)


def live_lines(live: Live | None) -> list[str]:
    """Returns what is known of a run at work, line by line."""
    if live is None:
        return ["no run is at work on these results"]
    run, job = live.snapshot, f", Ray job {live.job}" if live.job else ""
    heard = f"heard {duration(live.age)} ago"
    who = f"study {live.study} on {live.host} (process {live.pid}{job}), {heard}"
    if live.silent:
        return [f"a run has fallen silent, killed or cut off: {who}"]
    if run.state == "starting":
        return [f"starting since {duration(run.seconds)}, no workers yet: {who}"]
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
    printed, state = 0.0, ""
    with Screen(console=console, auto_refresh=False, transient=True) as screen:
        try:
            while (live := read_live(place)) is not None and not live.silent:
                if console.is_terminal:
                    screen.update("\n".join(live_lines(live)), refresh=True)
                elif (
                    live.snapshot.state != state
                    or time.monotonic() - printed >= _LINES_EVERY_SECONDS
                ):
                    printed, state = time.monotonic(), live.snapshot.state
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
