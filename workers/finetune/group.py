"""Processes of this machine that train together, each of which runs the same function.

Invariant: none outlives the call that started it, nor the process that made the call, however that
one ends. They talk to each other over the loopback interface and a file, and to nobody else.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from traceback import format_exception
from typing import Any

import torch
from torch import distributed
from tqdm import tqdm

from jobs.errors import EigentraceError

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
# How long one waits for the others: the first one writes checkpoints and reads records alone.
_PATIENCE = timedelta(hours=2)
_ENDING_SECONDS = 10.0

_Word = tuple[str, Any]
"""What a process tells: ("progress", (done, total)), ("result", …), ("error", (when, error))."""


def together(
    count: int,
    device: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    report: Callable[[int, int], None],
) -> Any:
    """Runs a function in several processes that torch.distributed joins.

    Args:
        count: How many processes.
        device: `cpu` or `cuda`; on the latter, process n has the n-th GPU that is visible here.
        function: A module's function; called with the arguments, the device and what takes its
            progress.
        arguments: What can be pickled.
        report: Told what the first process tells of its progress.

    Returns:
        What the first process returns.

    Raises:
        Exception: The first error that any of them met.
        ChildProcessError: One is gone without a word, as one that is killed.
    """
    context = get_context("spawn")  # A fork would copy torch's threads in whatever state they are.
    members: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory(prefix="eigentrace-") as folder:
        meeting = Path(folder) / "meeting"
        try:
            for rank in range(count):
                ear, mouth = context.Pipe()
                with mouth:
                    member = context.Process(
                        target=_member,
                        args=(rank, count, meeting, mouth, function, arguments, device),
                        name=f"trainer {rank + 1} of {count}",
                    )
                    members[ear] = member
                    member.start()
            found = _listen(members, report)
            for ear, done in members.items():
                ear.close()
                done.join(_ENDING_SECONDS)
            return found
        finally:
            for ear, left in members.items():
                ear.close()
                if left.pid is not None:
                    left.kill()
                    left.join()


def first() -> bool:
    """Returns whether this process is the first of its group, or has none."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def in_any(fact: bool) -> bool:
    """Returns whether a fact holds in any process of the group, once all have come here."""
    if not distributed.is_initialized():
        return fact
    found = torch.tensor(int(fact))
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found)


def _listen(members: dict[Connection, BaseProcess], report: Callable[[int, int], None]) -> Any:
    """Returns what the first process returns, once all have come to their end."""
    results: dict[Connection, Any] = {}
    while len(results) < len(members):
        errors: list[tuple[float, BaseException]] = []
        for ear in wait([each for each in members if each not in results]):
            assert isinstance(ear, Connection)
            try:
                kind, told = ear.recv()
            except EOFError:
                raise _lost(members[ear]) from None
            if kind == "progress":
                report(*told)
            elif kind == "result":
                results[ear] = told
            else:
                errors.append(told)
        if errors:
            # The others lose one that has met an error, and that is an error of theirs.
            raise min(errors, key=lambda each: each[0])[1]
    return results[next(iter(members))]


def _lost(member: BaseProcess) -> ChildProcessError:
    member.join()
    return ChildProcessError(f"{member.name} is gone without a word, exit code {member.exitcode}")


def _member(
    rank: int,
    count: int,
    meeting: Path,
    mouth: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    device: str,
) -> None:
    """Runs the function as one process of the group."""
    threading.Thread(target=_end_with_parent, name="watch", daemon=True).start()
    tqdm.set_lock(threading.RLock())  # Its own is a semaphore that a killed process leaves behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The caller decides what an interrupt ends.
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ.update(dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), _LOOPBACK))

    def report(done: int, total: int) -> None:
        if rank == 0:
            mouth.send(("progress", (done, total)))

    word: _Word
    try:
        distributed.init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            init_method=meeting.as_uri(),
            rank=rank,
            world_size=count,
            timeout=_PATIENCE,
        )
        found = function(*arguments, device, report)
        word = "result", found if rank == 0 else None
    except Exception as error:  # noqa: BLE001 - it is raised where the group was called.
        told = _portable(error)
        told.add_note(f"in trainer {rank + 1} of {count}:\n{''.join(format_exception(error))}")
        word = "error", (time.monotonic(), told)
    mouth.send(word)
    with suppress(EOFError):
        mouth.recv()  # Until the caller has heard all of them, none misses another.


def _portable(error: Exception) -> Exception:
    """Returns an error that another process can read, and of a type that tells the cause."""
    known = isinstance(error, EigentraceError | MemoryError | torch.OutOfMemoryError)
    if known or type(error) in (OSError, RuntimeError):
        return error
    if isinstance(error, OSError):
        return OSError(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Ends this process with the one that started it, whatever it is waiting for."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
