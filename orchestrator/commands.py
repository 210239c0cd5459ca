"""Runs a study: what is left of it goes to an executor, and then the report is drawn."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from jobs.cells import Cell
from jobs.errors import UsageError
from jobs.place import Place
from jobs.work import StageName, gpus
from orchestrator.audit_command import lines
from orchestrator.downloads import check_budget
from orchestrator.estimate import estimate_plan
from orchestrator.estimate_lines import brief
from orchestrator.hardware import Machines, run_machines, threads_per_worker
from orchestrator.live import telling
from orchestrator.measured import recorded_sizes
from orchestrator.model_sizes import ModelSizes
from orchestrator.plan import Plan
from orchestrator.progress import ProgressView, duration
from orchestrator.report_command import report
from orchestrator.status import counts, todo
from orchestrator.store import Store

if TYPE_CHECKING:
    from orchestrator.drive import Executor, How, Watcher

_SHOWN_FAILURES = 5


def run(
    plan: Plan, place: Place, command: str, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Runs the cells that are left, and draws the report."""
    for line in lines(plan, refused_only=True):
        console.print(line, markup=False)
    if command != "full":
        plan = plan.only([stage for stage in get_args(StageName) if stage == command])
    store = Store(place)
    ledger = store.ledger(plan.cells)
    left = todo(plan, ledger)
    console.print(
        f"study {plan.study.name}: {len(plan.cells)} cells, {len(plan.cells) - len(left)} done or "
        f"given up, {len(left)} to do",
        markup=False,
    )
    took: dict[str, Any] = {}
    if options.disk_budget is not None:
        check_budget(left, options.disk_budget)
    if left:
        with store.lease(lambda: _say_waiting(console, "")):
            took = _work(plan, store, options, console)
        ledger = store.ledger(plan.cells)
    outcome = counts(plan, ledger) | took | report(place, plan.study, ledger=ledger)
    outcome["refused"] = sum(work.refused for _, work in plan.audits)
    if outcome["todo"]:  # Rows went away, or failures were cleared, while the run went on.
        outcome |= {"code": 1, "next": "run the same command again"}
    failed = [ledger.failed[c.id] | {"label": c.label} for c in plan.cells if c.id in ledger.failed]
    if failed:
        outcome["code"] = 1
        outcome["failures"] = [
            {key: row[key] for key in ("label", "cell_id", "cause", "message", "remedy")}
            for row in failed[:_SHOWN_FAILURES]
        ]
        outcome["next"] = "mend what the failures name, then `retry` and the same command again"
        for row in failed[:_SHOWN_FAILURES]:
            console.print(
                f"failed: {row['label']} [{row['cell_id'][:12]}] ({row['cause']}): "
                f"{row['message']} → {row['remedy']}",
                markup=False,
            )
        if len(failed) > _SHOWN_FAILURES:
            console.print(f"… and {len(failed) - _SHOWN_FAILURES} more; see the report")
    console.print(f"report: {outcome['report']}", markup=False)
    return outcome


