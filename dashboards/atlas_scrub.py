"""Takes out of what is published whatever tells of machines and people: paths and addresses.

What texts and models say is left as it is, since it was measured.
"""

import re
from typing import Any

import pyarrow as pa

SAID = frozenset(
    {
        *("prompt", "text", "texts", "answers", "response", "output", "reference", "template"),
        *("highest_norm_tokens", "lowest_norm_tokens"),
    }
)
"""Columns with texts that were given to models, or came from them."""

_URL = re.compile(r"""\b[A-Za-z][\w+.-]*://[^\s"'<>]+""")
_PATH = re.compile(
    r"""(?<![\w./\\~-])(?:[A-Za-z]:|~[\w.-]*|\.{1,2})?(?:[/\\][^\s/\\:;,"'<>|()\[\]{}]+)+[/\\]?"""
)
_BETWEEN = re.compile(r"[/\\]+")


def scrubbed_text(text: str) -> str:
    """Returns a text whose paths and URLs are cut down to their last parts.

    A last part that names a person or a machine goes as well: a home folder, a URL's host.
    """
    return _PATH.sub(_last, _URL.sub(_last, text))


def _last(match: "re.Match[str]") -> str:
    scheme, _, rest = match[0].rpartition("://")
    parts = _BETWEEN.split(rest.rstrip("/\\"))
    if scheme and len(parts) == 1:
        return "address"
    return "home" if parts[-2:-1] in (["home"], ["Users"]) else parts[-1]


def scrubbed(table: pa.Table) -> pa.Table:
    """Returns a table whose names and findings are scrubbed, lists of them as well."""
    for place, field in enumerate(table.schema):
        texts = pa.types.is_string(field.type)
        lists = pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type)
        if field.name in SAID or not (texts or lists):
            continue
        chunks = [_texts(chunk) if texts else _lists(chunk) for chunk in table.column(place).chunks]
        table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return table


def _texts(column: pa.Array) -> pa.Array:
    coded = column.dictionary_encode()
    words: list[Any] = coded.dictionary.to_pylist()
    return pa.array(map(scrubbed_text, words), pa.string()).take(coded.indices)


def _lists(column: pa.Array) -> pa.Array:
    rows = column.to_pylist()
    return pa.array([row and [word and scrubbed_text(word) for word in row] for row in rows],
                    column.type)  # fmt: skip
