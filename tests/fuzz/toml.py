"""Documents as TOML: whatever a document holds, each of its tables in one line."""

import json
import math
from typing import Any

from tests.fuzz.mutations import written


def to_toml(document: dict[str, Any]) -> str:
    """Returns a document as TOML, without the values that TOML has no word for."""
    return "".join(
        f"{_text(key)} = {_value(value)}\n" for key, value in document.items() if value is not None
    )


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return "nan"
        case int() | float():
            return written(value)
        case list():
            return f"[{', '.join(_value(member) for member in value if member is not None)}]"
        case dict():
            pairs = (f"{_text(k)} = {_value(v)}" for k, v in value.items() if v is not None)
            return f"{{{', '.join(pairs)}}}"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
