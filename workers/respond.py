"""Answers of a checkpoint to instructions, for a judge to compare."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from jobs.cells import Cell
from jobs.errors import DataError
from jobs.sources import CHAT_TEMPLATE_FILE
from jobs.winrate_work import RespondWork
from workers import artifacts
from workers.artifacts import Files
from workers.generate import continuations, prompt_ids, text_after
from workers.hub import LoadedCheckpoint
from workers.measure import Rows
from workers.records import load_records

ANSWERS = "answers.json"
"""Name of the artifact's file: the rows of table `responses`."""


def respond_rows(
    cell: Cell,
    work: RespondWork,
    checkpoint: LoadedCheckpoint,
    files: Files,
    batch_size: int,
    report: Callable[[int, int], None],
) -> Rows:
    """Returns the rows of table `responses`, which are the cell's artifact as well.

    A kill between publication and the rows' commit costs no second answering.

    Raises:
        DataError: A record without an instruction; or no instruction has room for an answer.
    """
    if files.artifact(cell.id, ANSWERS) is None:
        instructions = [instruction_of(r, work) for r in load_records(work.records, files)]
        rows = _rows(work, checkpoint, instructions, batch_size, report)
        with artifacts.fresh_artifact(files, cell.id) as folder:
            (folder / ANSWERS).write_text(json.dumps(rows), encoding="utf-8")
    return answers(files, cell.id)


def answers(files: Files, cell_id: str) -> Rows:
    """Returns the rows that a respond cell has published."""
    path = artifacts.whole(files, cell_id, (ANSWERS,)) / ANSWERS
    found: Rows = json.loads(path.read_text(encoding="utf-8"))
    return found


def instruction_of(record: dict[str, Any], work: RespondWork) -> str:
    """Returns a record's instruction, with its input below it where it has one.

    Raises:
        DataError: It has none.
    """
    for name in ("instruction", "prompt"):
        text = record.get(name)
        if isinstance(text, str) and text.strip():
            more = record.get("input")
            return f"{text}\n\n{more}" if isinstance(more, str) and more.strip() else text
    raise DataError(
        f"a record of '{work.records.name}' has neither `instruction` nor `prompt`, but "
        f"{', '.join(sorted(record)) or 'nothing'}",
        "name instructions in winrates.instructions",
    )


def prompt_tokens(
    tokenizer: Any, instruction: str, given: str | None = None
) -> tuple[list[int], bool]:
    """Returns what a model reads, and whether a chat template made it.

    Args:
        tokenizer: The tokenizer, whose own template counts.
        instruction: What is asked.
        given: The template that post-training gave a model whose tokenizer has none.
    """
    template = getattr(tokenizer, "chat_template", None) or given
    if not template:
        return prompt_ids(tokenizer, instruction), False
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": instruction}],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
    )
    # The template writes the special tokens itself.
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids, True


def _rows(
    work: RespondWork,
    checkpoint: LoadedCheckpoint,
    instructions: Sequence[str],
    batch_size: int,
    report: Callable[[int, int], None],
) -> Rows:
    # The tokenizer is that of the checkpoint that a chain began from; what the chain's chats looked
    # like lies beside the weights.
    given = checkpoint.path / CHAT_TEMPLATE_FILE
    template = given.read_text(encoding="utf-8") if given.is_file() else None
    prompts = [prompt_tokens(checkpoint.tokenizer, text, template) for text in instructions]
    context = getattr(checkpoint.model.config, "max_position_embeddings", None)
    room = [
        place
        for place, (ids, _) in enumerate(prompts)
        if ids and (context is None or len(ids) < context)
    ]
    if not room:
        raise DataError(
            f"no instruction of '{work.records.name}' leaves room for an answer in the model's "
            f"context of {context}",
            "take shorter instructions, or leave this model out",
        )
    read = [prompts[place][0] for place in room]
    found = continuations(
        checkpoint, read, work.new_tokens, batch_size, report, work.temperature, work.seed
    )
    continued = dict(zip(room, found, strict=True))
    rows: Rows = []
    for place, (ids, templated) in enumerate(prompts):
        answer = continued.get(place)
        text = None if answer is None else text_after(checkpoint.tokenizer, ids, answer.tokens)
        rows.append(
            {
                "instructions": work.records.name,
                "instruction": place,
                "prompt": instructions[place],
                # Tokens that were never trained may spell no text; Arrow takes UTF-8 alone.
                "output": None if text is None else text.encode(errors="replace").decode(),
                "chat_template": templated,
                "generated_tokens": None if answer is None else len(answer.tokens),
                "ended": None if answer is None else answer.ended,
                "temperature": work.temperature,
                "seed": work.seed,
                "forward_dtype": work.dtype,
            }
        )
    return rows
