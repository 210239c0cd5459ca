"""The options of every command, with their help texts. Reads the command line, does nothing."""

import argparse
from typing import Any, NoReturn, get_args

import jobs
from jobs.errors import Cause, UsageError
from jobs.study import shipped_studies
from jobs.work import KINDS
from orchestrator.hardware import GPUS
from orchestrator.option_values import Limit, amount, fraction, port, positive, share, size, width

USUAL = "pico"
"""The study that a command is about unless another is named."""

_RUNNING = {
    "full": "run every stage of the study and draw the report",
    "fetch": "make or check the checkpoints, corpora and sequences, and stop there",
    "geometry": "run the spectra of the features and what they need",
    "head": "run the LM head's measurements and what they need",
    "evals": "run the held-out loss and the tasks, and what they need",
    "ablation": "run the tasks without top eigenvectors, and what that needs",
    "memorization": "compare the checkpoints with an ∞-gram model, and what that needs",
    "generate": "continue the prompts, and what that needs",
    "finetune": "fine-tune the checkpoints, and what that needs",
    "posttrain": "post-train the checkpoints, and what that needs",
    "passk": "sample answers from the checkpoints, and what that needs",
    "toy": "run the sweeps of the tractable model",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints end like every other mistake of the user's."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line; a mistake in it is a UsageError."""
    whole = _Parser(
        prog="eigentrace",
        description="Trace how the geometry of a language model changes during training.",
        epilog="exit codes: 0 all done, 1 some cells failed, 2 a mistake in the command or study, "
        "130 interrupted; the last line printed is JSON with the code",
    )
    whole.add_argument("--version", action="version", version=f"eigentrace {jobs.__version__}")
    subcommands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    place = _Parser(add_help=False)
    place.add_argument(
        "--results",
        metavar="PATH_OR_URL",
        help="folder of the results, or s3://bucket/prefix or gs://…; default "
        "$EIGENTRACE_RESULTS, else ./results, or in a Ray job ~/eigentrace/results",
    )
    study = _study(USUAL, USUAL)
    here = _study(None, "that of the run at work, else of the report")
    asking = _Parser(add_help=False)
    asking.add_argument(
        "--refresh",
        action="store_true",
        help="ask the hub anew what branches point to, instead of taking what is remembered",
    )
    for name, text in _RUNNING.items():
        command = subcommands.add_parser(
            name, parents=[place, study, asking], help=text, description=text
        )
        _add_execution(command)
    for name, text in {
        "plan": "count the study's cells, and estimate what is left of them, without running any",
        "status": "tell which cells are done, failed and left, and what runs now",
        "audit": "tell which checkpoints are not what they claim, without fetching weights",
    }.items():
        command = subcommands.add_parser(
            name,
            parents=[place, here if name == "status" else study, asking],
            help=text,
            description=text,
        )
        command.add_argument("--json", action="store_true", help="print JSON alone to stdout")
        if name == "plan":
            _add_machines(command)
        if name == "status":
            command.add_argument("--watch", action="store_true", help="follow the run to its end")
    _add_report(subcommands, [place, _study(None, "the study of the report that is there")])
    text = "tell which checkpoint to fine-tune, as far as geometry can tell"
    advise = subcommands.add_parser("advise", parents=[place], help=text, description=text)
    advise.add_argument("--json", action="store_true", help="print JSON alone to stdout")
    text = "clear failures so that the next run tries those cells again"
    retry = subcommands.add_parser("retry", parents=[place], help=text, description=text)
    retry.add_argument("--cause", choices=get_args(Cause), help="only failures of this cause")
    retry.add_argument("--cell", metavar="ID", help="only failed cells whose id begins so")
    text = "tell where a cell ran, and how it ended or stands"
    logs = subcommands.add_parser("logs", parents=[place], help=text, description=text)
    logs.add_argument("cell", metavar="ID", help="how the cell's id begins")
    text = "merge the files of many cells into few, for quicker reading"
    subcommands.add_parser("compact", parents=[place], help=text, description=text)
    text = "tell what differs between two results, beyond how they came to be"
    diff = subcommands.add_parser("diff", help=text, description=text)
    for name in ("first", "second"):
        diff.add_argument(name, metavar=name.upper(), help="folder or URL of results")
    diff.add_argument(
        "--tolerance",
        type=fraction,
        default=0.0,
        metavar="R",
        help="relative difference up to which numbers count as equal; default 0",
    )
    _add_export(subcommands)
    text = "write a commented study to start from"
    init = subcommands.add_parser("init", help=text, description=text)
    init.add_argument("path", nargs="?", default="study.toml", help="default study.toml")
    init.add_argument("--schema", action="store_true", help="print the JSON Schema of studies")
    text = "check versions, devices, access and the results folder"
    subcommands.add_parser("doctor", parents=[place], help=text, description=text)
    return whole


def _study(default: str | None, told: str) -> _Parser:
    study = _Parser(add_help=False)
    study.add_argument(
        "--study",
        default=default,
        metavar="NAME_OR_PATH",
        help=f"a shipped study ({', '.join(shipped_studies())}) or a .toml file; default {told}",
    )
    study.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override a field of the study, as in geometry.layers=all; repeatable",
    )
    return study


