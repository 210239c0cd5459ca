"""What a model writes is text: code in an answer is not run by whoever grades it."""

from pathlib import Path

import pytest

from workers.grade_answers import judge


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('pathlib').Path('{trace}').touch()",
        "open('{trace}', 'w')",
        "1 + open('{trace}', 'w').fileno()",
        "[open('{trace}', 'w') for _ in (1,)]",
        "\\text{{open('{trace}', 'w')}}",
        "3!open('{trace}', 'w')",
        "2+3*(4-1).__class__.__base__",
    ],
)
@pytest.mark.parametrize(
    "told", ["{}", "${}$", "\\boxed{{{}}}", "The final answer is {}. I hope", "Answer: {}"]
)
def test_code_in_an_answer_is_not_run(answer: str, told: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = told.format(answer.format(trace=trace))
    assert judge("17", text)[1] is False
    assert not trace.exists()
