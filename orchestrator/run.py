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
from typing import Any, NoReturn, get_args

from rich.console import Console

import jobs
from jobs.errors import Cause, UsageError
from jobs.study import load_study, shipped_studies
from orchestrator import commands

_RUNNING = {
    "full": "run every stage of the study and draw the report",
    "fetch": "make or check the checkpoints, corpora and sequences, and stop there",
    "geometry": "run the spectra of the features and what they need",
    "head": "run the LM head's measurements and what they need",
    "evals": "run the held-out loss and what it needs",
}


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
        options = _parser().parse_args(arguments)
        console.stderr = bool(getattr(options, "json", False))
        outcome = _run(options, console)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        outcome = {"code": 2, "error": str(error)}
    except KeyboardInterrupt:
        console.print("interrupted: finished cells are kept; the same command goes on from here")
        outcome = {"code": 130}
    outcome.setdefault("seconds", round(time.monotonic() - started, 1))
    try:
        print(json.dumps(outcome), flush=True)
    except BrokenPipeError:  # Whoever read the output has had enough, as in `plan | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(outcome["code"])


def _run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    match options.command:
        case "init":
            return commands.init(Path(options.path), options.schema)
        case "doctor":
            return commands.doctor(results_place(options.results), console)
    results = results_place(options.results)
    console.print(f"results: {results}", markup=False)
    match options.command:
        case "report":
            return commands.report(results, options.study, force=True)
        case "retry":
            return commands.retry(results, options.cause, options.cell)
    study = load_study(options.study, options.set)
    match options.command:
        case "plan" | "status":
            return commands.show(study, results, options, console)
        case command:
            return commands.run(study, results, command, options, console)


def results_place(given: str | None) -> Path:
    """Returns the results folder: as given, from the environment, or the usual place.

    Inside a Ray job the working directory is thrown away, so results go to the home folder.
    """
    if given or (given := os.environ.get("EIGENTRACE_RESULTS")):
        if "://" in given:
            raise UsageError(
                f"results at the URL {given} are not supported yet", "name a folder with --results"
            )
        return Path(given).expanduser().absolute()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return Path.home() / "eigentrace" / "results"
    return Path("results").absolute()


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints end like every other mistake of the user's."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def _parser() -> _Parser:
    parser = _Parser(
        prog="eigentrace",
        description="Trace how the geometry of a language model changes during training.",
        epilog="exit codes: 0 all done, 1 some cells failed, 2 a mistake in the command or study, "
        "130 interrupted; the last line printed is JSON with the code",
    )
    parser.add_argument("--version", action="version", version=f"eigentrace {jobs.__version__}")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    place = _Parser(add_help=False)
    place.add_argument(
        "--results",
        metavar="PATH",
        help="results folder; default $EIGENTRACE_RESULTS, else ./results, or in a Ray job "
        "~/eigentrace/results",
    )
    study = _Parser(add_help=False)
    study.add_argument(
        "--study",
        default="pico",
        metavar="NAME_OR_PATH",
        help=f"a shipped study ({', '.join(shipped_studies())}) or a .toml file; default pico",
    )
    study.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override a field of the study, as in geometry.layers=all; repeatable",
    )
    for name, text in _RUNNING.items():
        command = subcommands.add_parser(name, parents=[place, study], help=text, description=text)
        _add_execution(command)
    for name, text in {
        "plan": "list the study's cells without running any",
        "status": "tell which cells are done, failed and left",
    }.items():
        command = subcommands.add_parser(name, parents=[place, study], help=text, description=text)
        command.add_argument("--json", action="store_true", help="print JSON alone to stdout")
    report = "draw the report from the results"
    subcommands.add_parser("report", parents=[place, study], help=report, description=report)
    text = "clear failures so that the next run tries those cells again"
    retry = subcommands.add_parser("retry", parents=[place], help=text, description=text)
    retry.add_argument("--cause", choices=get_args(Cause), help="only failures of this cause")
    retry.add_argument("--cell", metavar="ID", help="only the cell whose id starts so")
    text = "write a commented study to start from"
    init = subcommands.add_parser("init", help=text, description=text)
    init.add_argument("path", nargs="?", default="study.toml", help="default study.toml")
    init.add_argument("--schema", action="store_true", help="print the JSON Schema of studies")
    text = "check versions, devices, access and the results folder"
    subcommands.add_parser("doctor", parents=[place], help=text, description=text)
    return parser


def _add_execution(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("where it runs")
    group.add_argument(
        "--executor",
        choices=("ray", "inline"),
        default="ray",
        help="ray joins a running cluster or starts a local one; inline uses this process alone",
    )
    group.add_argument("--address", help="address of the Ray cluster; default: the one found")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="auto takes GPUs where there are some or the autoscaler could start some",
    )
    group.add_argument("--threads", type=_positive, help="CPU threads of each worker")
    group.add_argument("--workers", type=_positive, help="most workers at a time")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


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
