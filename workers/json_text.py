"""JSON from outside, which may hold anything: it is read, or it is a ValueError."""

import json
from typing import Any


def read_json(text: bytes) -> Any:
    """Reads JSON in UTF-8, with or without a mark at its beginning.

    Raises:
        ValueError: It is not JSON, lies too deep within itself, or has half of a surrogate pair in
            it, which is no text that a tokenizer or Arrow could take.
    """
    try:
        value = json.loads(text)
        if b"\\u" in text or b"\xed" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("lists or tables lie too deep within each other") from None
    return value
