"""Memorization against products of probabilities from transformers alone, in float64."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

from jobs.capability_work import IndexWork, InfinigramWork, MemorizationWork
from jobs.errors import DataError
from jobs.records import rows_table
from jobs.sources import Produced, TextFiles
from tests import references_infinigram as references
from tests.conftest import Texts
from tests.workers.asked import questions_of, records_of
from tests.workers.indexed import ANYWHERE
from tests.workers.measured import own
from tests.workers.models import ARCHITECTURES, SCALED_LOGITS, build, silent
from workers.artifacts import SharedFiles
from workers.corpus_index import build_index
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.infinigram import look_up
from workers.memorize import memorization_rows

WORK = MemorizationWork("quiz", "a" * 64, "float32")
POLICIES = ["drop_token_both", "drop_token", "drop_example", "floor"]
POSITIONS, FLOOR = 128, 1e-4

Example = tuple[list[int], list[int], list[float]]
"""Context, answer, and the ∞-gram probability of each answer token."""


def examples_of(
    count: int, vocabulary: int = 250, longest: int = 30, seed: int = 0
) -> list[Example]:
    """Answers of 1 to 6 tokens; about one token in five never follows its suffix."""
    generator = np.random.default_rng(seed)
    found = []
    for place in range(count):
        sizes = int(generator.integers(1, longest)), int(generator.integers(1, 7))
        context, answer = (generator.integers(0, vocabulary, size).tolist() for size in sizes)
        chances = generator.uniform(0.01, 1, sizes[1]) * (generator.random(sizes[1]) > 0.2)
        # Some have nothing but such tokens.
        found.append((context, answer, [0.0] * sizes[1] if place % 11 == 5 else chances.tolist()))
    return found


def write(folder: Path, examples: Sequence[Example]) -> Path:
    folder.mkdir(exist_ok=True)
    contexts, answers, chances = zip(*examples, strict=True)
    arrays = {
        "context_tokens": np.concatenate(contexts).astype(np.int32),
        "context_lengths": np.array([len(c) for c in contexts], dtype=np.int32),
        "answer_tokens": np.concatenate(answers).astype(np.int32),
        "answer_lengths": np.array([len(a) for a in answers], dtype=np.int32),
        "probabilities": np.concatenate(chances).astype(np.float64),
        "suffix_lengths": np.zeros(sum(map(len, answers)), dtype=np.int32),
    }
    save_file(arrays, folder / "answers.safetensors")
    about = {"task": "other", "template_fingerprint": "f" * 64, "floor": FLOOR}
    (folder / "answers.json").write_text(json.dumps(about))
    return folder


def by_hand(model: Any, examples: Sequence[Example], positions: int) -> list[list[float]]:
    """The model's probability of every answer token, one example at a time."""
    found = []
    for context, answer, _ in examples:
        ids = [*context, *answer][-positions - 1 :]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0].double()
        chances = torch.softmax(logits, dim=-1)[-len(answer) :]
        found.append(chances[torch.arange(len(answer)), torch.tensor(answer)].tolist())
    return found


def rows_of(checkpoint: LoadedCheckpoint, folder: Path, batch_size: int = 8) -> Any:
    return memorization_rows(WORK, checkpoint, folder, batch_size, silent)


@pytest.fixture(scope="module")
def reference_model(tiny_series: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_series / "step100").double().eval()


@pytest.mark.parametrize("seed", range(3))
def test_every_policy_equals_a_slow_reference(
    seed: int, checkpoint: LoadedCheckpoint, reference_model: Any, tmp_path: Path
) -> None:
    examples = examples_of(60, seed=seed)
    rows, (side,) = rows_of(checkpoint, write(tmp_path, examples))
    corpus = [chances for _, _, chances in examples]
    model = by_hand(reference_model, examples, POSITIONS)
    assert [row["zero_policy"] for row in rows] == POLICIES
    for row in rows:
        value, partial, kept = references.memorization(row["zero_policy"], corpus, model, FLOOR)
        assert row["memorization"] == pytest.approx(value, abs=1e-9)
        assert row["memorization_given_length"] == pytest.approx(partial, abs=1e-9)
        assert (row["n_examples"], row["dropped_examples"]) == (kept, 60 - kept)
        assert row["dropped_tokens"] == sum(chances.count(0.0) for chances in corpus)
        assert row["n_truncated"] == 0
        assert 0 <= row["memorization_pvalue"] <= 1
        assert row.keys() == own("memorization")
    counts = [row["n_examples"] for row in rows]
    assert counts[2] < counts[0] < counts[1] == counts[3] == 60

    assert side.keys() == own("likelihoods")
    assert side["answer_lengths"] == [len(answer) for _, answer, _ in examples]
    expected = np.log(np.concatenate(model))
    assert side["model_log_probabilities"] == pytest.approx(expected, abs=1e-5)
    given = np.exp(side["infinigram_log_probabilities"].astype(np.float64))
    assert given == pytest.approx(np.concatenate(corpus), rel=1e-6)
    assert (given == 0).any()
    assert {each["task"] for each in (*rows, side)} == {"quiz"}
    assert {each["template_fingerprint"] for each in (*rows, side)} == {"f" * 64}
    for table, content in (("memorization", rows), ("likelihoods", [side])):
        assert rows_table(table, content).num_rows == len(content)


def test_a_model_that_knows_the_counts_has_memorized_them(
    checkpoint: LoadedCheckpoint, reference_model: Any, tmp_path: Path
) -> None:
    examples = examples_of(40)
    known = by_hand(reference_model, examples, POSITIONS)
    same = [(c, a, chances) for (c, a, _), chances in zip(examples, known, strict=True)]
    rows, _ = rows_of(checkpoint, write(tmp_path / "same", same))
    assert all(row["memorization"] == pytest.approx(1) for row in rows)
    assert all(row["memorization_given_length"] == pytest.approx(1) for row in rows)
    inverse = [(c, a[:1], [1e-6 / chances[0]]) for c, a, chances in same]
    rows, _ = rows_of(checkpoint, write(tmp_path / "inverse", inverse))
    assert all(row["memorization"] == pytest.approx(-1) for row in rows)


