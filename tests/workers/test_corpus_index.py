"""Indexes: every count is that of a brute-force one and of infini-gram's own engine."""

import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from infini_gram.engine import InfiniGramEngine

from jobs.errors import DataError
from jobs.sources import Produced
from tests.references_infinigram import Counts
from tests.workers.indexed import build, documents_of, pico_corpus, text_of_words, words_tokenizer
from workers import corpus_index
from workers.kernels.suffix_array import InfiniGram, SuffixArray

SMALL, LARGE = 41, 70_000
QUERIES, LONGEST = 3000, 9
# Many documents over few words, and over ids of which the last needs more than two bytes.
CORPORA = {
    2: (SMALL, documents_of(1, 60, range(1, 31))),
    4: (LARGE, documents_of(2, 60, [*range(1, 20), 255, 256, 65_534, 65_535, 65_536, 69_999])),
}
NAMES = sorted(corpus_index.INDEX_FILES)


@pytest.fixture(scope="module", params=sorted(CORPORA))
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size, documents = CORPORA[request.param]
    root = tmp_path_factory.mktemp("index")
    tokenizer = words_tokenizer(root / "tokenizer", size)
    # A path that infini-gram's own tools take for a table, and for three words of a shell.
    folder = root / "a stable $HOME"
    about = build(text_of_words(root / "text.txt", documents), root, tokenizer, folder)
    assert about["token_bytes"] == request.param
    return folder


def _width(index: Path) -> int:
    return int(json.loads((index / "index.json").read_text())["token_bytes"])


def _queries(documents: list[list[int]], ids: int, seed: int) -> Iterator[tuple[list[int], int]]:
    """Contexts that the corpus has, has in parts, and hasn't; with tokens that follow and don't."""
    generator = random.Random(seed)
    joined = [token for document in documents for token in document]
    for _ in range(QUERIES):
        start = generator.randrange(len(joined))
        context = joined[start : start + generator.randint(0, LONGEST - 1)]
        following = joined[(start + len(context)) % len(joined)]
        if context and generator.random() < 0.4:
            context[generator.randrange(len(context))] = generator.randrange(ids)
        yield context, following if generator.random() < 0.6 else generator.randrange(ids)


def test_thousands_of_queries_equal_a_brute_force_count(index: Path) -> None:
    size, documents = CORPORA[_width(index)]
    counts = Counts(documents, LONGEST + 1)
    model = InfiniGram(SuffixArray(index, _width(index)))
    seen = []
    for context, token in _queries(documents, size, seed=3):
        expected = counts.infinigram(context, token)
        (probability,), (length,) = model.look_up(context, [token])
        assert (probability, length) == expected
        seen.append((probability, length, len(context)))
    # All kinds were among them.
    assert {length for _, length, _ in seen} == set(range(LONGEST))
    assert sum(probability == 0 for probability, _, _ in seen) > QUERIES / 10
    assert sum(0 < probability < 1 for probability, _, _ in seen) > QUERIES / 10
    assert any(length == 0 < context for _, length, context in seen)


def test_answers_of_many_tokens_equal_a_query_for_each(index: Path) -> None:
    """Which shares what it knows of the token before."""
    size, documents = CORPORA[_width(index)]
    counts = Counts(documents, 40)
    model = InfiniGram(SuffixArray(index, _width(index)))
    generator = random.Random(4)
    for _ in range(300):
        document = generator.choice(documents)
        said = document[generator.randrange(len(document)) :][:25] + generator.choice(documents)[:6]
        said[generator.randrange(len(said))] = generator.randrange(size)
        cut = generator.randint(0, len(said) - 1)
        found = model.look_up(said[:cut], said[cut:])
        assert list(zip(*found, strict=True)) == counts.answer(said[:cut], said[cut:])


