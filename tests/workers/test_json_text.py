"""JSON from outside: what Python reads, but for what nobody downstream could bear."""

import json

import pytest

from workers.json_text import read_json


@pytest.mark.parametrize(
    "value", [None, 3, "é\U0001f600", [], {"a": [1, 2.5, "\\u"]}, {"\U0001f600": "\ud7ff"}]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_json_holds_comes_back(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read_json(text) == value
    assert read_json(b"\xef\xbb\xbf" + text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"1 2",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\xed\xa0\x80"',
        b"9" * 5_000,
    ],
)
def test_anything_else_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)
