"""From stored records to the examples that the trainers take; the format is told by the fields.

Records of plain text (`prompt` with `completion`, or with `chosen` and `rejected`) stay plain: the
answer follows its prompt directly and ends with the end-of-text token. Chats, instructions and
transcripts become messages, which the tokenizer's chat template turns into text. A tokenizer
without one, as base models have it, gets `CHAT_TEMPLATE`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from jobs.errors import DataError
from workers.problems import read_problems
from workers.records import Record

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% elif message['role'] == 'user' %}{{ 'Human: ' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""What chats look like to a model whose tokenizer has no template: Human: …, Assistant: … as in
Anthropic's transcripts, each answer ended by the end-of-text token."""

Message = dict[str, str]
Example = dict[str, Any]

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}
_ROLES["system"] = "system"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SUPERVISED = (
    "messages; conversations; instruction and output, or output_1, output_2 and preference; prompt "
    "and completion; chosen, with or without prompt; or problem (or question) and answer"
)
_PREFERENCES = (
    "chosen and rejected, with prompt, with conversations, or each a whole transcript; or "
    "instruction, output_1, output_2 and preference (1 or 2)"
)


def with_template(tokenizer: Any) -> Any:
    """Gives a tokenizer that has no chat template the plain one, and returns it."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def supervised(records: Sequence[Record], name: str, tokenizer: Any) -> list[Example]:
    """Returns examples for supervised fine-tuning.

    Chats are trained on every assistant turn where the chat template can mark those, itself or in
    the trainer's version of it; where it can't, on the last one, given all before.

    Args:
        records: Chats, instructions, prompts with completions, preferences or problems.
        name: The study's name for them.
        tokenizer: Told for its chat template; chats give it one where it has none.

    Returns:
        Either `messages`, or `prompt` and `completion`, in every one.

    Raises:
        DataError: Records in none of the formats, or chats without an answer.
    """
    examples = _examples(records, name, _supervised, _SUPERVISED, tokenizer)
    if "messages" in examples[0] and not marks_answers(with_template(tokenizer)):
        return [{"prompt": e["messages"][:-1], "completion": e["messages"][-1:]} for e in examples]
    return examples


def preferences(records: Sequence[Record], name: str, tokenizer: Any) -> list[Example]:
    """Returns examples for preference optimization: `prompt`, `chosen` and `rejected`.

    Raises:
        DataError: Records in none of the formats.
    """
    examples = _examples(records, name, _preference, _PREFERENCES, tokenizer)
    if not isinstance(examples[0]["prompt"], str):
        with_template(tokenizer)
    return examples


def problems(records: Sequence[Record], name: str, tokenizer: Any) -> list[Example]:
    """Returns problems: `prompt`, the `problem` alone, and the `reference`, its right answer.

    They are read as for pass@k: what is right there is what is rewarded.
    The prompt is a chat where the tokenizer has a chat template of its own, else the plain text.

    Raises:
        DataError: Records that are no problems.
    """
    return [
        {"prompt": _question(text, tokenizer), "problem": text, "reference": answer}
        for text, answer in read_problems(name, records)
    ]


def marks_answers(tokenizer: Any) -> bool:
    """Returns whether the assistant's tokens can be told from others in a chat."""
    if has_generation_markers(tokenizer.chat_template):
        return True
    try:
        return get_training_chat_template(tokenizer) is not None
    except ValueError:
        return False


def _examples(
    records: Sequence[Record],
    name: str,
    convert: Callable[[Record, Any], Example | None],
    formats: str,
    tokenizer: Any,
) -> list[Example]:
    examples: list[Example] = []
    for number, record in enumerate(records, start=1):
        example = convert(record, tokenizer)
        if example is None:
            found = ", ".join(k for k, v in record.items() if v is not None) or "(none)"
            raise DataError(
                f"'{name}': record {number} has the fields {found}",
                f"these are needed: {formats}",
            )
        if examples and _shape(example) != _shape(examples[0]):
            raise DataError(
                f"'{name}': record {number} is of another format than those before",
                "put records of one format under one name",
            )
        turns = example.get("messages")
        if turns is not None and (len(turns) < 2 or turns[-1]["role"] != "assistant"):
            raise DataError(
                f"'{name}': the chat of record {number} doesn't end with an assistant's answer",
                "remove it, or give it one",
            )
        examples.append(example)
    return examples


def _shape(example: Example) -> list[tuple[str, type]]:
    return sorted((key, type(value)) for key, value in example.items())


