"""Answers looked up in an index, against a brute-force count over lm-eval's own tokens."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from jobs.capability_work import ForeignIndex, IndexWork, InfinigramWork
from jobs.errors import DataError
from jobs.questions import HarnessQuestions
from jobs.records import rows_table
from jobs.sources import Produced, TextFiles
from tests.conftest import Texts
from tests.references_infinigram import Counts
from tests.workers.asked import KINDS, prompt_and_answer, questions_of, records_of
from tests.workers.indexed import ANYWHERE, words_tokenizer
from tests.workers.measured import own
from tests.workers.models import silent
from workers.artifacts import SharedFiles
from workers.corpus_index import build_index
from workers.hub import LoadedCheckpoint
from workers.infinigram import load_answers, look_up
from workers.scoring import LoadedModel

CELL = "a" * 64


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, texts: Texts, tiny_series: Path) -> Path:
    """Results with the index of the tests' texts, published as the artifact of a cell."""
    root = tmp_path_factory.mktemp("results")
    folder = root / "artifacts" / CELL
    folder.mkdir(parents=True)
    sha256 = hashlib.sha256(texts.jsonl.read_bytes()).hexdigest()
    corpus = TextFiles(((str(texts.jsonl), sha256),), "text", "")
    tokenizer = tiny_series / "step0"
    build_index(IndexWork(corpus, ANYWHERE), SharedFiles(root), tokenizer, folder, silent)
    return root


@pytest.fixture(scope="module")
def counts(texts: Texts, tiny_series: Path) -> Counts:
    tokenizer = AutoTokenizer.from_pretrained(tiny_series / "step0")
    ids = tokenizer(list(texts.documents), add_special_tokens=False)["input_ids"]
    return Counts(ids, 40)


def _work(questions: HarnessQuestions, index: Produced | ForeignIndex) -> InfinigramWork:
    return InfinigramWork(questions, index, ANYWHERE)


