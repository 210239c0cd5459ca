"""What a checkpoint reads before it answers: instructions, inputs and chat templates."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from tests.jobs.winrate_works import RESPOND
from workers.hub import load_checkpoint, load_tokenizer
from workers.local_judge import LikelihoodJudge
from workers.respond import instruction_of, prompt_tokens

TEMPLATE = (
    "{% for message in messages %}<|endoftext|>{{ message.role }}: {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}model: {% endif %}"
)


@pytest.mark.parametrize(
    ("record", "instruction"),
    [
        ({"instruction": "Say it.", "output": "x"}, "Say it."),
        ({"instruction": "Say it.", "input": ""}, "Say it."),
        ({"instruction": "Sum up.", "input": "A text."}, "Sum up.\n\nA text."),
        ({"prompt": "Go on", "completion": "x"}, "Go on"),
    ],
)
def test_instructions_of_records(record: dict[str, Any], instruction: str) -> None:
    assert instruction_of(record, RESPOND) == instruction


@pytest.mark.parametrize("record", [{}, {"instruction": " "}, {"prompt": [{"role": "user"}]}])
def test_records_without_instructions(record: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="'asked' has neither"):
        instruction_of(record, RESPOND)


def test_a_chat_template_is_applied_where_there_is_one(copy_series: Path) -> None:
    folder = copy_series / "step0"
    plain = load_tokenizer(folder)
    assert prompt_tokens(plain, "the river") == (plain("the river")["input_ids"], False)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    tokenizer = load_tokenizer(folder)
    ids, templated = prompt_tokens(tokenizer, "the river")
    assert templated
    assert tokenizer.decode(ids) == "<|endoftext|>user: the river\nmodel: "
    assert ids.count(tokenizer.eos_token_id) == 1


def test_the_local_judge_cuts_what_does_not_fit(tiny_series: Path) -> None:
    folder = tiny_series / "step100"
    judge = LikelihoodJudge(load_checkpoint(folder, folder, "float32", "cpu"))
    for instruction, answer in (("the " * 300, "river"), ("the", "river " * 300), ("a", "")):
        preference = judge.ask(instruction, answer, "stone").preference
        assert preference is not None
        assert 1 < preference < 2
        swapped = judge.ask(instruction, "stone", answer).preference
        assert swapped == pytest.approx(3 - preference)
