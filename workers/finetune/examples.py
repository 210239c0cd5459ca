"""What fine-tuning learns from: prompts with their answers, and their tokens.

Prompt and answer are tokenized together as lm-eval does, so that a fine-tune sees the very tokens
that an evaluation of the same task asks for. No end-of-text token follows an answer.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jobs.errors import DataError
from jobs.finetune_work import Examples, FinetuneWork, HarnessPairs, PairFiles, PicoPairs
from jobs.identity import digest
from jobs.sources import TextFiles
from workers import artifacts
from workers.artifacts import Files
from workers.facts import RELATIONS

_Item = TypeVar("_Item")
_Side = Literal["training", "validation"]

# What pretraining asked as well, and what it held out.
_PICO_FILES: dict[_Side, str] = {"training": "train", "validation": "heldout"}
_STATEMENTS = {
    relation.name: relation.statements[0].partition(" {value}")[0] for relation in RELATIONS
}


@dataclass(frozen=True)
class Pair:
    """A prompt with its answer.

    Attributes:
        prompt: The task's own prompt, before any template.
        answer: The right answer, with what leads it, if anything.
    """

    prompt: str
    answer: str


_pairs: dict[str, tuple[list[Pair], list[Pair]]] = {}  # By the identity of the examples.


def load_pairs(examples: Examples, files: Files) -> tuple[list[Pair], list[Pair]]:
    """Returns the training and the validation examples; the same lists for the same examples.

    Raises:
        DataError: A set that is empty, a record that doesn't fit, files that changed since they
            were planned; a task of lm-eval's that cannot be asked or lacks a split.
        OSError: The hub cannot be reached.
    """
    key = digest(examples.identity)
    if key not in _pairs:
        _pairs[key] = (_side(examples, "training", files), _side(examples, "validation", files))
    return _pairs[key]


def _side(examples: Examples, side: _Side, files: Files) -> list[Pair]:
    """Returns the examples to train on, or those to validate on."""
    match examples:
        case PairFiles():
            text = examples.training if side == "training" else examples.validation
            found = _of_files(examples, files.text(text))
        case PicoPairs():
            found = _of_corpus(examples, _PICO_FILES[side], files)
        case HarnessPairs():
            # Imported here: lm-eval takes seconds.
            from workers.finetune.harness_pairs import solved

            found = [Pair(*each) for each in solved(examples, side, files)]
    if not found:
        raise DataError(f"task '{examples.name}' has no {side} examples", "add some")
    return found


def _of_files(examples: PairFiles, text: TextFiles) -> list[Pair]:
    from workers.harness import records_of  # Likewise.

    fields = (examples.prompt, examples.answer)
    return [Pair(*(_text(place, record, f) for f in fields)) for place, record in records_of(text)]


def _text(place: str, record: dict[str, Any], field: str) -> str:
    """Returns the text of a record's field."""
    if field not in record:
        raise DataError(
            f"{place} has no field '{field}', only {', '.join(record) or 'none at all'}",
            "add it, or give the task's `prompt` and `answer`, the names of the fields",
        )
    value = record[field]
    if not isinstance(value, str):
        raise DataError(
            f"{place}: field '{field}' holds {type(value).__name__}, not text",
            "write it as text, or give the task's `prompt` and `answer`, the names of the fields",
        )
    if not value.strip():
        raise DataError(f"{place}: field '{field}' is empty", "fill it in, or remove the record")
    return value


def _of_corpus(examples: PicoPairs, part: str, files: Files) -> list[Pair]:
    """Returns the questions or sums of a pico corpus; part is `train` or `heldout`."""
    sums = examples.form == "sum"
    name = f"{'arithmetic' if sums else 'questions'}_{part}.jsonl"
    folder = artifacts.whole(files, examples.corpus, (name,))
    with (folder / name).open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    if sums:
        found = [Pair(record["problem"], record["answer"]) for record in records]
    else:
        form = "choice" if examples.form == "choice" else "open"
        found = [_question(examples, r) for r in records if r["form"] == form]
    if not found:
        raise DataError(
            f"the corpus has no {'sums' if sums else 'questions'} in {name}",
            "give its suite more `training_problems` and `heldout_problems`"
            if sums
            else "give its suite more `subjects` or `training_tokens`",
        )
    return found


def _question(examples: PicoPairs, record: dict[str, Any]) -> Pair:
    prompt = record["prompt"]
    if examples.form == "last_word":
        prompt = _STATEMENTS[record["relation"]].format(subject=record["subject"])
    return Pair(prompt, record["answer"])


@dataclass(frozen=True)
class TokenPair:
    """The tokens of a prompt and its answer.

    Attributes:
        tokens: Token ids, at least one of the prompt's or in its stead first.
        answer_length: So many of the last ones are the answer's.
        truncated: Whether the prompt was cut from the left.
    """

    tokens: tuple[int, ...]
    answer_length: int
    truncated: bool


