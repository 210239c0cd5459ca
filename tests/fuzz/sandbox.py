"""Where a child works, and commands in it: nothing beyond it is written, nothing beyond is told."""

import contextlib
import io
import os
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator import run
from orchestrator.plan import Plan, make_plan


@dataclass(frozen=True)
class Sandbox:
    """Folders of a child: what it reads, and all that it may write.

    Attributes:
        root: Holds the others.
    """

    root: Path

    @property
    def inputs(self) -> Path:
        """Working directory, with what studies name; never written."""
        return self.root / "inputs"

    @property
    def studies(self) -> Path:
        """Where mutated studies lie; never written by what reads them."""
        return self.root / "studies"

    @property
    def writable(self) -> tuple[Path, ...]:
        """What may be written: results, cache and temporary files."""
        return tuple(self.root / name for name in ("results", "cache", "tmp"))

    def enter(self) -> None:
        """Makes this process work here, and nowhere else."""
        for folder in (self.studies, *self.writable):
            folder.mkdir(parents=True, exist_ok=True)
        results, cache, temporary = map(str, self.writable)
        os.environ |= {"EIGENTRACE_CACHE": cache, "EIGENTRACE_RESULTS": results}
        os.environ |= {"TMPDIR": temporary, "HOME": cache}
        tempfile.tempdir = temporary
        os.chdir(self.inputs)


@dataclass(frozen=True)
class Called:
    """What a command left behind.

    Attributes:
        code: Its exit code; None where an exception left it.
        out: Standard output.
        error: Standard error.
        plans: The plans that it made.
    """

    code: int | None
    out: str
    error: str
    plans: list[Plan] = field(default_factory=list)


def call(arguments: Iterable[str]) -> Called:
    """Runs a command in this process, with streams that are as strict as real ones."""
    plans: list[Plan] = []

    def noting(*given: Any, **options: Any) -> Plan:
        plans.append(make_plan(*given, **options))
        return plans[-1]

    out, error = io.BytesIO(), io.BytesIO()
    stdout = io.TextIOWrapper(out, "utf-8", "strict", "\n", write_through=True)
    stderr = io.TextIOWrapper(error, "utf-8", "backslashreplace", "\n", write_through=True)
    code: int | None = None
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("orchestrator.run.make_plan", noting)
        try:
            code = run.main(tuple(arguments))
        except SystemExit as left:
            stderr.write(f"Traceback: SystemExit {left.code}")
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
    return Called(code, out.getvalue().decode(), error.getvalue().decode(), plans)
