"""Chats that a loss is measured on: tokenized once, their answers marked.

Invariant: an example has the tokens and the labels that TRL's trainer gives it in supervised
fine-tuning, so that the loss is the one that training lowers, on other chats.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from trl.chat_template_utils import get_training_chat_template, has_generation_markers
from trl.data_utils import common_prefix_length

from jobs.capability_work import ChatsWork
from jobs.errors import DataError
from workers.artifacts import Files
from workers.finetune.chats import Example, supervised
from workers.hub import load_tokenizer
from workers.records import load_records
from workers.sequences import TokenSequences, save_sequences, tokenizer_fingerprint

_REPORT_EVERY = 256


def draw_chats(
    work: ChatsWork,
    files: Files,
    tokenizer_folder: Path,
    folder: Path,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Draws chats in a seeded random order, tokenizes them and writes them into a folder.

    Args:
        work: The chats, how many, and where they are cut.
        files: Where this node finds them.
        tokenizer_folder: Folder of the tokenizer.
        folder: Where to write.
        report: Called with (chats so far, all chats).

    Returns:
        The own columns of table `sequences`, but the name.

    Raises:
        DataError: Records that cannot be read, or that are no chats; a tokenizer without an end of
            text; a chat template that refuses them; no answer within the longest length.
        OSError: The hub cannot be reached.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    if tokenizer.eos_token is None:
        raise DataError(
            f"the tokenizer in {tokenizer_folder} has no end-of-text token, so no answer could end",
            "name one as eos_token in its tokenizer_config.json",
        )
    records = load_records(work.records, files)
    examples = supervised(records, work.dataset, tokenizer)
    order = np.random.default_rng(work.draw.seed).permutation(len(examples)).tolist()
    wanted = min(work.draw.sequences, len(examples))
    chats: list[tuple[list[int], list[bool]]] = []
    for place in order:
        try:
            ids, answers = marked(examples[place], tokenizer)
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses '{work.dataset}': {error}",
                "bring the chats into the form that the model expects",
            ) from error
        cut = slice(0, work.draw.sequence_length)
        if any(answers[1 : work.draw.sequence_length]):
            chats.append((ids[cut], answers[cut]))
        if len(chats) == wanted:
            break
        if len(chats) % _REPORT_EVERY == 0:
            report(len(chats), wanted)
    if not chats:
        raise DataError(
            f"no chat of '{work.dataset}' has an answer within {work.draw.sequence_length} tokens",
            "raise evals.chats.sequence_length",
        )
    drawn = _joined(chats, work.draw.sequence_length)
    save_sequences(drawn, folder)
    return {
        "sequences_fingerprint": drawn.fingerprint,
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer_folder),
        "n_sequences": len(drawn),
        "seq_len": drawn.seq_len,
        "mode": "chat",
        "seed": work.draw.seed,
        "total_tokens": int(drawn.lengths.sum()),
        "share_full_length": drawn.share_full_length,
        "documents": len(examples),
    }


def marked(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Returns the tokens of an example of supervised fine-tuning, and which of them are learned.

    Args:
        example: `messages`, or `prompt` and `completion`, as `supervised` gives them.
        tokenizer: The tokenizer, with a chat template if there are messages.
    """
    if "messages" in example:
        template = tokenizer.chat_template
        if not has_generation_markers(template):
            template = get_training_chat_template(tokenizer)
        encoded = tokenizer.apply_chat_template(
            example["messages"],
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return list(encoded["input_ids"]), [bool(m) for m in encoded["assistant_masks"]]
    prompt, completion = example["prompt"], example["completion"]
    if isinstance(prompt, str):
        ends = completion.endswith(tokenizer.eos_token)
        before = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + completion + ("" if ends else tokenizer.eos_token))["input_ids"]
    else:
        before = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        ids = tokenizer.apply_chat_template(prompt + completion, return_dict=True)["input_ids"]
    first = common_prefix_length(before, ids)
    return list(ids), [place >= first for place in range(len(ids))]


def _joined(chats: list[tuple[list[int], list[bool]]], seq_len: int) -> TokenSequences:
    ids = np.concatenate([np.asarray(each, dtype=np.int32) for each, _ in chats])
    answers = np.concatenate([np.asarray(each, dtype=np.bool_) for _, each in chats])
    lengths = np.asarray([len(each) for each, _ in chats], dtype=np.int32)
    content = ids.tobytes() + lengths.tobytes() + answers.tobytes()
    return TokenSequences(
        torch.from_numpy(ids).long(),
        torch.from_numpy(lengths).long(),
        seq_len,
        hashlib.sha256(content).hexdigest(),
        torch.from_numpy(answers),
    )
