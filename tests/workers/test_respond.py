"""What a checkpoint reads before it answers: instructions, inputs and chat templates."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from tests.jobs.winrate_works import RESPOND
from tests.workers.models import silent
from workers.finetune.chats import CHAT_TEMPLATE
from workers.generate import continuations, text_after
from workers.hub import load_checkpoint, load_tokenizer
from workers.local_judge import LikelihoodJudge
from workers.respond import _rows, instruction_of, prompt_tokens

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


def test_what_was_tuned_on_chats_is_asked_in_a_chat(copy_series: Path) -> None:
    folder, tokenizer = copy_series / "step100", copy_series / "step0"
    loaded = load_checkpoint(folder, tokenizer, "float32", "cpu")
    (bare,) = _rows(replace(RESPOND, new_tokens=4), loaded, ["the river"], 1, silent)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)  # As a stage on chats leaves it.
    (asked,) = _rows(replace(RESPOND, new_tokens=4), loaded, ["the river"], 1, silent)
    assert (bare["chat_template"], asked["chat_template"]) == (False, True)
    ids, _ = prompt_tokens(loaded.tokenizer, "the river", CHAT_TEMPLATE)
    assert loaded.tokenizer.decode(ids) == "Human: the river\n\nAssistant:"
    (expected,) = continuations(loaded, [ids], 4, 1, silent)
    assert asked["output"] == text_after(loaded.tokenizer, ids, expected.tokens)
    # Nothing of it stays with the tokenizer, which others read.
    assert not loaded.tokenizer.chat_template


def test_the_local_judge_cuts_what_does_not_fit(tiny_series: Path) -> None:
    folder = tiny_series / "step100"
    judge = LikelihoodJudge(load_checkpoint(folder, folder, "float32", "cpu"))
    for instruction, answer in (("the " * 300, "river"), ("the", "river " * 300), ("a", "")):
        preference = judge.ask(instruction, answer, "stone").preference
        assert preference is not None
        assert 1 < preference < 2
        swapped = judge.ask(instruction, "stone", answer).preference
        assert swapped == pytest.approx(3 - preference)
