"""A process that grades mathematical answers: `python -m workers.grade_answers LIMIT`.

It reads a JSON line [reference, text] and writes a JSON line [answer, correct] for each, or `null`
for one that couldn't be graded. A child of it does the grading. An answer that takes longer than
LIMIT seconds of processor time kills the child, whatever it is doing then, also deep within C code,
and also when whoever asked is long gone; the next child has all imports done already.
"""

import contextlib
import functools
import json
import logging
import os
import resource
import signal
import sys
from typing import Any, TextIO

from math_verify import parse, verify

_MEMORY = 4 * 2**30
# Processor time doesn't pass where a machine swaps or stands still; wall time is the backstop.
_WALL = 8


def judge(reference: str, text: str) -> tuple[str | None, bool]:
    """Grades a text by math-verify.

    Returns:
        The answer that was extracted, as it is written there, None for nothing; and whether it
        equals the reference.
    """
    try:
        found = parse(text, parsing_timeout=None)
        if not found:
            return None, False
        # The last one is the answer as it is written, where math-verify kept it.
        answer = found[-1] if isinstance(found[-1], str) else str(found[-1])
        return answer, bool(verify(_parsed(reference), found, timeout_seconds=None))
    except Exception:  # noqa: BLE001 (whatever a model wrote is no reason to stop)
        return None, False


@functools.lru_cache(maxsize=1024)
def _parsed(reference: str) -> list[Any]:
    return parse(f"\\boxed{{{reference}}}", parsing_timeout=None)


def main(limit: float) -> None:
    """Grades what stands on the standard input until it ends."""
    logging.disable(logging.CRITICAL)
    # Nothing else may write where the results go.
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _parsed("1")  # Its first call compiles grammars, which is no answer's fault.
    verify(_parsed("1"), _parsed("1"), timeout_seconds=None)
    while True:
        child = os.fork()
        if child == 0:
            _serve(limit, results)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        print("null", file=results, flush=True)


def _serve(limit: float, results: TextIO) -> None:
    # A memory bomb is an error of its own then, and no end of the machine.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGPROF, signal.SIGALRM))
    # One line is on its way at most, so that no child takes another one with it.
    for line in sys.stdin:
        reference, text = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, _WALL * limit)
        judged = judge(reference, text)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(judged), file=results, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
