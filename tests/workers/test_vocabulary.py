"""Ids of tokenizers: those that would take all memory are refused, all others let through."""

import json
from pathlib import Path

import pytest

from jobs.errors import DataError
from workers.hub import load_tokenizer
from workers.vocabulary import check_ids


@pytest.mark.parametrize("number", [10**7 + 1, 2**31, 2**32 - 1, 10**30])
@pytest.mark.parametrize("place", ["vocabulary", "added"])
def test_an_id_beyond_any_vocabulary_is_refused(copy_series: Path, number: int, place: str) -> None:
    file = copy_series / "step0" / "tokenizer.json"
    content = json.loads(file.read_text())
    if place == "added":
        content["added_tokens"][0]["id"] = number
    else:
        content["model"]["vocab"][next(iter(content["model"]["vocab"]))] = number
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"tokenizer.json has a token of the id {number}") as told:
        load_tokenizer(file.parent)
    assert told.value.remedy


@pytest.mark.parametrize("name", ["vocab.json", "added_tokens.json"])
def test_other_files_of_a_vocabulary_are_looked_at(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"a": 0, "b": 123456789}')
    with pytest.raises(DataError, match=f"{name} has a token of the id 123456789"):
        check_ids(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"a": 99999999',
        '{"model": {"vocab": {"a": 9999999}}}',
        '{"model": {"vocab": [["a", -12345678.5]]}, "added_tokens": [3, null]}',
        '{"model": {"vocab": {": 123456789": 1}}}',
        '{"truncation": {"max_length": 2147483647}}',
        '{"model": [123456789], "added_tokens": {"id": 1}}',
    ],
)
def test_what_is_no_id_is_let_through(tmp_path: Path, content: str) -> None:
    check_ids(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    check_ids(tmp_path)
