"""Processes that train together: what they tell, and that none outlives who started them."""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.errors import DataError
from workers.finetune import group

Tell = Callable[[int, int], None]


class AwkwardError(Exception):
    """An error that can't be copied to another process."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def meet(number: int, device: str, report: Tell) -> dict[str, Any]:
    """Tells who is here."""
    report(1, 2)
    rank = int(os.environ["RANK"])
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    report(2, 2)
    return {
        "given": (number, device),
        "first": group.first(),
        "any": group.in_any(rank == 1),
        "none": group.in_any(False),
        "listening": listening,
    }


def fail(deed: str, _device: str, _report: Tell) -> None:
    """Has the second process fail while the first waits for it."""
    if not group.first():
        match deed:
            case "data":
                raise DataError("bad records", "mend them")
            case "awkward":
                raise AwkwardError("not", "copied")
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
    group.in_any(False)


def note(folder: Path, _device: str, _report: Tell) -> None:
    """Leaves the process's id, and goes on for ever."""
    (folder / str(os.getpid())).touch()
    time.sleep(1000)


def call(folder: Path) -> None:
    group.together(2, "cpu", note, (folder,), print)


def children() -> list[psutil.Process]:
    """Those of this process, without the one that Python itself keeps."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def test_the_first_one_answers_for_all() -> None:
    told: list[tuple[int, int]] = []
    found = group.together(2, "cpu", meet, (7,), lambda *done: told.append(done))
    assert found["given"] == (7, "cpu")
    assert (found["first"], found["any"], found["none"]) == (True, True, False)
    assert found["listening"] <= {"127.0.0.1"}
    assert told == [(1, 2), (2, 2)]
    assert not children()


@pytest.mark.parametrize(
    ("deed", "kind", "said"),
    [
        ("data", DataError, "bad records → mend them"),
        ("awkward", RuntimeError, "AwkwardError: not copied"),
        ("killed", ChildProcessError, "trainer 2 of 2 is gone without a word, exit code -9"),
    ],
)
def test_one_that_fails_ends_all(deed: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        group.together(2, "cpu", fail, (deed,), print)
    # Where it happened is told as well, of one that could tell it.
    notes = "".join(getattr(error.value, "__notes__", ()))
    assert ("in trainer 2 of 2" in notes and "test_group.py" in notes) == (deed != "killed")
    assert not children()


def test_none_outlives_a_killed_caller(tmp_path: Path) -> None:
    caller = get_context("spawn").Process(target=call, args=(tmp_path,))
    caller.start()
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    members = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    caller.kill()
    caller.join()
    assert not psutil.wait_procs(members, timeout=20)[1]


def test_alone_there_is_no_group() -> None:
    assert group.first()
    assert group.in_any(True)
    assert not group.in_any(False)
