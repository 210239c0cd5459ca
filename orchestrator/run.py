"""The command line: `python -m orchestrator.run COMMAND`, or `eigentrace COMMAND`.

Only what a command needs is imported: `plan` and a `full` without work touch neither torch nor Ray.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from jobs.errors import UsageError
from jobs.place import Place
from jobs.study import load_study
from orchestrator import audit_command, commands, doctor, logs, report_command, status, upkeep
from orchestrator.hub_index import HubIndex, Progress
from orchestrator.options import parser
from orchestrator.plan import make_plan

_TOLD_EVERY_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 all done; 1 some cells failed; 2 the user's mistake; 130 interrupted.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # As nohup sets it.
            signal.signal(number, _interrupt)
    started = time.monotonic()
    console = Console(soft_wrap=True, highlight=False)
    try:
        options = parser().parse_args(arguments)
        console.stderr = bool(getattr(options, "json", False))
        outcome = _run(options, console)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        outcome = {"code": 2, "error": str(error)}
    except KeyboardInterrupt:
        console.print("interrupted: finished cells are kept; the same command goes on from here")
        outcome = {"code": 130, "next": "run the same command again: it goes on from here"}
    outcome.setdefault("seconds", round(time.monotonic() - started, 1))
    try:
        print(json.dumps(outcome), flush=True)
    except BrokenPipeError:  # Whoever read the output has had enough, as in `plan | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(outcome["code"])


def _run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    match options.command:
        case "init":
            return upkeep.init(Path(options.path), options.schema)
        case "doctor":
            return doctor.doctor(results_place(options.results), console)
        case "diff":
            first, second = Place(options.first), Place(options.second)
            return upkeep.diff(first, second, options.tolerance, console)
        case "export":
            places = [Place(place) for place in options.places] or [results_place(None)]
            return upkeep.export(places, options, console)
    results = results_place(options.results)
    console.print(f"results: {results}", markup=False)
    match options.command:
        case "report":
            return report_command.run(results, options, console)
        case "advise":
            return upkeep.advise(results, options.json, console)
        case "retry":
            return upkeep.retry(results, options.cause, options.cell)
        case "compact":
            return upkeep.compact(results, console)
        case "logs":
            return logs.logs(results, options.cell, console)
    index = HubIndex(refresh=options.refresh, progress=_listing(console))
    study = options.study or status.study_here(results, console)
    plan = make_plan(load_study(study, options.set), index)
    match options.command:
        case "plan" | "status":
            return status.show(plan, results, options, console)
        case "audit":
            return audit_command.audit(plan, results, console)
        case command:
            return commands.run(plan, results, command, options, console)


def _listing(console: Console) -> Progress:
    """Returns what tells, every few seconds, how far the listing of a repository is."""
    told = time.monotonic()

    def tell(repository: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_EVERY_SECONDS:
            told = time.monotonic()
            console.print(f"listing {repository}: {done} of {total} revisions", markup=False)

    return tell


def results_place(given: str | None) -> Place:
    """Returns the place of the results: as given, from the environment, or the usual one.

    Inside a Ray job the working directory is thrown away, so results go to the home folder.
    """
    if given or (given := os.environ.get("EIGENTRACE_RESULTS")):
        return Place(given)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return Place(Path.home() / "eigentrace" / "results")
    return Place("results")


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def console() -> NoReturn:
    """Runs one command and ends the process with its exit code."""
    code = main()
    if any(thread.name == "task" for thread in threading.enumerate()):
        # It would not stop in time, and native code aborts if Python goes away beneath it.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    console()
