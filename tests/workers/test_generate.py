"""Greedy continuations against one argmax after another, in float64."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from jobs.capability_work import GenerateWork
from jobs.errors import DataError
from jobs.records import rows_table
from tests.workers.measured import own
from tests.workers.models import ARCHITECTURES, SCALED_LOGITS, build, silent
from workers.generate import generation_rows
from workers.hub import LoadedCheckpoint
from workers.kernels.repetition import distinct_share, longest_repeat_share, loop_length

PROMPTS = (
    "the old bird sings",
    "a river",
    "the old bird moves",
    "winter turns and every tree near the door falls",
    "a stone",
    "the old bird sings",
)
EVERY_KIND = ARCHITECTURES | SCALED_LOGITS
WORK = GenerateWork(PROMPTS, 20, "float32")


def _argmax(checkpoint: LoadedCheckpoint, prompt: str, new_tokens: int) -> list[int]:
    """Tokens one by one, the whole text anew for each, up to the first end of text."""
    model = copy.deepcopy(checkpoint.model).double()
    ids = checkpoint.tokenizer(prompt)["input_ids"]
    found: list[int] = []
    for _ in range(new_tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + found]), use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token == checkpoint.tokenizer.eos_token_id:
            break
        found.append(token)
    return found


def _rows(
    checkpoint: LoadedCheckpoint, work: GenerateWork = WORK, batch_size: int = 4
) -> list[dict[str, Any]]:
    return generation_rows(work, checkpoint, batch_size, silent)


def _check(row: dict[str, Any], checkpoint: LoadedCheckpoint, new_tokens: int) -> None:
    tokens = _argmax(checkpoint, row["prompt"], new_tokens)
    assert row["generated_tokens"] == len(tokens)
    assert row["ended"] == (len(tokens) < new_tokens)
    assert row["text"] == checkpoint.tokenizer.decode(tokens, skip_special_tokens=True)
    for n in (1, 2, 3, 4):
        assert row[f"distinct_{n}"] == distinct_share(tokens, n)
    assert row["longest_repeat_share"] == longest_repeat_share(tokens)
    assert row["loop_length"] == loop_length(tokens)


def _favouring(checkpoint: LoadedCheckpoint, token: int, after: str) -> LoadedCheckpoint:
    """A model that says one token wherever it would have said what follows a text."""
    model = copy.deepcopy(checkpoint.model)
    likeliest = _argmax(checkpoint, after, 1)[0]
    weight = model.get_output_embeddings().weight
    weight[token] = 1.2 * weight[likeliest]
    return replace(checkpoint, model=model)


def test_every_token_is_the_likeliest_one(checkpoint: LoadedCheckpoint) -> None:
    rows = _rows(checkpoint)
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    for row in rows:
        assert set(row) == own("generations")
        assert row["forward_dtype"] == "float32"
        _check(row, checkpoint, 20)
    assert rows[0] == rows[5]
    assert rows_table("generations", rows).num_rows == 6


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_architecture_says_what_is_likeliest(checkpoint: LoadedCheckpoint, name: str) -> None:
    model = build(EVERY_KIND[name], vocab_size=len(checkpoint.tokenizer)).requires_grad_(False)
    checkpoint = replace(checkpoint, model=model)
    work = replace(WORK, prompts=PROMPTS[:3], new_tokens=8)
    for row in _rows(checkpoint, work):
        _check(row, checkpoint, 8)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_what_stands_beside_a_prompt_changes_nothing(
    checkpoint: LoadedCheckpoint, batch_size: int
) -> None:
    alone = [_rows(checkpoint, replace(WORK, prompts=(prompt,)))[0] for prompt in PROMPTS]
    assert _rows(checkpoint, batch_size=batch_size) == alone


def test_prompts_of_one_length_are_continued_together(
    checkpoint: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    generate = checkpoint.model.generate

    def noted(input_ids: torch.Tensor, **options: Any) -> Any:
        seen.append(tuple(input_ids.shape))
        assert bool(options["attention_mask"].all())
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(checkpoint.model, "generate", noted)
    told: list[tuple[int, int]] = []
    generation_rows(WORK, checkpoint, 32, lambda done, total: told.append((done, total)))
    lengths = [len(checkpoint.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    assert seen == [(lengths.count(n), n) for n in sorted(set(lengths), reverse=True)]
    assert told[-1] == (6, 6)


def test_an_end_of_text_ends_it(checkpoint: LoadedCheckpoint) -> None:
    end = checkpoint.tokenizer.eos_token_id
    for prompt in ("the old bird sings", "a river"):
        ending = _favouring(checkpoint, end, prompt)
        rows = _rows(ending)
        for row in rows:
            _check(row, ending, 20)
        first = rows[PROMPTS.index(prompt)]
        assert first["ended"]
        assert first["generated_tokens"] == 0
        assert first["text"] == ""
        for name in ("distinct_1", "distinct_4", "longest_repeat_share", "loop_length"):
            assert first[name] is None


def test_the_ends_that_the_model_names_count_too(checkpoint: LoadedCheckpoint) -> None:
    tokens = _argmax(checkpoint, PROMPTS[0], 20)
    model = copy.deepcopy(checkpoint.model)
    model.generation_config.eos_token_id = [tokens[1], checkpoint.tokenizer.eos_token_id]
    row = _rows(replace(checkpoint, model=model))[0]
    assert row["ended"]
    assert row["generated_tokens"] == tokens.index(tokens[1])


def test_what_a_model_asks_for_besides_is_left_out(checkpoint: LoadedCheckpoint) -> None:
    model = copy.deepcopy(checkpoint.model)
    asked = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        top_k=7,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        num_beams=3,
        max_length=6,
        min_new_tokens=19,
        suppress_tokens=_argmax(checkpoint, PROMPTS[0], 1),
        eos_token_id=checkpoint.tokenizer.eos_token_id,
    )
    model.generation_config = asked
    assert _rows(replace(checkpoint, model=model)) == _rows(checkpoint)
    assert model.generation_config is asked


def test_a_tokenizer_without_an_end_of_text(checkpoint: LoadedCheckpoint) -> None:
    model, tokenizer = copy.deepcopy(checkpoint.model), copy.deepcopy(checkpoint.tokenizer)
    tokenizer.eos_token = tokenizer.pad_token = None
    model.generation_config.eos_token_id = None
    rows = _rows(replace(checkpoint, model=model, tokenizer=tokenizer))
    assert not any(row["ended"] for row in rows)
    assert {row["generated_tokens"] for row in rows} == {20}


def test_tokens_that_the_tokenizer_lacks_have_no_text(checkpoint: LoadedCheckpoint) -> None:
    padding = checkpoint.model.get_output_embeddings().weight.shape[0] - 1
    assert padding >= len(checkpoint.tokenizer)
    row = _rows(_favouring(checkpoint, padding, PROMPTS[0]))[0]
    assert row["generated_tokens"] == 20


def test_the_context_limits_the_continuation(checkpoint: LoadedCheckpoint) -> None:
    short = len(checkpoint.tokenizer(PROMPTS[1])["input_ids"])
    long = " ".join(["the old bird sings"] * 40)
    ids = checkpoint.tokenizer(long)["input_ids"][:125]
    long = checkpoint.tokenizer.decode(ids)
    assert len(checkpoint.tokenizer(long)["input_ids"]) == 125
    rows = _rows(checkpoint, GenerateWork((long, PROMPTS[1]), 300, "float32"))
    for row, room in zip(rows, (3, 128 - short), strict=True):
        _check(row, checkpoint, room)


def test_prompts_that_leave_no_room_are_refused(checkpoint: LoadedCheckpoint) -> None:
    long = " ".join(["the old bird sings"] * 100)
    with pytest.raises(
        DataError, match=r"'the old .*…' has \d+ tokens, .* context of 128"
    ) as error:
        _rows(checkpoint, replace(WORK, prompts=(PROMPTS[0], long)))
    assert error.value.remedy


def test_prompts_without_tokens_are_refused(checkpoint: LoadedCheckpoint) -> None:
    with pytest.raises(DataError, match="the prompt '' has no tokens"):
        _rows(checkpoint, replace(WORK, prompts=("",)))


def test_special_tokens_stand_before_a_prompt_but_not_behind_it(
    checkpoint: LoadedCheckpoint,
) -> None:
    from tokenizers import processors

    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    special = tokenizer.eos_token
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special} $A {special}", special_tokens=[(special, tokenizer.eos_token_id)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    (row,) = _rows(replace(checkpoint, tokenizer=tokenizer), replace(WORK, prompts=("a river",)))
    expected = _rows(checkpoint, replace(WORK, prompts=(f"{special}a river",)))[0]
    assert row["text"] == expected["text"]
    assert row["generated_tokens"] == expected["generated_tokens"]