@dataclass(frozen=True)
class TokenPairs:
    """What a fine-tune reads.

    Attributes:
        training: Examples to train on.
        validation: Examples that the loss is measured on.
        n_truncated: How many of both were cut.
        fingerprint: SHA-256 of all prompts and answers as the model reads them, in order.
    """

    training: tuple[TokenPair, ...]
    validation: tuple[TokenPair, ...]
    n_truncated: int
    fingerprint: str


def tokenized(work: FinetuneWork, tokenizer: Any, files: Files, context: int) -> TokenPairs:
    """Returns the tokens of a fine-tune's examples, templates applied.

    Args:
        work: The examples, how many of them, their template and their longest length.
        tokenizer: The checkpoint's.
        files: Where the examples' records are.
        context: Longest input of the model, in tokens.

    Raises:
        DataError: As of `load_pairs`; an answer without tokens, or one that leaves no room for a
            token of the prompt.
        OSError: The hub cannot be reached.
    """
    limits = (work.training_examples, work.validation_examples)
    sides = [
        [_as_read(work, pair) for pair in _spread(pairs, limit)]
        for pairs, limit in zip(load_pairs(work.examples, files), limits, strict=True)
    ]
    longest = min(work.max_length, context)
    training, validation = (
        tuple(_tokens(work.examples.name, tokenizer, pair, longest) for pair in pairs)
        for pairs in sides
    )
    said = [[[pair.prompt, pair.answer] for pair in pairs] for pairs in sides]
    return TokenPairs(
        training=training,
        validation=validation,
        n_truncated=sum(pair.truncated for pair in (*training, *validation)),
        fingerprint=hashlib.sha256(json.dumps(said).encode()).hexdigest(),
    )


def _spread(items: Sequence[_Item], limit: int | None) -> Sequence[_Item]:
    """Returns the middle of each of `limit` equal parts; all where there are no more."""
    if limit is None or limit >= len(items):
        return items
    return [items[(2 * place + 1) * len(items) // (2 * limit)] for place in range(limit)]


def _as_read(work: FinetuneWork, pair: Pair) -> Pair:
    """Returns the prompt in its template, and the answer with the space that leads it.

    A task of lm-eval's and a pico corpus say themselves what leads their answers.
    """
    prompt = work.template.replace("{prompt}", pair.prompt, 1)
    apart = prompt[-1:].isspace() or pair.answer[:1].isspace()
    if isinstance(work.examples, PairFiles) and not apart:
        return Pair(prompt, f" {pair.answer}")
    return Pair(prompt, pair.answer)


def _tokens(name: str, tokenizer: Any, pair: Pair, longest: int) -> TokenPair:
    before, after = _encode(tokenizer, pair)
    shown = f"'{pair.answer[:40]}{'…' if len(pair.answer) > 40 else ''}'"
    if not after:
        raise DataError(
            f"task '{name}': the answer {shown} has no tokens after its prompt", "mend the record"
        )
    if not before:
        raise DataError(
            f"task '{name}': nothing comes before the answer {shown}, and the tokenizer has no "
            "token that begins or ends a text",
            'give the fine-tune a `template` with words of its own, such as "Answer: {prompt}"',
        )
    room = longest - len(after)
    if room < 1:
        raise DataError(
            f"task '{name}': the answer {shown} has {len(after)} tokens; of {longest}, none is "
            "left for the prompt",
            "raise the fine-tune's `max_length` if the model reads more, or shorten the answer",
        )
    kept = before[-room:]
    return TokenPair((*kept, *after), len(after), len(kept) < len(before))


def _encode(tokenizer: Any, pair: Pair) -> tuple[list[int], list[int]]:
    """Returns the tokens of prompt and answer as lm-eval tells them apart.

    Source: lm-eval's `_encode_pair` and `loglikelihood` (api/model.py), `tok_encode`
    (models/huggingface.py).
    """
    begin = tokenizer.bos_token_id
    prefix = tokenizer.eos_token_id if begin is None else begin
    prompt = pair.prompt.rstrip()
    # Tokens of words hold the whitespace before them, so it goes with the answer.
    answer = pair.prompt[len(prompt) :] + pair.answer

    def encode(text: str, special: bool = True) -> list[int]:
        # A text that brings its first token along gets no second one.
        given = prefix is not None and text.startswith(tokenizer.decode([prefix]))
        ids: list[int] = tokenizer.encode(
            text, add_special_tokens=special and not given, verbose=False
        )
        return ids

    if prompt:
        before = encode(prompt)
        return before, encode(prompt + answer)[len(before) :]
    after = encode(answer, special=False)
    if prefix is None:
        return [], after
    return [prefix], after[1:] if after[:1] == [prefix] else after