def _work(
    plan: Plan, store: Store, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Runs what is left on the chosen executor, and tells how far the estimate was off."""
    note = partial(console.print, markup=False)
    with ExitStack() as closing, telling(store.place, plan.study.name, note) as publish:
        # Imported here: torch, transformers and Ray take seconds, and finished results need none.
        from orchestrator.drive import drive

        if options.executor == "ray":
            closing.enter_context(_on_cluster(store, options, console))
        ledger = store.ledger(plan.cells)
        left = todo(plan, ledger)
        if not left:  # Another run did it while this one waited.
            return {}
        open_executor = _ray_executor if options.executor == "ray" else _inline_executor
        sizes = ModelSizes(plan.cells, recorded_sizes(store.place, plan.cells, ledger.done))
        executor, how, machines = open_executor(store, left, sizes, options, console)
        closing.callback(executor.close)
        expected = estimate_plan(plan, store.place, ledger, left, machines)
        console.print(f"estimate: {brief(expected)}", markup=False)
        wanted = executor.workers[1]
        guesses = expected.seconds_by_kind
        view = ProgressView(plan.cells, ledger.done, console, wanted, publish, guesses)
        others = _meters(plan, view) if options.executor == "ray" else []
        how = replace(how, chains=expected.chains)
        states = drive(plan, store, executor, view, how, others).states
    # What failed or waits for it took no time: then there is nothing to compare.
    whole = all(states[cell.id] == "done" for cell in left)
    against = f"; the estimate was {brief(expected)}" if whole else ""
    console.print(f"done in {duration(view.seconds)}{against}", markup=False)
    seconds = {"worked_seconds": round(view.seconds, 1)}
    return seconds | ({"estimated_seconds": round(expected.seconds, 1)} if whole else {})


def _meters(plan: Plan, view: ProgressView) -> list["Watcher"]:
    from orchestrator.metrics import RunMeter

    return [RunMeter(plan.study.name, plan.cells, view.remaining_seconds)]


@contextmanager
def _on_cluster(store: Store, options: argparse.Namespace, console: Console) -> Iterator[None]:
    """Joins or starts a cluster, and keeps its other drivers out of the results.

    The executor's end, or the process's, leaves the cluster.
    """
    from orchestrator.cluster import connect
    from orchestrator.lease import lease

    connect(options.address)
    # A folder is known by its id, since machines have different paths to it; a URL is one name.
    name = store.id if store.place.is_local else store.place.address
    with lease(name, lambda holder: _say_waiting(console, f" ({holder})")):
        yield


def _check_gpus(left: Sequence[Cell], gpus_per_worker: float, remedy: str) -> None:
    """Refuses work that needs more GPUs at once than a worker has.

    Raises:
        UsageError: There is some.
    """
    most = max(left, key=lambda cell: gpus(cell.work))
    needed = gpus(most.work)
    if needed > max(1, gpus_per_worker):
        raise UsageError(
            f"{most.label} needs {needed} GPUs at once, and a worker has {gpus_per_worker:g}",
            remedy.format(needed=needed, stage=most.work.stage),
        )


def _ray_executor(
    store: Store,
    left: Sequence[Cell],
    sizes: ModelSizes,
    options: argparse.Namespace,
    console: Console,
) -> tuple["Executor", "How", Machines]:
    from orchestrator.actors import RayExecutor
    from orchestrator.cache import serve_files
    from orchestrator.cluster import divide, machines_of, seat
    from orchestrator.drive import How
    from orchestrator.node_types import startable, told_gpus
    from orchestrator.receipts import stream_receipts
    from workers.remote import open_files
    from workers.stream import stream_task

    tasks = len({cell.group for cell in left})
    most = min(tasks, options.workers or tasks)
    coming = startable(told_gpus(options.scale_to) if options.scale_to else ())
    shape = divide(options.device, options.threads, most, options.gpus_per_worker or 1, coming)
    if shape.device == "cuda" and options.gpus_per_worker is not None:
        remedy = "run `{stage}` with --gpus-per-worker {needed}, then the same command again"
        _check_gpus(left, shape.gpus, remedy)
    seats, of_group = seat(shape, options.gpus_per_worker, left, sizes, coming)
    machines = machines_of(shape)
    if seats:
        shape = replace(shape, actors=min(most, sum(seat.most for seat in seats.values())))
    workers = f"{shape.actors} workers of {shape.threads} threads on {shape.device}"
    kinds = ", ".join(seats or ())
    console.print(f"up to {workers}, as there is work: {kinds}" if kinds else workers, markup=False)
    files = partial(
        open_files,
        store.place,
        store.id,
        serve_files(store.place),
        disk_budget=options.disk_budget,
    )
    body = stream_task if store.place.is_local else partial(stream_receipts, store.place)
    how = How(shape.device, shape.threads, options.limit, of_group)
    return RayExecutor(shape, files, body, seats), how, machines


def _inline_executor(
    store: Store,
    left: Sequence[Cell],
    _sizes: ModelSizes,
    options: argparse.Namespace,
    _console: Console,
) -> tuple["Executor", "How", Machines]:
    import torch

    from orchestrator.drive import How
    from orchestrator.inline import InlineExecutor
    from workers.remote import open_files

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UsageError(
            f"--device {device}, but this machine has none", "use --device cpu or auto"
        )
    if device == "cuda":
        remedy = "use a machine with {needed} GPUs, or lower what asks for them in the study"
        _check_gpus(left, torch.cuda.device_count(), remedy)
    threads = options.threads or threads_per_worker(os.cpu_count() or 1)
    files = open_files(store.place, store.id, disk_budget=options.disk_budget)
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    machines = run_machines(device, 1, threads, nodes=1, gpu=gpu, startup_seconds=0.0)
    return InlineExecutor(files), How(device, threads, options.limit), machines


def _say_waiting(console: Console, holder: str) -> None:
    console.print(
        f"another run is at work on these results{holder}: waiting for its end", markup=False
    )