def _foreign(folder: Path, token_bytes: int) -> ForeignIndex:
    files = tuple((path.name, path.stat().st_size, "") for path in sorted(folder.iterdir()))
    return ForeignIndex(str(folder), files, token_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", KINDS)
def test_answers_are_those_of_a_brute_force_count(
    task: str,
    results: Path,
    counts: Counts,
    texts: Texts,
    tokenizer: Path,
    checkpoint: LoadedCheckpoint,
    tmp_path: Path,
) -> None:
    records = records_of(task, texts)
    questions = questions_of(tmp_path, task, records)
    told: list[tuple[int, int]] = []
    rows = look_up(
        _work(questions, Produced(CELL, "")),
        SharedFiles(results),
        tokenizer,
        tmp_path,
        lambda *progress: told.append(progress),
    )
    expected = LoadedModel(checkpoint, 4).token_requests(
        (place, 0, *prompt_and_answer(task, record)) for place, record in enumerate(records)
    )
    found = load_answers(tmp_path)
    assert found.requests == expected
    lengths, probabilities = [], []
    for request, given in zip(expected, found.probabilities, strict=True):
        each = counts.answer(request.context, request.continuation)
        assert given.tolist() == [probability for probability, _ in each]
        probabilities += [probability for probability, _ in each]
        lengths += [length for _, length in each]
    tensors = load_file(tmp_path / "answers.safetensors")
    assert tensors["suffix_lengths"].tolist() == lengths
    assert found.floor == 1 / counts.grams[()]

    zero = Counter(n for n, p in zip(lengths, probabilities, strict=True) if p == 0)
    assert [
        (row["suffix_length"], row["answer_tokens"], row["share"], row["zero_tokens"])
        for row in rows
    ] == [(n, c, c / len(lengths), zero[n]) for n, c in sorted(Counter(lengths).items())]
    assert {row["n_examples"] for row in rows} == {len(records)}
    assert {row["n_tokens"] for row in rows} == {len(lengths)}
    assert {row["task"] for row in rows} == {"quiz"}
    assert all(row.keys() == own("infinigram") for row in rows)
    assert rows_table("infinigram", rows).num_rows == len(rows)
    assert told == [(done, len(records)) for done in range(1, len(records) + 1)]


def _look_up(
    questions: HarnessQuestions,
    index: Produced | ForeignIndex,
    results: Path,
    tokenizer: Path,
    folder: Path,
) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    return look_up(_work(questions, index), SharedFiles(results), tokenizer, folder, silent)


@pytest.fixture
def quiz(tmp_path: Path, texts: Texts) -> HarnessQuestions:
    return questions_of(tmp_path, "triviaqa", records_of("triviaqa", texts))


def test_an_index_built_elsewhere_says_the_same(
    quiz: HarnessQuestions, results: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folders = tmp_path / "own", tmp_path / "foreign"
    foreign = _foreign(results / "artifacts" / CELL, 2)
    rows = _look_up(quiz, Produced(CELL, ""), results, tokenizer, folders[0])
    assert _look_up(quiz, foreign, results, tokenizer, folders[1]) == rows
    for name in ("answers.json", "answers.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_prompt_and_alias_are_identified(
    results: Path, texts: Texts, tokenizer: Path, tmp_path: Path
) -> None:
    records = records_of("triviaqa", texts)
    other = [
        {**record, "answer": {"aliases": record["answer"]["aliases"][::-1]}} for record in records
    ]
    asked = [{**record, "question": record["question"] + " now"} for record in records]
    found = set()
    for place, variant in enumerate((records, records, other, asked)):
        folder = tmp_path / str(place)
        folder.mkdir()
        questions = questions_of(folder, "triviaqa", variant)
        rows = _look_up(questions, Produced(CELL, ""), results, tokenizer, folder)
        found.add(rows[0]["template_fingerprint"])
    assert len(found) == 3


def test_a_limit_asks_the_first_examples(
    quiz: HarnessQuestions, results: Path, tokenizer: Path, tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    _look_up(quiz, Produced(CELL, ""), results, tokenizer, whole)
    limited = replace(quiz, limit=5)
    (row, *_) = _look_up(limited, Produced(CELL, ""), results, tokenizer, part)
    assert row["n_examples"] == 5
    assert load_answers(part).requests == load_answers(whole).requests[:5]


def test_an_index_of_another_tokenizer_is_refused(
    quiz: HarnessQuestions, results: Path, tokenizer: Path, tmp_path: Path
) -> None:
    foreign = _foreign(results / "artifacts" / CELL, 2)
    # Made here, it says of which tokenizer it is; elsewhere, only its tokens do.
    few = words_tokenizer(tmp_path / "few", 50)
    many = words_tokenizer(tmp_path / "many", 65_536)
    cases: list[tuple[Produced | ForeignIndex, Path, str]] = [
        (Produced(CELL, ""), few, "of another tokenizer"),
        (foreign, few, "the tokenizer's largest id is 49: it is an index of another tokenizer"),
        (foreign, many, "token id 65535 doesn't fit into the 2 bytes"),
    ]
    for index, other, match in cases:
        with pytest.raises(DataError, match=match) as caught:
            _look_up(quiz, index, results, other, tmp_path / "out")
        assert caught.value.remedy
        assert not list((tmp_path / "out").iterdir())


def test_what_is_no_index_is_refused(
    quiz: HarnessQuestions, results: Path, tokenizer: Path, tmp_path: Path
) -> None:
    good = results / "artifacts" / CELL
    contents = {path.name: path.read_bytes() for path in good.iterdir()}
    tokens, table = contents["tokenized.0"], contents["table.0"]
    reverse = np.frombuffer(table, np.uint8).reshape(len(tokens) // 2, -1)[::-1].tobytes()
    cases: list[tuple[dict[str, bytes], str]] = [
        ({}, "there is no tokenized"),
        ({"tokenized.0": tokens}, "there is no table.0"),
        ({"tokenized.0": b"", "table.0": b""}, "0 bytes"),
        ({"tokenized.0": tokens[:-1], "table.0": table}, "no tokens of 2 each"),
        ({"tokenized.0": tokens, "table.0": table[:-1]}, "no place for each"),
        ({"tokenized.0": tokens[2:], "table.0": table[: -len(table) // (len(tokens) // 2)]}, ""),
        ({"tokenized.0": tokens, "table.0": reverse}, "doesn't hold the order"),
        ({"tokenized.0": tokens, "table.0": b"\xff" * len(table)}, "doesn't hold the order"),
    ]
    for place, (files, match) in enumerate(cases):
        folder = tmp_path / f"case{place}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=f"no ∞-gram index: .*{match}") as caught:
            _look_up(quiz, _foreign(folder, 2), results, tokenizer, tmp_path / "out")
        assert caught.value.remedy
    others: list[tuple[Produced | ForeignIndex, str]] = [
        (replace(_foreign(good, 2), path=str(tmp_path / "nowhere")), "gone from this node"),
        (replace(_foreign(good, 2), files=(("table.0", 7, ""),)), "changed since it was planned"),
        (Produced("b" * 64, ""), "gone"),
    ]
    for index, match in others:
        with pytest.raises(DataError, match=match):
            _look_up(quiz, index, results, tokenizer, tmp_path / "out")


def test_an_empty_answer_is_named(
    results: Path, texts: Texts, tokenizer: Path, tmp_path: Path
) -> None:
    records = records_of("triviaqa", texts)
    records[3] = {**records[3], "answer": {"aliases": [" "]}}
    questions = questions_of(tmp_path, "triviaqa", records)
    with pytest.raises(DataError, match="example 3 has an empty answer"):
        _look_up(questions, Produced(CELL, ""), results, tokenizer, tmp_path / "out")


def test_an_answer_without_a_prompt_follows_the_end_of_text(
    results: Path, counts: Counts, texts: Texts, tokenizer: Path, tmp_path: Path
) -> None:
    records = [{"text": "winter"}, *records_of("lambada_openai", texts)]
    questions = questions_of(tmp_path, "lambada_openai", records)
    _look_up(questions, Produced(CELL, ""), results, tokenizer, tmp_path / "out")
    found = load_answers(tmp_path / "out")
    first = found.requests[0]
    assert first.context == (AutoTokenizer.from_pretrained(tokenizer).eos_token_id,)
    # No document has that token, so nothing is known of what follows.
    expected = [probability for probability, _ in counts.answer((), first.continuation)]
    assert found.probabilities[0].tolist() == expected


def test_damaged_answers_are_told(
    quiz: HarnessQuestions, results: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    _look_up(quiz, Produced(CELL, ""), results, tokenizer, folder)
    (folder / "answers.json").write_text(json.dumps({"task": "quiz"}))
    with pytest.raises(DataError, match="cannot be read"):
        load_answers(folder)
    (folder / "answers.safetensors").write_bytes(b"short")
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_answers(folder)
    assert "retry" in caught.value.remedy
