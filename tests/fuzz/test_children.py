"""What a case may do to its process: the cases after it run all the same."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.children import Body, run_cases


def _outcomes(tmp_path: Path, body: Body, cases: int = 4, **options: Any) -> list[tuple[int, str]]:
    settings = {"processor_seconds": 5.0, **options}
    found = run_cases(range(cases), lambda: body, tmp_path / "log", **settings)
    return [(case, str(outcome.get("wrong", ""))) for case, outcome in found]


def test_cases_share_a_process_and_come_in_their_order(tmp_path: Path) -> None:
    found = list(
        run_cases(
            range(7), lambda: lambda case: {"pid": os.getpid()}, tmp_path / "log", 5.0, per_child=3
        )
    )
    assert [case for case, _ in found] == list(range(7))
    pids = [outcome["pid"] for _, outcome in found]
    assert [len(set(pids[n : n + 3])) for n in (0, 3, 6)] == [1, 1, 1]
    assert len({*pids, os.getpid()}) == 4
    assert all(outcome["processor"] >= 0 for _, outcome in found)


def _second(act: Any) -> Body:
    """Returns what does something in the second case alone."""

    def body(case: int) -> dict[str, Any]:
        if case == 1:
            act()
        return {}

    return body


def _raise() -> None:
    raise KeyboardInterrupt("planted")


def _die() -> None:
    os.write(2, b"last words")
    os.kill(os.getpid(), signal.SIGKILL)


def _compute() -> None:
    until = time.process_time() + 0.4
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("act", "said", "options"),
    [
        (_raise, "KeyboardInterrupt: planted", {}),
        (_die, "its process died; last words", {}),
        (lambda: os._exit(0), "its process died; it printed nothing", {}),
        (lambda: time.sleep(60), "it hung for 0.5 s", {"wall_seconds": 0.5}),
        (lambda: bytearray(2**34), "MemoryError", {"memory": 2**30}),
        (_compute, "s of the processor", {"processor_seconds": 0.2}),
    ],
)
def test_what_a_case_does_is_told_and_the_next_ones_run(
    tmp_path: Path, act: Any, said: str, options: dict[str, Any]
) -> None:
    found = _outcomes(tmp_path, _second(act), **options)
    assert [case for case, _ in found] == [0, 1, 2, 3]
    assert [bool(wrong) for _, wrong in found] == [False, True, False, False]
    assert said in found[1][1]