def test_prompts_are_cut_from_the_left_and_counted(
    checkpoint: LoadedCheckpoint, reference_model: Any, tmp_path: Path
) -> None:
    examples = examples_of(12, longest=2 * POSITIONS, seed=4)
    # Just as long as fits: the last token is predicted and not read.
    context = list(range(1, POSITIONS))
    examples += [(context, [7, 8], [0.5, 0.5]), ([9, *context], [7, 8], [0.5, 0.5])]
    rows, (side,) = rows_of(checkpoint, write(tmp_path, examples))
    too_long = [len(c) + len(a) > POSITIONS + 1 for c, a, _ in examples]
    assert too_long[-2:] == [False, True]
    assert {row["n_truncated"] for row in rows} == {sum(too_long)}
    expected = np.log(np.concatenate(by_hand(reference_model, examples, POSITIONS)))
    assert side["model_log_probabilities"] == pytest.approx(expected, abs=1e-5)


def test_batches_change_nothing(checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    folder = write(tmp_path, examples_of(23))
    told: list[tuple[int, int]] = []
    whole = memorization_rows(WORK, checkpoint, folder, 64, lambda *progress: told.append(progress))
    rows, (side,) = rows_of(checkpoint, folder, batch_size=3)
    assert told == [(23, 23)]
    assert rows == whole[0]
    ours = side["model_log_probabilities"]
    assert ours == pytest.approx(whole[1][0]["model_log_probabilities"], abs=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "llama"])
def test_logits_are_the_models_own(name: str, checkpoint: LoadedCheckpoint, tmp_path: Path) -> None:
    model = build((ARCHITECTURES | SCALED_LOGITS)[name])
    examples = examples_of(20, vocabulary=61)
    _, (side,) = rows_of(replace(checkpoint, model=model), write(tmp_path, examples))
    expected = np.log(np.concatenate(by_hand(model, examples, 10_000)))
    assert side["model_log_probabilities"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "examples",
    [
        examples_of(2),
        [([1, 2], [3], [0.5]), ([2], [4], [0.5]), ([5], [6], [0.5])],
        [([1], [3], [0.0]), ([2], [4], [0.0]), ([5], [6], [0.0])],
        [([1], [3], [0.1]), ([1], [3], [0.2]), ([1], [3], [0.3])],
    ],
    ids=["two examples", "one probability", "nothing but zeros", "one question"],
)
def test_what_has_no_correlation_is_null(
    examples: list[Example], checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    rows, side = rows_of(checkpoint, write(tmp_path, examples))
    names = ("memorization", "memorization_pvalue", "memorization_given_length")
    assert all(row[name] is None for row in rows for name in names)
    assert rows_table("memorization", rows).column("memorization").null_count == 4
    assert rows_table("likelihoods", side).num_rows == 1


def test_answers_that_a_model_cannot_be_asked_are_named(
    checkpoint: LoadedCheckpoint, tmp_path: Path
) -> None:
    long = write(tmp_path / "long", [([1], [2] * (POSITIONS + 1), [0.5] * (POSITIONS + 1))])
    with pytest.raises(DataError, match="example 0 has 129 tokens, the context 128"):
        rows_of(checkpoint, long)
    beyond = write(tmp_path / "beyond", [([1], [2], [0.5]), ([1], [5000], [0.5])])
    with pytest.raises(DataError, match="token id 5000 is beyond the model's"):
        rows_of(checkpoint, beyond)
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(checkpoint, tmp_path / "nowhere")


def test_a_diverged_model_is_told(tiny_series: Path, tmp_path: Path) -> None:
    folder = tiny_series / "step10"
    broken = load_checkpoint(folder, folder, "float32", "cpu")
    with torch.no_grad():
        broken.model.get_output_embeddings().weight[5] = math.nan
    with pytest.raises(DataError, match="not finite"):
        rows_of(broken, write(tmp_path, examples_of(5)))


def test_from_a_text_to_the_rows(
    checkpoint: LoadedCheckpoint, tiny_series: Path, texts: Texts, tmp_path: Path
) -> None:
    """The whole way: a corpus is indexed, a task looked up, and a checkpoint compared."""
    files, tokenizer = SharedFiles(tmp_path), tiny_series / "step0"
    index, answers = tmp_path / "artifacts" / ("b" * 64), tmp_path / "answers"
    index.mkdir(parents=True)
    answers.mkdir()
    sha256 = hashlib.sha256(texts.jsonl.read_bytes()).hexdigest()
    corpus = TextFiles(((str(texts.jsonl), sha256),), "text", "")
    build_index(IndexWork(corpus, ANYWHERE), files, tokenizer, index, silent)
    questions = questions_of(tmp_path, "triviaqa", records_of("triviaqa", texts))
    work = InfinigramWork(questions, Produced("b" * 64, ""), ANYWHERE)
    table = look_up(work, files, tokenizer, answers, silent)
    rows, (side,) = rows_of(checkpoint, answers)
    assert sum(side["answer_lengths"]) == table[0]["n_tokens"]
    assert rows[0]["n_examples"] + rows[0]["dropped_examples"] == len(records_of("triviaqa", texts))
    assert rows[0]["dropped_tokens"] == sum(row["zero_tokens"] for row in table)
    assert rows[0]["template_fingerprint"] == table[0]["template_fingerprint"]
