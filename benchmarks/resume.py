"""A second `full` of a study that is finished, by the clock: what finding nothing to do takes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.limits import Figure, median_of

_STUDY = "smoke"
_ROUNDS = 5
_LONGEST_SECONDS = 600


def figures() -> list[Figure]:
    """Seconds of the first run, and of those after it."""
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        first = _full(Path(folder))
        again = [_full(Path(folder)) for _ in range(_ROUNDS)]
    return [
        Figure(f"full of {_STUDY}, in process", first, "s"),
        median_of(f"full of {_STUDY}, once it is finished", again, "s", "< 3"),
    ]


def _full(folder: Path) -> float:
    command = [sys.executable, "-m", "orchestrator.run", "full", "--study", _STUDY]
    where = ["--executor", "inline", "--results", str(folder / "results")]
    environment = os.environ | {"EIGENTRACE_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    run = subprocess.run(
        [*command, *where],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    seconds = time.perf_counter() - started
    if run.returncode:
        raise RuntimeError(f"full ended with {run.returncode}: {run.stdout[-2000:]}{run.stderr}")
    return seconds
