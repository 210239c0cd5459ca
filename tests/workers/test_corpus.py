"""The pico corpus: deterministic, deduplicated, split before anything is counted."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jobs.columns import KEYS
from jobs.errors import DataError
from jobs.pico_spec import PicoCorpus
from jobs.records import TABLES
from workers import corpus, english

SMALL = PicoCorpus(
    vocabulary_size=600,
    training_tokens=30_000,
    subjects=16,
    training_problems=30,
    heldout_problems=20,
    seed=3,
)


def _silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def prose() -> list[str]:
    return english.documents(_silent)


@pytest.fixture
def build(
    prose: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[PicoCorpus, str], tuple[Path, dict[str, Any]]]:
    monkeypatch.setattr(corpus, "documents", lambda report: prose[:800])

    def run(parameters: PicoCorpus, name: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir()
        return folder, corpus.build(parameters, corpus.source_fingerprint(), folder, _silent)

    return run


Build = Callable[[PicoCorpus, str], tuple[Path, dict[str, Any]]]


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _bytes(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = "import sys, workers.corpus; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_fingerprint_follows_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.english.sysconfig.get_path", lambda name: str(tmp_path))
    (tmp_path / "a.py").write_text("# one\n")
    first = english.source_fingerprint()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text("# left out\n")
    assert english.source_fingerprint() == first
    (tmp_path / "a.py").write_text("# two\n")
    assert english.source_fingerprint() != first


def test_two_builds_are_the_same_bytes_and_another_seed_is_not(build: Build) -> None:
    first, columns = build(SMALL, "first")
    second, again = build(SMALL, "second")
    assert _bytes(first) == _bytes(second)
    assert columns == again
    other, _ = build(SMALL.model_copy(update={"seed": 4}), "other")
    assert (other / "heldout.jsonl").read_bytes() != (first / "heldout.jsonl").read_bytes()


def test_the_row_has_the_columns_of_its_table_and_counts_the_stream(build: Build) -> None:
    folder, row = build(SMALL, "corpus")
    assert set(row) == set(TABLES["corpora"].names) - {column.name for column in KEYS}
    tokens = load_file(folder / "train.safetensors")["tokens"]
    assert tokens.dtype == np.uint16
    assert row["training_tokens"] == len(tokens) <= SMALL.training_tokens
    parts = {name: row[f"{name}_tokens"] for name in ("english", "arithmetic", "fact")}
    assert sum(int(str(count)) for count in parts.values()) == len(tokens)
    # A part ends before the first document that no longer fits; help topics are long ones.
    for name, share, lost in (
        ("english", 0.4, 3000),
        ("arithmetic", 0.4, 20),
        ("fact", 0.2, 40),
    ):
        budget = share * SMALL.training_tokens
        assert budget - lost < parts[name] <= budget


def test_no_heldout_document_and_no_heldout_sum_is_trained_on(build: Build) -> None:
    from tokenizers import Tokenizer

    folder, row = build(SMALL, "corpus")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokens = load_file(folder / "train.safetensors")["tokens"].tolist()
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    trained = text.split(corpus.END_OF_TEXT)
    assert trained.pop() == ""
    held = [str(record["text"]) for record in _records(folder / "heldout.jsonl")]
    assert len(held) == row["heldout_documents"] > 50
    assert not set(held) & set(trained)
    trained_lines = {line for document in trained for line in document.split("\n")}
    assert not {line for document in held for line in document.split("\n")} & trained_lines

    problems = _records(folder / "arithmetic_heldout.jsonl")
    assert len(problems) == SMALL.heldout_problems
    sums = {s for r in problems for s in str(r["problem"]).rstrip("=").split(",")}
    assert not [s for s in sums | {f"{s[3:]}+{s[:2]}" for s in sums} if s in text]
    asked = [str(r["prompt"]) for r in _records(folder / "questions_heldout.jsonl")]
    assert asked
    assert not [prompt for prompt in asked if prompt in text]


def test_the_tokenizer_gives_text_back_and_keeps_digits_alone(build: Build) -> None:
    from transformers import AutoTokenizer

    folder, row = build(SMALL, "corpus")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert len(tokenizer) == row["vocabulary_size"] == SMALL.vocabulary_size
    assert tokenizer.eos_token == tokenizer.pad_token == corpus.END_OF_TEXT
    for record in [*_records(folder / "heldout.jsonl")[:50], {"text": " naïve\n  — 𝛼 1234 \t"}]:
        ids = tokenizer(record["text"])["input_ids"]
        assert tokenizer.decode(ids) == record["text"]
    assert tokenizer.tokenize("07+85,36=290") == list("07+85,36=290")


def test_another_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fingerprint") as caught:
        corpus.build(SMALL, "0" * 64, tmp_path, _silent)
    assert "same release of Python" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_too_many_tokens_for_no_english_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "documents", lambda report: [])
    with pytest.raises(DataError, match="no English"):
        corpus.build(SMALL, corpus.source_fingerprint(), tmp_path, _silent)


def test_documents_are_prose_without_code_licences_or_repetition(prose: list[str]) -> None:
    assert len(prose) > 5_000
    text = "\n".join(prose)
    assert len(text) > 1_500_000
    assert not [line for line in text.split("\n") if line.startswith((">>>", "..."))]
    assert "all rights reserved" not in text.lower()
    lines = text.split("\n")
    assert len(lines) == len(set(lines))
    letters = sum(character.isalpha() or character == " " for character in text)
    assert letters / len(text) > 0.9


def test_docstrings_and_comments_are_found_and_strings_are_not_comments(tmp_path: Path) -> None:
    source = (
        '"""Module words."""\n# A comment that\n# goes on.\nx = """\n# no comment\n"""\n'
        "def f():\n    '''Function words.'''\n    # Inner comment.\n    return 1  # trailing\n"
    )
    found = list(english.prose(source))
    assert found == [
        "Module words.",
        "Function words.",
        "A comment that\ngoes on.",
        "Inner comment.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        ">>> print('this is only an example of some code')",
        "Copyright (c) 2001 by the authors, who kindly gave all of this to us",
        "too short",
        "+----+----+\n| ab | cd |\n+----+----+",
        "expr ::= term (op term)* and many more words of a grammar",
    ],
)
def test_what_is_no_prose_is_dropped(text: str) -> None:
    assert english.clean(text) == []


