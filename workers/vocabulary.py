"""The ids of a tokenizer's files, looked at before its library counts through all up to the last.

The library lists every id that a vocabulary leaves out: a single id of two thousand millions takes
all memory, and with it the process.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.errors import DataError
from workers.json_text import read_json

_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json")
_LARGEST = 10**7
_LARGE_NUMBER = re.compile(rb":\s*\d{8,}")


def check_ids(folder: Path) -> None:
    """Compares the ids of a folder's tokenizer with what any vocabulary has.

    Raises:
        DataError: An id is far beyond.
    """
    for file in (folder / name for name in _FILES if (folder / name).is_file()):
        text = file.read_bytes()
        if _LARGE_NUMBER.search(text) is None:  # Reading all of it as JSON would take long.
            continue
        try:
            content = read_json(text)
        except ValueError:  # The library says what is wrong with it.
            continue
        largest = max(_ids(content), default=0)
        if largest > _LARGEST:
            raise DataError(
                f"{file} has a token of the id {largest}, beyond any vocabulary",
                "fetch or save it again, or give the suite's `tokenizer`",
            )


def _ids(content: Any) -> Iterator[int]:
    """Yields the ids in a tokenizer's file: of its vocabulary and of the tokens added to it."""
    tables = [content]
    if isinstance(content, dict):
        model = content.get("model")
        tables.append(model.get("vocab") if isinstance(model, dict) else None)
        added = content.get("added_tokens")
        tables += added if isinstance(added, list) else []
    for table in tables:
        if isinstance(table, dict):
            yield from (value for value in table.values() if isinstance(value, int))