def _add_report(subcommands: Any, parents: list[_Parser]) -> None:
    text = "draw the report from the results, or single figures of it"
    report = subcommands.add_parser("report", parents=parents, help=text, description=text)
    report.add_argument(
        "--format",
        choices=("html", "pdf", "png", "svg"),
        default="html",
        help="html: the page, the default; else single figures, for a paper",
    )
    report.add_argument(
        "--figure",
        action="append",
        metavar="KEY",
        help="a figure by the name of its file; repeatable, default all",
    )
    report.add_argument(
        "--out", metavar="FOLDER", help="folder of the figures; default figures in the results"
    )
    report.add_argument(
        "--width", type=width, metavar="CM", help="width of the figures; default 8.4, one column"
    )
    report.add_argument(
        "--watch", action="store_true", help="serve the page, and draw it anew as results come"
    )
    report.add_argument("--port", type=port, metavar="N", help="where to serve; default a free one")


def _add_export(subcommands: Any) -> None:
    text = "write results, of one or of several people, as a data set for others"
    export = subcommands.add_parser("export", help=text, description=text)
    export.add_argument(
        "places",
        nargs="*",
        metavar="RESULTS",
        help="folders or URLs of results, joined by the checkpoints' weights; default as "
        "for --results of other commands",
    )
    export.add_argument("--to", required=True, metavar="FOLDER", help="a new or an empty folder")
    export.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    export.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="license for the card, as the hub names it; default unknown",
    )
    export.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="what to call the results in the column source, once for each in their order; "
        "default 1, 2 …",
    )
    export.add_argument(
        "--tolerance",
        type=fraction,
        default=1e-3,
        metavar="R",
        help="relative difference up to which numbers count as equal; default 1e-3",
    )


def _add_execution(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("where it runs")
    group.add_argument(
        "--executor",
        choices=("ray", "inline"),
        default="ray",
        help="ray joins a running cluster or starts a local one; inline uses this process alone",
    )
    group.add_argument(
        "--address",
        help="address of the Ray cluster, or `local` for one of its own; default: the one found",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="auto takes GPUs where there are some or the autoscaler could start some",
    )
    group.add_argument("--threads", type=positive, help="CPU threads of each worker")
    group.add_argument("--workers", type=positive, help="most workers at a time")
    group.add_argument(
        "--gpus-per-worker",
        type=share,
        metavar="N",
        help="GPUs that every worker has, or the share of one, as 0.5 for two workers on each; "
        "default: what the models need, and none for work that no GPU helps",
    )
    group.add_argument(
        "--scale-to",
        metavar="GPUS",
        help="GPUs that the autoscaler may start, where Ray doesn't tell, as on Kubernetes: 8, "
        "8xA100, or 2x4xA10G for two nodes of four",
    )
    group.add_argument(
        "--disk-budget",
        type=size,
        metavar="SIZE",
        help="most disk that each node's cache of hub files takes, as in 200GB; default "
        "$EIGENTRACE_DISK_BUDGET on the node, else four fifths of its free disk",
    )
    group.add_argument(
        "--limit",
        action=Limit,
        default={},
        metavar="KIND=SECONDS",
        help="time without headway after which a cell of a kind counts as hung and is tried again; "
        f"kinds: {', '.join(KINDS)}; repeatable",
    )


def _add_machines(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what the estimate is for; default: this machine")
    group.add_argument("--gpus", type=positive, metavar="N", help="so many GPUs; default 1")
    group.add_argument(
        "--gpu-type", choices=tuple(GPUS), metavar="TYPE", help=f"{', '.join(GPUS)}; default h100"
    )
    group.add_argument(
        "--cluster",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="the Ray cluster at that address, or the one found; asking it takes seconds",
    )
    group.add_argument("--workers", type=positive, help="most workers on this machine")
    group.add_argument("--threads", type=positive, help="CPU threads of each of them")
    group.add_argument("--price", type=amount, help="price of a GPU hour, in any currency")
    group.add_argument(
        "--bandwidth",
        type=size,
        metavar="SIZE",
        help="what each node fetches from the hub in a second; default 125MB (1 Gbit/s)",
    )
    group.add_argument(
        "--simulate",
        action="store_true",
        help="compute the run on those machines with the real scheduler, in simulated time",
    )
    group.add_argument(
        "--boot-seconds",
        type=amount,
        metavar="SECONDS",
        help="simulated nodes come with the demand, after so long, and go when they are idle; "
        "default: all are there from the beginning to the end",
    )
    group.add_argument(
        "--losses-per-hour",
        type=amount,
        metavar="N",
        help="how often a simulated node is taken away in each hour, as spot machines are",
    )
