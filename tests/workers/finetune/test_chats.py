"""Formats of training data: each is told by its fields, and wrong ones by name."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import DataError
from workers.finetune import chats
from workers.finetune.chats import preferences, problems, supervised
from workers.hub import load_tokenizer
from workers.problems import read_problems

CHAT = Path(__file__).parents[4] / "shared" / "data" / "chat"
beside = pytest.mark.skipif(
    not CHAT.is_dir(), reason="the chats of ../shared/data are not beside the repository"
)
HUMAN = "\n\nHuman: Is it raining?\n\nAssistant: No.\n\nHuman: And there?\n\nAssistant:"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SHORT = [user("a"), assistant("b")]
LONG = [user("Is it raining?"), assistant("No."), user("And there?"), assistant("Yes.")]

JUDGED = {"instruction": "a", "output_1": "b", "output_2": "c"}


@pytest.fixture
def words(tokenizer: Path) -> Any:
    """A tokenizer without a chat template, as base models have it."""
    return copy.deepcopy(load_tokenizer(tokenizer))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": SHORT}, {"messages": SHORT}),
        ({"messages": [*SHORT, user("never answered")]}, {"messages": SHORT}),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                ]
            },
            {"messages": [{"role": "system", "content": "s"}, *SHORT]},
        ),
        (
            {
                "conversations": [{"from": "human", "value": "a"}],
                "chosen": {"from": "gpt", "value": "b"},
                "rejected": {"from": "gpt", "value": "c"},
            },
            {"messages": SHORT},
        ),
        ({"instruction": "a", "input": "", "output": "b"}, {"messages": SHORT}),
        (
            {"instruction": "a", "input": "x", "output": "b"},
            {"messages": [user("a\n\nx"), assistant("b")]},
        ),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completion": "b"}),
        ({"prompt": "a", "chosen": SHORT, "rejected": SHORT}, {"messages": SHORT}),
        ({"chosen": f"{HUMAN} Yes.", "rejected": f"{HUMAN} No."}, {"messages": LONG}),
        ({"problem": "1+1=", "answer": "2"}, {"prompt": "1+1=", "completion": "2"}),
        ({"problem": "1+1=", "solution": "So 2."}, {"prompt": "1+1=", "completion": "So 2."}),
        (
            {"prompt": "a", "messages": SHORT, "chosen": SHORT, "rejected": [user("a")]},
            {"messages": SHORT},
        ),
        (
            {"instruction": "a", "input": "x", "output_1": "c", "output_2": "b", "preference": 2.0},
            {"messages": [user("a\n\nx"), assistant("b")]},
        ),
    ],
)
def test_what_supervised_training_takes_of_each_format(
    words: Any, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert supervised([record], "data", words) == [expected]
    assert bool(words.chat_template) == ("messages" in expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {"prompt": "a", "chosen": "b", "rejected": "c"},
        ),
        (
            {
                "conversations": [{"from": "human", "value": "a"}],
                "chosen": {"from": "gpt", "value": "b"},
                "rejected": {"from": "gpt", "value": "c"},
            },
            {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
        ),
        (
            {"chosen": f"{HUMAN} Yes.", "rejected": f"{HUMAN} No."},
            {"prompt": LONG[:3], "chosen": LONG[3:], "rejected": [assistant("No.")]},
        ),
        (
            {"chosen": f"{HUMAN} Yes.", "rejected": f"{HUMAN} Yes."},
            {"prompt": LONG[:3], "chosen": LONG[3:], "rejected": LONG[3:]},
        ),
        (
            {"prompt": "a", "chosen": SHORT, "rejected": [user("a"), assistant("c")]},
            {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
        ),
        (
            JUDGED | {"preference": 1},
            {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
        ),
    ],
)
def test_what_preference_optimization_takes_of_each_format(
    words: Any, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert preferences([record], "data", words) == [expected]


def test_problems_are_asked_as_a_chat_where_the_model_has_a_template_of_its_own(words: Any) -> None:
    record = {"question": "How many?", "answer": "3 and 39 are 42.\n#### 42"}
    expected = {"prompt": "How many?", "problem": "How many?", "reference": "42"}
    assert problems([record], "data", words) == [expected]
    chats.with_template(words)  # The one that supervised training gives is not its own.
    assert problems([record], "data", words) == [expected]
    words.chat_template = "{{ messages[0]['content'] }}"
    assert problems([record], "data", words)[0]["prompt"] == [user("How many?")]


def test_the_plain_template_marks_the_answers_with_their_ends(words: Any) -> None:
    encoded = chats.with_template(words).apply_chat_template(
        LONG, return_dict=True, return_assistant_tokens_mask=True
    )
    end = words.eos_token
    text = words.decode(encoded["input_ids"])
    assert text == (
        f"Human: Is it raining?\n\nAssistant: No.{end}\n\nHuman: And there?\n\nAssistant: Yes.{end}"
    )
    marked = [t for t, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert words.decode(marked) == f" No.{end} Yes.{end}"
    asked = words.apply_chat_template(LONG[:3], add_generation_prompt=True, tokenize=False)
    assert text.startswith(asked)


def test_a_template_that_cannot_mark_answers_leaves_the_last_one(words: Any) -> None:
    words.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert supervised([{"messages": LONG}], "data", words) == [
        {"prompt": LONG[:3], "completion": LONG[3:]}
    ]


@pytest.mark.parametrize(
    ("convert", "records", "told"),
    [
        (supervised, [{"text": "a"}], "has the fields text → these are needed: messages"),
        (preferences, [{"prompt": "a", "completion": "b"}], "needed: chosen and rejected"),
        (problems, [{"prompt": "a", "completion": "b"}], "no text in `problem` or `question`"),
        (supervised, [{"messages": [user("a")]}], "record 1 doesn't end with an assistant's"),
        (supervised, [{"messages": [{"role": "judge", "content": "a"}]}], "fields messages"),
        (supervised, [{"messages": SHORT}, {"prompt": "a", "completion": "b"}], "record 2"),
        (preferences, [{"chosen": "no turns", "rejected": "none"}], "fields chosen, rejected"),
        (preferences, [JUDGED | {"preference": 0}], "needed: .*output_2 and preference .1 or 2"),
        (supervised, [JUDGED | {"preference": None}], "fields instruction, output_1, output_2 →"),
    ],
)
def test_records_that_cannot_be_learned_from_are_told_of(
    words: Any, convert: Any, records: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        convert(records, "data", words)


@beside
def test_real_instructions_and_preferences_are_read(words: Any) -> None:
    instructions = json.loads((CHAT / "alpaca_en_demo.json").read_text())
    examples = supervised(instructions, "alpaca", words)
    assert len(examples) == len(instructions)
    assert examples[0]["messages"][-1] == assistant(instructions[0]["output"])
    pairs = json.loads((CHAT / "dpo_en_demo.json").read_text())
    found = preferences(pairs, "pairs", words)
    assert len(found) == len(pairs)
    for pair, example in zip(pairs, found, strict=True):
        assert example["chosen"] == [assistant(pair["chosen"]["value"])]
        assert example["rejected"] == [assistant(pair["rejected"]["value"])]
        assert [m["content"] for m in example["prompt"]] == [
            turn["value"] for turn in pair["conversations"]
        ]
    assert len(supervised(pairs, "pairs", words)) == len(pairs)


@beside
@pytest.mark.parametrize("name", ["alpaca-7b", "text_davinci_003"])
def test_real_instructions_of_alpaca_eval_are_read(words: Any, name: str) -> None:
    records = json.loads((CHAT / f"{name}.json").read_text())
    examples = supervised(records, name, words)
    assert len(examples) == 805
    asked = [r["instruction"] for r in json.loads((CHAT / "alpaca-7b.json").read_text())]
    assert [example["messages"][0]["content"] for example in examples] == asked


@pytest.mark.parametrize(
    "record",
    [
        {"question": "How many?", "answer": "Twelve hundred.\n#### 1,200"},
        {"problem": "Solve.", "answer": 27.0},
        {"problem": "Solve.", "solution": "So it is \\boxed{\\frac{1}{2}}."},
    ],
)
def test_what_is_rewarded_is_what_pass_at_k_takes_for_right(record: dict[str, Any]) -> None:
    tokenizer = SimpleNamespace(chat_template=None)
    (example,) = chats.problems([record], "sums", tokenizer)
    ((question, reference),) = read_problems("sums", [record])
    assert (example["problem"], example["reference"]) == (question, reference)
    assert reference in ("1200", "27", "\\frac{1}{2}")
