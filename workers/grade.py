"""Verdicts on answers: the grader of pass@k and the reward of reinforcement learning.

Sums of a pico corpus are graded by their own rule, within this process. Everything else goes to
math-verify in processes that end by themselves when an answer takes too long; see
`workers.grade_answers`.
"""

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from jobs.posttrain_work import PicoRecords, Records
from workers import curriculum

# What is graded while a model samples takes cores away from it.
_PROCESSES = 2


@dataclass(frozen=True)
class Grade:
    """A verdict.

    Attributes:
        answer: What was extracted; None for nothing.
        correct: Whether it is right.
        well_formed: Whether the text has the form of an answer: for sums, as many three-digit
            numbers as sums and nothing else; otherwise, whether an answer could be extracted.
        timed_out: Whether it couldn't be graded within the time limit; it counts as wrong.
    """

    answer: str | None
    correct: bool
    well_formed: bool
    timed_out: bool = False


Grader = Callable[[Sequence[str], Sequence[str], Sequence[str]], list[Grade]]
"""Takes prompts, references and texts, one of each for every answer, in the same order."""


@contextmanager
def grader(records: Records, time_limit: float) -> Iterator[Grader]:
    """Gives what grades answers to some problems; no process of it is left after the block.

    Args:
        records: The problems.
        time_limit: Seconds of processor time in which an answer must be graded; else it is wrong.
    """
    if isinstance(records, PicoRecords):
        yield _grade_sums
        return
    judges = _Judges(time_limit)
    try:
        yield judges.grade
    finally:
        judges.close()


def _grade_sums(
    prompts: Sequence[str], _references: Sequence[str], texts: Sequence[str]
) -> list[Grade]:
    return [_grade_sum(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


def _grade_sum(prompt: str, text: str) -> Grade:
    answer = text.split("\n", 1)[0].strip()
    correct, well_formed = curriculum.grade(prompt, answer)
    return Grade(answer if well_formed else None, correct, well_formed)


class _Judges:
    """Several grading processes, and what they judged already."""

    def __init__(self, time_limit: float) -> None:
        self._known: dict[tuple[str, str], Grade] = {}
        self._all = [_Judge(time_limit) for _ in range(_PROCESSES)]
        self._free: queue.SimpleQueue[_Judge] = queue.SimpleQueue()
        for judge in self._all:
            self._free.put(judge)
        self._threads = ThreadPoolExecutor(_PROCESSES, thread_name_prefix="grade")

    def grade(
        self, _prompts: Sequence[str], references: Sequence[str], texts: Sequence[str]
    ) -> list[Grade]:
        pairs = list(zip(references, texts, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        self._known |= dict(zip(new, self._threads.map(self._judged, new), strict=True))
        return [self._known[pair] for pair in pairs]

    def close(self) -> None:
        for judge in self._all:
            judge.kill()
        # Threads that waited for a verdict have seen the end of it.
        self._threads.shutdown(cancel_futures=True)
        for judge in self._all:
            judge.close_pipes()

    def _judged(self, pair: tuple[str, str]) -> Grade:
        judge = self._free.get()
        try:
            return judge.judge(*pair)
        finally:
            self._free.put(judge)


class _Judge:
    """One grading process; its imports are under way while others do something else."""

    def __init__(self, time_limit: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.grade_answers", str(time_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # Wherever our own modules were found, on whatever node.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(part or "." for part in sys.path)},
            # So that its child ends with it, and an interrupt of the terminal is for us alone.
            start_new_session=True,
        )

    def judge(self, reference: str, text: str) -> Grade:
        line = ""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([reference, text]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                "the grading process is gone; `python -m workers.grade_answers 5` may tell why"
            )
        if (judged := json.loads(line)) is None:
            # It died of its clock, or for memory: neither way can it be told whether it is right.
            return Grade(None, correct=False, well_formed=False, timed_out=True)
        answer, correct = judged
        return Grade(answer, correct, answer is not None)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # What was still to be written can't be.
                    pipe.close()
