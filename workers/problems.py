"""Verifiable problems: from records to what a model reads and what its answer must equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import DataError
from jobs.posttrain_work import PicoRecords, Records
from workers.artifacts import Files
from workers.generate import prompt_ids
from workers.records import Record, load_records

_GSM8K = "####"
_BOXED = "\\boxed{"


@dataclass(frozen=True)
class Problem:
    """A problem.

    Attributes:
        prompt: What the model reads.
        reference: The right answer.
    """

    prompt: str
    reference: str


def load_problems(records: Records, files: Files, tokenizer: Any) -> list[Problem]:
    """Returns the problems of a source, in its order.

    Raises:
        DataError: The records cannot be read, or one of them is no problem.
        OSError: The hub cannot be reached.
    """
    template = has_template(records, tokenizer)
    return [
        Problem(_prompt(question, tokenizer) if template else question, reference)
        for question, reference in read_problems(records.name, load_records(records, files))
    ]


def read_problems(name: str, records: Sequence[Record]) -> list[tuple[str, str]]:
    r"""Returns the question and the right answer of each record.

    The question is in `problem` or `question`, or it is the only message, of a user, in `messages`.
    The answer is in `answer` or `ground_truth`: a number, or text, of which only what follows
    `####` counts where that is there, as in GSM8K; or else it is the last `\boxed{…}` of
    `solution`.

    Args:
        name: What the study calls them.
        records: The records.

    Raises:
        DataError: A record without a question or without an answer.
    """
    return [
        (_question(name, number, record), _answer(name, number, record))
        for number, record in enumerate(records, start=1)
    ]


def has_template(records: Records, tokenizer: Any) -> bool:
    """Returns whether a model reads problems within its chat template; sums stand bare."""
    return not isinstance(records, PicoRecords) and bool(tokenizer.chat_template)


def problem_ids(problem: Problem, template: bool, tokenizer: Any) -> list[int]:
    """Returns the tokens of a prompt; a chat template has its special tokens in it already."""
    if template:
        ids: list[int] = tokenizer(problem.prompt, add_special_tokens=False)["input_ids"]
        return ids
    return prompt_ids(tokenizer, problem.prompt)


def _prompt(question: str, tokenizer: Any) -> str:
    asked = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))


def _question(name: str, number: int, record: Record) -> str:
    given = [record.get("problem"), record.get("question")]
    match record.get("messages"):
        case [{"role": "user", "content": only}]:
            given.append(only)
    for text in given:
        if isinstance(text, str) and text.strip():
            return text
    raise DataError(
        f"problems '{name}': record {number} has no text in `problem` or `question`, nor a single "
        f"user's message; it has {', '.join(record) or '(nothing)'}",
        "rename the field that holds the question",
    )


def _answer(name: str, number: int, record: Record) -> str:
    if record.get("constraint_type"):
        raise DataError(
            f"problems '{name}': record {number} asks for the constraint "
            f"'{record['constraint_type']}', which no answer can be compared with",
            f"leave such records out, as in training.{name}.where = "
            '{ dataset = ["gsm8k", "MATH"] }',
        )
    match record.get("answer", record.get("ground_truth")):
        case str() as text if text.strip():
            # GSM8K groups thousands by commas, which elsewhere part a list.
            _, mark, after = text.rpartition(_GSM8K)
            return after.strip().replace(",", "") if mark else text.strip()
        case bool():
            pass
        case int() | float() as number_given:
            whole = float(number_given).is_integer()
            return str(int(number_given)) if whole else repr(number_given)
    solution = record.get("solution")
    if isinstance(solution, str) and (boxed := _last_boxed(solution)):
        return boxed
    raise DataError(
        f"problems '{name}': record {number} has no `answer`, nor a `solution` with \\boxed{{…}}; "
        f"it has {', '.join(record) or '(nothing)'}",
        "rename the field that holds the answer",
    )


def _last_boxed(text: str) -> str:
    r"""Returns what the last \boxed{…} of a text holds, its braces balanced; empty for none."""
    start = text.rfind(_BOXED)
    if start < 0:
        return ""
    start += len(_BOXED)
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return ""