def test_queries_equal_those_of_infini_grams_engine(index: Path, tmp_path: Path) -> None:
    width = _width(index)
    size, documents = CORPORA[width]
    (tmp_path / "index").symlink_to(index)  # Its engine ends the process on the real path.
    engine = InfiniGramEngine(
        str(tmp_path / "index"), 0, vocab_size=2 ** (8 * width) - 1, token_dtype=f"u{8 * width}"
    )
    model = InfiniGram(SuffixArray(index, width))
    for (context, token), _ in zip(_queries(documents, size, seed=5), range(150), strict=False):
        expected = engine.infgram_prob(prompt_ids=context, cont_id=token)
        (probability,), (length,) = model.look_up(context, [token])
        assert (probability, length) == (expected["prob"], expected["suffix_len"])


def test_documents_do_not_cross_the_separator(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(tmp_path / "tokenizer", 10)
    documents = [[1, 2], [3, 4], [1, 2, 5]]
    build(text_of_words(tmp_path / "text.txt", documents), tmp_path, tokenizer, tmp_path / "index")
    model = InfiniGram(SuffixArray(tmp_path / "index", 2))
    # 2 is followed by a document's end and by 5; 3 never follows 2.
    assert model.look_up([1, 2], [3]) == ([0.0], [2])
    assert model.look_up([1, 2], [5]) == ([0.5], [2])
    assert model.look_up([2, 3], [4]) == ([1.0], [1])
    # Seven tokens and three separators.
    assert model.look_up([], [1]) == ([0.2], [0])
    assert model.look_up([9], [1]) == ([0.2], [0])
    assert model.look_up([9], [9, 2]) == ([0.0, 0.2], [0, 0])


def test_shards_count_together(tmp_path: Path) -> None:
    size, documents = CORPORA[2]
    tokenizer = words_tokenizer(tmp_path / "tokenizer", size)
    folder = tmp_path / "all"
    folder.mkdir()
    for shard in range(3):
        text = text_of_words(tmp_path / f"{shard}.txt", documents[shard::3])
        build(text, tmp_path, tokenizer, tmp_path / str(shard))
        for name in ("tokenized", "table", "offset"):
            (tmp_path / str(shard) / f"{name}.0").rename(folder / f"{name}.{shard}")
    counts, model = Counts(documents, LONGEST + 1), InfiniGram(SuffixArray(folder, 2))
    for context, token in _queries(documents, size, seed=6):
        (probability,), (length,) = model.look_up(context, [token])
        assert (probability, length) == counts.infinigram(context, token)


def test_the_row_and_the_file_say_what_was_indexed(index: Path) -> None:
    about = json.loads((index / "index.json").read_text())
    _, documents = CORPORA[_width(index)]
    separator = 2 ** (8 * _width(index)) - 1
    tokens = [token for document in documents for token in (separator, *document)]
    content = np.array(tokens, dtype=f"<u{_width(index)}").tobytes()
    assert (index / "tokenized.0").read_bytes() == content
    offsets = np.fromfile(index / "offset.0", dtype="<u8") // _width(index)
    assert [tokens[place] for place in offsets] == [separator] * len(documents)
    sizes = [p.stat().st_size for p in index.iterdir() if p.name != "index.json"]
    assert about == {
        "corpus_fingerprint": hashlib.sha256(content).hexdigest(),
        "tokenizer_fingerprint": about["tokenizer_fingerprint"],
        "documents": 60,
        "corpus_tokens": sum(map(len, documents)),
        "token_bytes": _width(index),
        "index_bytes": sum(sizes),
    }
    assert sorted(path.name for path in index.iterdir()) == NAMES


@pytest.mark.parametrize("width", [2, 4])
def test_parts_threads_and_repetition_change_nothing(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, _ = CORPORA[width]
    documents = documents_of(7, 6000 // width, range(1, 38))
    tokenizer = words_tokenizer(tmp_path / "tokenizer", size)
    text = text_of_words(tmp_path / "text.txt", documents)
    build(text, tmp_path, tokenizer, tmp_path / "first")
    build(text, tmp_path, tokenizer, tmp_path / "again")
    monkeypatch.setattr(corpus_index, "_PART_BYTES", 70_000)
    monkeypatch.setattr(corpus_index, "_OVERLAP_BYTES", 20_000)
    monkeypatch.setattr(corpus_index, "_THREAD_BYTES", 30_000)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    build(text, tmp_path, tokenizer, tmp_path / "parts")
    assert (tmp_path / "first" / "tokenized.0").stat().st_size > 2 * 70_000
    for name in NAMES:
        first = (tmp_path / "first" / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert (tmp_path / "parts" / name).read_bytes() == first


def test_a_pico_corpus_is_its_training_stream(tmp_path: Path) -> None:
    corpus = pico_corpus(tmp_path, "c" * 64, [5, 6, 0, 7, 0, 0, 5, 6, 8, 0, 9], 12)
    tokenizer = tmp_path / "artifacts" / ("c" * 64) / "tokenizer"
    about = build(corpus, tmp_path, tokenizer, tmp_path / "index")
    tokens = np.fromfile(tmp_path / "index" / "tokenized.0", dtype="<u2").tolist()
    assert tokens == [65535, 5, 6, 65535, 7, 65535, 5, 6, 8, 65535, 9]
    assert (about["documents"], about["corpus_tokens"]) == (4, 7)
    other = words_tokenizer(tmp_path / "other", 13)
    with pytest.raises(DataError, match="not in the tokens of this tokenizer"):
        build(corpus, tmp_path, other, tmp_path / "second")
    with pytest.raises(DataError, match="gone"):
        build(Produced("d" * 64, "train.safetensors"), tmp_path, tokenizer, tmp_path / "third")


def test_a_corpus_without_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(tmp_path / "tokenizer", 10)
    text = text_of_words(tmp_path / "text.txt", [[], []])
    with pytest.raises(DataError, match="no tokens") as caught:
        build(text, tmp_path, tokenizer, tmp_path / "index")
    assert caught.value.remedy
    assert list((tmp_path / "index").iterdir()) == []


def test_a_single_token_is_a_corpus(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(tmp_path / "tokenizer", 10)
    build(text_of_words(tmp_path / "text.txt", [[4]]), tmp_path, tokenizer, tmp_path / "index")
    model = InfiniGram(SuffixArray(tmp_path / "index", 2))
    assert model.look_up([], [4, 4]) == ([0.5, 0.0], [0, 1])


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    try:
        tokenizer = words_tokenizer(tmp_path / "tokenizer", SMALL)
        for count in (2000, 8000):  # The order doesn't fit; the tokens don't.
            text = text_of_words(tmp_path / "text.txt", documents_of(8, count, range(1, 38)))
            with pytest.raises(DataError, match="No space left on device") as caught:
                build(text, tmp_path, tokenizer, disk / "index")
            assert "make room" in caught.value.remedy
            assert list((disk / "index").iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_the_indexer_cannot_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = words_tokenizer(tmp_path / "tokenizer", SMALL)
    text = text_of_words(tmp_path / "text.txt", CORPORA[2][1])
    folder = tmp_path / "index"
    # A tool that ends well and has done nothing, as on a disk whose errors are overlooked.
    program = tmp_path / "indexer"
    monkeypatch.setattr(corpus_index, "_indexer", lambda: program)
    for script, error, match in (
        ("exit 0", DataError, "cannot be written"),
        ("echo thread panicked >&2; exit 101", DataError, "thread panicked"),
        ("kill -9 $$", MemoryError, "more memory"),
        ("echo memory allocation of 9 bytes failed >&2; exit 134", MemoryError, "more memory"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(error, match=match):
            build(text, tmp_path, tokenizer, folder)
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(tmp_path / "tokenizer", SMALL)
    text = text_of_words(tmp_path / "text.txt", CORPORA[2][1])
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "tokenized.0").mkdir()
    with pytest.raises(DataError, match="cannot be written") as caught:
        build(text, tmp_path, tokenizer, tmp_path / "index")
    assert caught.value.remedy