def test_paragraphs_are_joined_and_markup_is_removed() -> None:
    text = (
        "The ``first`` paragraph goes\nover two lines of text.\n\n    >>> code()\n\n"
        "The *second* one has quite enough words."
    )
    assert english.clean(text) == [
        "The first paragraph goes over two lines of text.",
        "The second one has quite enough words.",
    ]


def test_deduplication_ignores_case_and_punctuation() -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    again = words.upper().replace(" ", ", ") + "!"
    assert english.deduplicate([[words], [again], [again, words + " more"]]) == [
        words,
        words + " more",
    ]


def test_the_split_is_disjoint_and_leaves_near_duplicates_out() -> None:
    generator = np.random.default_rng(0)
    vocabulary = [f"w{index}" for index in range(500)]
    texts = [" ".join(generator.choice(vocabulary, size=40)) for _ in range(100)]
    nearly = [text.rsplit(" ", 3)[0] + " but another end" for text in texts]
    train, held = english.split(texts + nearly, 0.3, seed=1)
    assert len(train) == 140
    assert not set(train) & set(held)
    kept = {text[:100] for text in train}
    assert not [text for text in held if text[:100] in kept]
    assert held
    assert english.split(texts + nearly, 0.3, seed=1) == (train, held)


def test_the_default_corpus_holds_out_enough_english(prose: list[str]) -> None:
    _, held = english.split(prose, PicoCorpus().heldout_share, 0)
    # A token of the default tokenizer has 3.3 characters; 1,500 sequences of 64 must fit.
    assert sum(map(len, held)) / 3.3 > 1.1 * 1500 * 64
