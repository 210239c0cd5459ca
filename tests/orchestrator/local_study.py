"""A study of tiny checkpoints on disk, and the command line in process or as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run import main

ROOT = Path(__file__).parents[2]


def write_study(folder: Path, series: Path, text: Path, more: str = "") -> Path:
    """Writes a study of a series of checkpoints, measured on one text in every way."""
    path = folder / "study.toml"
    path.write_text(
        f"""
name = "tiny"

[[suites]]
kind = "local"
name = "series"
path = "{series}"
tokens_per_step = 100

[datasets.words]
kind = "local"
paths = ["{text}"]
sequences = 60
sequence_length = 24
minimum_length = 2

[geometry]
datasets = ["words"]

[head]
unigram_dataset = "words"

[evals.loss]
datasets = ["words"]
{more}"""
    )
    return path


@dataclass(frozen=True)
class Outcome:
    """What a command left behind.

    Attributes:
        code: Exit code.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The last line's JSON."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


def call(*arguments: str) -> int:
    """Runs a command in this process, without the signal handlers that it leaves behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return main(arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """Runs a command in this process; its last line must tell its exit code."""
    capsys.readouterr()
    code = call(*arguments)
    captured = capsys.readouterr()
    outcome = Outcome(code, captured.out, captured.err)
    assert outcome.last["code"] == code
    return outcome


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment of a process that finds this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **(extra or {})}


def run_process(
    *arguments: str, before: str = "", after: str = "", cwd: Path | None = None
) -> Outcome:
    """Runs the command line in a process of its own, with code around it."""
    code = f"import sys\n{before}\nfrom orchestrator.run import main\ncode = main()\n{after}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nsys.exit(code)", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        cwd=cwd or ROOT,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def inline(command: str, study: Path, results: Path) -> Sequence[str]:
    """Returns the arguments of a command that runs cells in its own process."""
    return (
        command,
        *("--study", str(study)),
        *("--results", str(results)),
        *("--executor", "inline", "--threads", "1", "--device", "cpu"),
    )