def _supervised(record: Record, tokenizer: Any) -> Example | None:
    """Returns one example; chats up to their last answer."""
    match record:
        case {"messages": [*_]}:
            return _up_to_answer(_turns(record))
        case {"conversations": [*_]}:
            return _up_to_answer([*_turns(record), *(_answer(record.get("chosen")) or ())])
        case {"instruction": str(task), "output": str(output)}:
            asked = [_message("system", record["system"])] if record.get("system") else []
            asked.append(_task(task, record))
            return {"messages": [*asked, _message("assistant", output)]}
        case {"instruction": str(), "output_1": str(), "output_2": str()}:
            judged = _judged(record)
            return judged and {"messages": [*judged["prompt"], *judged["chosen"]]}
        case {"prompt": str(prompt), "completion": str(answer)} | {
            "prompt": str(prompt),
            "chosen": str(answer),
        }:
            return {"prompt": prompt, "completion": answer}
        case {"prompt": [*_] as asked, "completion": [*_] as given}:
            return _up_to_answer(_turns({"messages": [*asked, *given]}))
        case {"chosen": given}:
            return _up_to_answer(_whole(record, given))
        case _ if (found := _problem(record)) is not None:
            question = _question(found[0], tokenizer)
            if isinstance(question, str):
                return {"prompt": question, "completion": found[1]}
            return {"messages": [*question, _message("assistant", found[1])]}
    return None


def _preference(record: Record, _tokenizer: Any) -> Example | None:
    match record:
        case {"prompt": str(), "chosen": str(), "rejected": str()}:
            return {key: record[key] for key in ("prompt", "chosen", "rejected")}
        case {"instruction": str(), "output_1": str(), "output_2": str()}:
            return _judged(record)
        case {"conversations": [*_], "chosen": chosen, "rejected": rejected}:
            before = _turns(record)
            right, wrong = (before + (_answer(given) or []) for given in (chosen, rejected))
        case {"chosen": chosen, "rejected": rejected}:
            right, wrong = _whole(record, chosen), _whole(record, rejected)
        case _:
            return None
    # What both begin with is the prompt; of two equal ones, all but the last turn.
    shorter = min(len(right), len(wrong)) - 1
    shared = next((n for n in range(shorter) if right[n] != wrong[n]), shorter)
    if shared < 1:
        return None
    return {"prompt": right[:shared], "chosen": right[shared:], "rejected": wrong[shared:]}


def _judged(record: Record) -> Example | None:
    """Returns two answers of which one is preferred, as in AlpacaFarm and AlpacaEval."""
    first, second = (_message("assistant", record[name]) for name in ("output_1", "output_2"))
    prompt = [_task(record["instruction"], record)]
    match record.get("preference"):
        case 1:
            return {"prompt": prompt, "chosen": [first], "rejected": [second]}
        case 2:
            return {"prompt": prompt, "chosen": [second], "rejected": [first]}
    return None


def _task(task: str, record: Record) -> Message:
    given = record.get("input")
    return _message("user", f"{task}\n\n{given}" if given else task)


def _problem(record: Record) -> tuple[str, str] | None:
    text = record.get("problem", record.get("question"))
    answer = record.get("answer", record.get("solution"))
    if not isinstance(text, str) or not isinstance(answer, str | int | float):
        return None
    return text, str(answer)


def _question(text: str, tokenizer: Any) -> str | list[Message]:
    own = tokenizer.chat_template and tokenizer.chat_template != CHAT_TEMPLATE
    return [_message("user", text)] if own else text


def _whole(record: Record, given: Any) -> list[Message]:
    """Returns the turns of a chosen or rejected answer with those before it."""
    if isinstance(given, str) and "prompt" not in record:
        parts = _TURN.split(given)
        turns = [(parts[n], parts[n + 1].strip()) for n in range(1, len(parts) - 1, 2)]
        merged: list[Message] = []
        for role, text in turns:
            message = _message(_ROLES[role.lower()], text)
            if merged and merged[-1]["role"] == message["role"]:
                # Some transcripts have two turns of one speaker; templates want them in turns.
                merged[-1] = _message(message["role"], f"{merged[-1]['content']}\n\n{text}")
            else:
                merged.append(message)
        return merged
    asked = record.get("prompt")
    answer = _answer(given) or []
    if isinstance(asked, list):
        return _turns({"messages": asked}) + answer
    # A list with the prompt in it, as in UltraFeedback; its field `prompt` repeats the first turn.
    return (
        answer
        if len(answer) > 1 or not isinstance(asked, str)
        else [_message("user", asked), *answer]
    )


def _answer(given: Any) -> list[Message] | None:
    match given:
        case str():
            return [_message("assistant", given)]
        case dict():
            return _turns({"messages": [given]})
        case [*_]:
            return _turns({"messages": given})
    return None


def _turns(record: Record) -> list[Message]:
    """Returns messages in one form, whichever names their fields have; no others."""
    found = []
    for turn in record.get("messages") or record.get("conversations") or ():
        role = str(turn.get("role", turn.get("from"))) if isinstance(turn, dict) else ""
        text = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if role not in _ROLES or not isinstance(text, str):
            return []
        found.append(_message(_ROLES[role], text))
    return found


def _up_to_answer(turns: list[Message]) -> Example | None:
    """Returns a chat without what follows its last answer: nothing is learned from that."""
    if not turns:
        return None
    last = max((n for n, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    return {"messages": turns[: last + 1] or turns}


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
