"""Reading of the user's files: what is taken as a document, and what is refused."""

from pathlib import Path

import datasets
import pytest
from transformers import AutoTokenizer

from jobs.errors import DataError
from jobs.text_spec import Sequences
from tests.conftest import Texts
from tests.workers.drawing import drawn_from, files, lists


def test_separators_line_ends_and_several_files(tokenizer: Path, tmp_path: Path) -> None:
    # Names that a shell would take for patterns.
    one, two, three = tmp_path / "a[1].txt", tmp_path / "b*.txt", tmp_path / "c?.jsonl"
    one.write_bytes(b"alpha\r\n\r\nbeta gamma\r\n\r\n  \r\n\r\ndelta")
    two.write_text("épsilon\n\nzeta")
    three.write_text('{"text": "eta"}\n{"text": null}\n{"text": "  "}\n{"text": "theta"}\n')
    draw = Sequences(sequences=7, sequence_length=40)
    _, drawn = drawn_from(files(one, two, three), draw, tokenizer, tmp_path / "out")
    decode = AutoTokenizer.from_pretrained(tokenizer).decode
    words = {"alpha", "beta gamma", "delta", "épsilon", "zeta", "eta", "theta"}
    assert {decode(ids) for ids in lists(drawn)} == words
    one.write_text("one<|endoftext|>two\n\nstill two<|endoftext|>three<|endoftext|>four")
    draw = Sequences(sequences=4, sequence_length=40)
    text = files(one, separator="<|endoftext|>")
    _, drawn = drawn_from(text, draw, tokenizer, tmp_path / "out2")
    assert {decode(ids) for ids in lists(drawn)} == {"one", "two\n\nstill two", "three", "four"}


def test_json_holds_a_list_or_lines(tokenizer: Path, tmp_path: Path) -> None:
    draw = Sequences(sequences=4, sequence_length=40)
    words = {"alpha", "beta gamma", "delta", "zeta"}
    decode = AutoTokenizer.from_pretrained(tokenizer).decode
    more = '{"text": "delta"}\n{"text": "zeta"}\n'
    for number, content in enumerate(
        (
            '[{"text": "alpha", "n": 1},\n {"text": "beta gamma"}, {"n": 3}, '
            '{"text": "delta"}, {"text": "zeta"}]',
            '{"text": "alpha"}\n{"text": "beta gamma"}\n' + more,
            '\ufeff{"text": "alpha"}\r\n\r\n{"text": "beta gamma", "text2": null}\n' + more,
        )
    ):
        file = tmp_path / f"{number}.json"
        file.write_text(content, encoding="utf-8")
        _, drawn = drawn_from(files(file), draw, tokenizer, tmp_path / f"out{number}")
        assert {decode(ids) for ids in lists(drawn)} == words


def test_text_of_our_own_is_read_without_a_library(
    texts: Texts, tokenizer: Path, tmp_path: Path
) -> None:
    draw = Sequences(sequences=30, sequence_length=16)
    _, ours = drawn_from(texts.jsonl, draw, tokenizer, tmp_path / "ours")
    _, theirs = drawn_from(files(texts.jsonl), draw, tokenizer, tmp_path / "theirs")
    assert ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"body": "x"}\n', "no field 'text', only body"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "cannot be read as JSON lines"),
        ("a.jsonl", b"no json", "cannot be read as JSON lines"),
        ("a.jsonl", b'{"text": ["x", "y"]}\n', "holds list, not text"),
        ("a.jsonl", b'{"text": 3}\n', "holds int, not text"),
        ("a.jsonl", b'{"text": "\xff\xfe"}\n', "cannot be read as JSON lines"),
        ("a.jsonl", b'{"text": "x"}\nnull\n', "record 2 is no table of names and values"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogates not allowed"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        # It ended the process in the library's own parser.
        ("a.jsonl", b'{["text"]: "x"}\n', "cannot be read as JSON lines"),
        ("a.json", b"[" * 100_000, "too deep"),
        ("a.json", b'[{"text": "x"}, 3]', "record 2 is no table"),
        ("a.jsonl", b"", "only 0 of 4 sequences"),
        ("a.jsonl", b"\n\n", "only 0 of 4 sequences"),
        ("a.txt", b"\xff\xfeh\x00i\x00", "can't decode byte 0xff"),
        ("a.txt", "naïve".encode("latin-1"), "cannot be read as text"),
        ("a.txt", b"", "only 0 of 4 sequences"),
        ("a.txt", b"\n\n \n\n", "only 0 of 4 sequences"),
        ("a.txt", b"one\n\ntwo", "only 2 of 4 sequences"),
    ],
)
def test_text_that_cannot_be_used_is_refused(
    tokenizer: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        drawn_from(files(tmp_path / name), Sequences(sequences=4), tokenizer, tmp_path / "out")
    assert message in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("removed", [True, False])
def test_a_file_that_changed_since_it_was_planned_is_refused(
    texts: Texts, tokenizer: Path, tmp_path: Path, removed: bool
) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(texts.txt.read_bytes())
    text = files(file)
    file.unlink() if removed else file.write_text("other")
    with pytest.raises(DataError, match="changed since it was planned") as error:
        drawn_from(text, Sequences(sequences=4), tokenizer, tmp_path / "out")
    assert str(file) in error.value.message


def test_a_tokenizer_that_cannot_be_loaded_is_refused(texts: Texts, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="tokenizer"):
        drawn_from(files(texts.txt), Sequences(sequences=4), tmp_path, tmp_path / "out")


def test_nothing_is_left_in_the_users_cache(
    texts: Texts, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, cache)
    drawn_from(files(texts.txt, texts.jsonl), Sequences(sequences=9), tokenizer, tmp_path / "out")
    assert not cache.exists()
    assert list(temporary.iterdir()) == []
    written = {f.name for f in (tmp_path / "out").iterdir()}
    assert written == {"sequences.safetensors", "sequences.json"}
