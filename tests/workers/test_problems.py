"""Problems: questions and answers in the formats of known datasets, and what the model reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from jobs.errors import DataError
from jobs.posttrain_work import FileRecords, PicoRecords
from jobs.sources import TextFiles
from workers.problems import Problem, _prompt, has_template, problem_ids, read_problems

DATA = Path(__file__).parents[3] / "shared" / "data" / "math"
FILES = FileRecords("math", TextFiles((), "", ""), None)


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        ({"answer": "5"}, "5"),
        ({"answer": 27.0}, "27"),
        ({"answer": -1}, "-1"),
        ({"answer": 0.25}, "0.25"),
        ({"answer": "She has 1,000 + 80.\n#### 1,080"}, "1080"),
        ({"solution": r"\boxed{1} or rather \boxed{\frac{1}{2}}."}, r"\frac{1}{2}"),
        ({"answer": None, "solution": r"\boxed{x^{2}}"}, "x^{2}"),
    ],
)
@pytest.mark.parametrize("field", ["problem", "question"])
def test_answers_are_found(field: str, record: dict[str, Any], answer: str) -> None:
    assert read_problems("math", [{field: "Q?", **record}]) == [("Q?", answer)]


def test_a_single_message_is_a_problem() -> None:
    asked = [{"role": "user", "content": "Q?"}]
    record = {"messages": asked, "ground_truth": "5", "dataset": "gsm8k", "constraint_type": None}
    assert read_problems("math", [record]) == [("Q?", "5")]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": [], "ground_truth": "5"}, "nor a single user's message"),
        ({"messages": [{"role": "user", "content": "Q?"}] * 2, "answer": "5"}, "nor a single user"),
        ({"question": "Q?", "ground_truth": "{}", "constraint_type": "Bigrams"}, "'Bigrams'"),
        ({"prompt": "Q?", "answer": "5"}, "record 1 has no text in `problem` .* prompt, answer"),
        ({"problem": " ", "answer": "5"}, "no text"),
        ({"problem": "Q?", "target": "5"}, "no `answer`.* problem, target"),
        ({"problem": "Q?", "answer": True}, "no `answer`"),
        ({"problem": "Q?", "solution": r"\boxed{5"}, "no `answer`"),
        ({}, r"\(nothing\)"),
    ],
)
def test_what_is_no_problem_is_named(record: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_problems("math", [record])


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not beside the repository")
@pytest.mark.parametrize(("name", "count"), [("amc23", 40), ("gsm8k", 1319)])
def test_known_datasets_are_read(name: str, count: int) -> None:
    records = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    found = read_problems(name, records)
    assert len(found) == count
    for _, answer in found:
        float(answer)


def test_a_chat_template_is_used_where_there_is_one(tokenizer: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    problem = Problem("the river", "1")
    assert not has_template(FILES, loaded)
    assert loaded.decode(problem_ids(problem, False, loaded)) == "the river"
    loaded.chat_template = "{{ bos_token }}{% for m in messages %}Q: {{ m.content }}{% endfor %}"
    assert has_template(FILES, loaded)
    assert not has_template(PicoRecords("sums", "c", "problems", None), loaded)
    prompted = Problem(_prompt("the river", loaded), "1")
    assert prompted.prompt == "<|endoftext|>Q: the river"
    ids = problem_ids(prompted, True, loaded)
    assert ids.count(loaded.bos_token_id) == 1
    assert loaded.decode(ids) == prompted.prompt
