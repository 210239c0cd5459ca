"""Cases run in forked children, many in each, so that none can hurt the process that tests.

A child that hangs, dies or eats its memory costs the case at hand; the next one starts afresh.
"""

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.errors import shortened

Body = Callable[[int], dict[str, Any]]
"""Runs a case and returns what JSON can hold of it: `wrong` says what was wrong, if anything, and
`more_seconds` how much longer than others it may take."""

PER_CHILD = 100
WALL_SECONDS = 120.0
"""Long, since other work may keep the machine busy: the processor's own time says more."""


def run_cases(
    cases: Sequence[int],
    prepare: Callable[[], Body],
    log: Path,
    processor_seconds: float,
    memory: int | None = None,
    per_child: int = PER_CHILD,
    wall_seconds: float = WALL_SECONDS,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Runs every case, one after the other, and yields it with its outcome.

    Args:
        cases: The cases.
        prepare: Called in each child; returns what runs a case.
        log: Takes what native code prints, so that a crash can tell why.
        processor_seconds: What a case may take of the processor.
        memory: Bytes that a child may take beyond what it has from its parent.
        per_child: Cases of one child.
        wall_seconds: After so long a case is killed.
    """
    left = list(cases)
    while left:
        batch = left[:per_child]
        done = 0
        for case, outcome in _child(batch, prepare, log, memory, wall_seconds):
            seconds = outcome.get("processor", 0.0)
            most = processor_seconds + outcome.get("more_seconds", 0.0)
            if seconds > most and not outcome.get("wrong"):
                outcome["wrong"] = f"it took {seconds:.1f} s of the processor"
            done += 1
            yield case, outcome
        left = left[done:]


def _child(
    batch: list[int],
    prepare: Callable[[], Body],
    log: Path,
    memory: int | None,
    wall_seconds: float,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the outcomes of one child: of all its cases, or up to the one that ended it."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(batch, prepare, log, memory, writing)
    os.close(writing)
    pending = b""
    try:
        for case in batch:
            until = time.monotonic() + wall_seconds
            while b"\n" not in pending:
                ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
                if not ready:
                    yield case, {"wrong": f"it hung for {wall_seconds:g} s; {_tail(log)}"}
                    return
                piece = os.read(reading, 2**16)
                if not piece:
                    yield case, {"wrong": f"its process died; {_tail(log)}"}
                    return
                pending += piece
            line, _, pending = pending.partition(b"\n")
            yield case, json.loads(line)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _work(
    batch: list[int], prepare: Callable[[], Body], log: Path, memory: int | None, writing: int
) -> None:
    """Runs a batch and ends the process."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        if memory is not None:
            most = _virtual_bytes() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        body = prepare()
        for case in batch:
            started = time.process_time()
            try:
                outcome = body(case)
            except BaseException:  # noqa: BLE001
                outcome = {"wrong": traceback.format_exc()}
            outcome["processor"] = time.process_time() - started
            os.write(writing, json.dumps(outcome).encode() + b"\n")
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(0)


def _virtual_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _tail(log: Path) -> str:
    text = log.read_text(errors="replace").strip()
    return shortened(text, 4_000) or "it printed nothing"
