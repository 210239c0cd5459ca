"""Runs a study: what is left of it goes to an executor, and then the report is drawn."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jobs.errors import UsageError
from jobs.place import Place
from jobs.spec import Study
from jobs.work import StageName
from orchestrator.live import telling
from orchestrator.plan import Plan, make_plan
from orchestrator.progress import ProgressView, duration
from orchestrator.status import counts, todo
from orchestrator.store import Store
from orchestrator.upkeep import report

if TYPE_CHECKING:
    from orchestrator.drive import Executor, How

_STAGES: tuple[StageName, ...] = ("fetch", "geometry", "head", "evals")
_SHOWN_FAILURES = 5


def run(
    study: Study, place: Place, command: str, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Runs the cells that are left, and draws the report."""
    plan = make_plan(study)
    if command != "full":
        plan = plan.only([stage for stage in _STAGES if stage == command])
    store = Store(place)
    ledger = store.ledger(plan.cells)
    left = todo(plan, ledger)
    console.print(
        f"study {study.name}: {len(plan.cells)} cells, {len(plan.cells) - len(left)} done or "
        f"given up, {len(left)} to do",
        markup=False,
    )
    if left:
        with store.lease(lambda: _say_waiting(console, "")):
            _work(plan, store, options, console)
        ledger = store.ledger(plan.cells)
    outcome = counts(plan, ledger) | report(place, study.name, ledger=ledger)
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


def _work(plan: Plan, store: Store, options: argparse.Namespace, console: Console) -> None:
    """Runs what is left on the chosen executor."""
    # Imported here: torch, transformers and Ray take seconds, and finished results need none.
    from orchestrator.drive import drive

    with _on_cluster(store, options, console) if options.executor == "ray" else nullcontext():
        ledger = store.ledger(plan.cells)
        left = todo(plan, ledger)
        if not left:  # Another run did it while this one waited.
            return
        open_executor = _ray_executor if options.executor == "ray" else _inline_executor
        executor, how = open_executor(store, len({cell.group for cell in left}), options, console)
        note = partial(console.print, markup=False)
        try:
            with telling(store.place, plan.study.name, note) as publish:
                wanted = executor.workers[1]
                view = ProgressView(plan.cells, ledger.done, console, wanted, publish)
                drive(plan, store, executor, view, how)
        finally:
            executor.close()
    console.print(f"done in {duration(view.seconds)}", markup=False)


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


def _ray_executor(
    store: Store, tasks: int, options: argparse.Namespace, console: Console
) -> tuple["Executor", "How"]:
    from orchestrator.actors import RayExecutor
    from orchestrator.cache import serve_files
    from orchestrator.cluster import divide
    from orchestrator.drive import How
    from orchestrator.receipts import stream_receipts
    from workers.remote import open_files
    from workers.stream import stream_task

    shape = divide(options.device, options.threads, min(tasks, options.workers or tasks))
    console.print(
        f"{shape.actors} workers of {shape.threads} threads on {shape.device}", markup=False
    )
    files = partial(
        open_files,
        store.place,
        store.id,
        serve_files(store.place),
        disk_budget=options.disk_budget,
    )
    body = stream_task if store.place.is_local else partial(stream_receipts, store.place)
    return RayExecutor(shape, files, body), How(shape.device, shape.threads, options.limit)


def _inline_executor(
    store: Store, _tasks: int, options: argparse.Namespace, _console: Console
) -> tuple["Executor", "How"]:
    import torch

    from orchestrator.drive import How, threads_per_worker
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
    threads = options.threads or threads_per_worker(os.cpu_count() or 1)
    files = open_files(store.place, store.id, disk_budget=options.disk_budget)
    executor = InlineExecutor(files)
    return executor, How(device, threads, options.limit)


def _say_waiting(console: Console, holder: str) -> None:
    console.print(
        f"another run is at work on these results{holder}: waiting for its end", markup=False
    )
