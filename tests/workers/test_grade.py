"""Verdicts: recorded judgements, answers that never end, and that no process is left."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.posttrain_work import FileRecords, PicoRecords
from jobs.sources import TextFiles
from workers import grade as grading
from workers.grade import Grade, Grader, grader

MATH = FileRecords("math", TextFiles((), "", ""), None)
SUMS = PicoRecords("sums", "c" * 64, "problems", None)
RECORDED = (
    Path(__file__).parents[3]
    / "shared"
    / "data"
    / "math"
    / "eval_rm_maj_example_math_cot_100.jsonl"
)
HANGING = r"So it is \boxed{9^{9^{9^{9}}}}."
LIMIT = 1.0


@pytest.fixture(scope="module")
def grade() -> Iterator[Grader]:
    with grader(MATH, LIMIT) as given:
        yield given


def processes() -> set[int]:
    """Grading processes, children of such included."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if b"workers.grade_answers" in command and b"7.25" in command:
                    found.add(int(folder.name))
            except OSError:  # It ended meanwhile.
                continue
    return found


def test_sums_are_graded_by_their_own_rule() -> None:
    with grader(SUMS, LIMIT) as grade:
        found = grade(
            ["70+58,63+92="] * 4, ["290,560"] * 4, ["290,560", " 291,560\nmore", "290", "no"]
        )
    assert found == [
        Grade("290,560", True, True),
        Grade("291,560", False, True),
        Grade(None, False, False),
        Grade(None, False, False),
    ]


@pytest.mark.skipif(
    not RECORDED.is_file(), reason="the judgements of ../shared/data are not beside the repository"
)
def test_recorded_judgements_are_met(grade: Grader) -> None:
    records = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    asked = [
        (record["question"], record["answer"], text, score)
        for record in records
        for text, score in zip(record["code"], record["score"], strict=True)
    ]
    prompts, references, texts, scores = zip(*asked, strict=True)
    found = grade(prompts, references, texts)
    assert len(found) == 800
    assert sum(each.correct == score for each, score in zip(found, scores, strict=True)) >= 799
    assert sum(each.correct > score for each, score in zip(found, scores, strict=True)) <= 1
    assert not any(each.timed_out for each in found)


def test_forms_of_answers(grade: Grader) -> None:
    texts = [r"\boxed{\dfrac{1}{2}}", "It is 0.5.", "#### 7", "I don't know.", "", "\0\ud7ff"]
    found = grade(["?"] * 6, [r"\frac{1}{2}"] * 6, texts)
    assert [each.correct for each in found] == [True, True, False, False, False, False]
    assert [each.answer for each in found][1:5] == ["0.5", "7", None, None]
    assert [each.well_formed for each in found] == [True, True, True, False, False, False]


def test_an_answer_that_never_ends_costs_the_limit_and_nothing_else(grade: Grader) -> None:
    grade(["?"], ["0"], ["0"])  # Both have started by then, or soon.
    started = time.perf_counter()
    found = grade(["?"] * 4, ["18"] * 4, ["18", HANGING, HANGING, "it is 17"])
    # On a busy machine a second of processor time takes longer.
    assert time.perf_counter() - started < 8 * LIMIT + 5
    hung = Grade(None, False, False, timed_out=True)
    assert found == [Grade("18", True, True), hung, hung, Grade("17", False, True)]
    started = time.perf_counter()
    assert grade(["?"], ["18"], [HANGING]) == [hung]  # Known by now.
    assert time.perf_counter() - started < 0.1


def test_no_process_is_left() -> None:
    with grader(MATH, 7.25) as grade:
        assert grade(["?"], ["1"], ["1"])[0].correct
        # Each of the two has a child.
        assert 2 <= len(processes()) <= 4
    assert not processes()
    with pytest.raises(ZeroDivisionError), grader(MATH, 7.25):
        raise ZeroDivisionError
    assert not processes()


def test_a_grader_that_died_says_so() -> None:
    with grader(MATH, 7.25) as grade:
        for process in processes():
            os.kill(process, 9)
        with pytest.raises(RuntimeError, match="is gone"):
            grade(["?"], ["1"], ["1"])
    assert not processes()


def test_processes_end_with_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = grading._Judge(7.25)
    assert judge.judge("1", "1").correct
    judge.close_pipes()
    assert judge._process.wait(timeout=20) == 0
    assert not processes()
