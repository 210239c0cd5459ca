"""Seeded damage: to the bytes of a file, and to the tables, lists and values of a document."""

import copy
import json
import math
import random
import re
from collections.abc import Callable
from typing import Any

Tree = Any
"""Nested dicts with string keys, lists and plain values."""

NUMBERS: tuple[int | float, ...] = (
    *(0, -1, 1, 2, 3, 7, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 10**12, 10**18, 10**30, 10**400),
    *(-(10**18), 0.0, 0.5, 1.5, 1e-9, 5e-324, 1e30, 1e308, -1e308, math.nan, math.inf, -math.inf),
)
TEXTS = (
    *("", " ", "x", "0", "true", "null", "main", "last", "all", "pico", "text", "step{step}", "*"),
    *(
        "../../x",
        "../../../../etc/passwd",
        "/etc/passwd",
        "/",
        "//",
        ".",
        "..",
        "~",
        "~no-such-user",
    ),
    *("a\0b", "a\nb", "\x1b[31m", "\u202e", "é", "\U0001f600", "\ufeff", "\ud7ff", "[bold]", "{}"),
    *("%s%n", "$(touch pwned)", "`touch pwned`", "'; touch pwned", "__import__('os').getpid()"),
    *("!function evil.run", "http://127.0.0.1:1/v1", "s3://bucket/x", "file:///etc/passwd", "a/b"),
    *("x" * 300, "x" * 20_000, "x/" * 3_000, "*" * 40, "step{step}" + "*" * 30, "9" * 5_000),
)
_BYTES = (
    *(b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\0", b"\xef\xbb\xbf", b"\r", b"\x1a", b"\n\n"),
    *(b"[" * 100_000, b'{"a":' * 50_000, b"[[[[[[", b"]" * 50, b"{a={b={c=", b'"""', b"'''"),
    *(b"9" * 5_000, b"0x" + b"f" * 5_000, b"1e999", b"-1", b"nan", b"NaN", b"Infinity", b"null"),
    *(b"../../x", b"1979-05-27T07:32:00Z", b"#", b"=", b",", b":", b'"', b"\\", b"\\ud800", b" "),
)
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\d_.eE+-]*|[\w.-]+|\S')
_WINDOW = 8_000
_HOW_MANY = (1, 1, 1, 2, 3)


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Returns some bytes with one to three changes: of spans, of lines, or of tokens."""
    for _ in range(chance.choice(_HOW_MANY)):
        content = chance.choice(_BYTE_CHANGES)(content, chance)
    return content


def mutate_tree(tree: Tree, chance: random.Random) -> Tree:
    """Returns a copy of a document with one to three changes to its values, keys or members."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice(_HOW_MANY)):
        places = list(_places(tree))
        if not places:
            return some_value(chance)
        parent, key = chance.choice(places)
        chance.choice(_TREE_CHANGES)(parent, key, chance)
    return tree


def some_value(chance: random.Random) -> Tree:
    """Returns a value of any type."""
    number, text = chance.choice(NUMBERS), chance.choice(TEXTS)
    return chance.choice(
        [number, text, True, False, None, [], {}, [number], [text], {text: number}]
    )


def like(value: Tree, chance: random.Random) -> Tree:
    """Returns another value that may pass for the one given."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([value + 1, value * 2, max(0, value - 1), -value, float(value), 1])
        case float():
            return chance.choice([value * 2, value / 3, -value, 1.0 - value, 0.25])
        case str():
            return chance.choice([value + "x", value[:-1], value.upper(), value * 2, f" {value}"])
        case list():
            turned = [*value]
            chance.shuffle(turned)
            return chance.choice([turned, value * 2, value[1:], [*value, some_value(chance)]])
    return some_value(chance)


def nested(depth: int, chance: random.Random) -> Tree:
    """Returns lists or tables within each other."""
    found: Tree = 1
    for _ in range(depth):
        found = [found] if chance.random() < 0.5 else {"a": found}
    return found


def _span(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + int(chance.paretovariate(0.7)))


def _delete(content: bytes, chance: random.Random) -> bytes:
    start, end = _span(content, chance)
    return content[:start] + content[end:]


def _duplicate(content: bytes, chance: random.Random) -> bytes:
    start, end = _span(content, chance)
    return content[:end] + content[start:]


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + chance.choice(_BYTES) + content[start:]


def _flip(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return b"\xff"
    place = chance.randrange(len(content))
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def _line(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
        case 3:
            lines[first] = lines[first][: len(lines[first]) // 2]
        case 4:
            lines[first] = lines[first] * chance.choice([2, 3, 1000])
    return b"\n".join(lines)


def _token(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(max(1, len(content) - _WINDOW))
    found = list(_TOKEN.finditer(content, start, start + _WINDOW))
    if not found:
        return content + chance.choice(_BYTES)
    token, other = chance.choice(found), chance.choice(found)
    number, text = chance.choice(NUMBERS), chance.choice(TEXTS)
    new = chance.choice(
        [
            b"",
            other[0],
            token[0] * 2,
            written(number).encode(),
            json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            b"[" + token[0] + b"]",
            chance.choice(_BYTES),
        ]
    )
    return content[: token.start()] + new + content[token.end() :]


def written(number: float) -> str:
    """Returns a number as JSON and TOML write it, an integer of any length too."""
    # As hexadecimal beyond what Python writes in decimal digits.
    return repr(number) if isinstance(number, float) or abs(number) < 10**4000 else hex(number)


_BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_delete, _duplicate, _truncate, _insert, _insert, _flip, _line, _line),
    *[_token] * 6,
)


def _places(tree: Tree) -> list[tuple[Any, Any]]:
    """Returns every value of a document as the table or list that holds it, and its key."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree)
    if not isinstance(tree, dict | list):
        return []
    found: list[tuple[Any, Any]] = []
    for key, value in members:
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += _places(value)
    return found


def _replace(parent: Any, key: Any, chance: random.Random) -> None:
    parent[key] = some_value(chance)


def _tweak(parent: Any, key: Any, chance: random.Random) -> None:
    parent[key] = like(parent[key], chance)


def _stretch(parent: Any, key: Any, chance: random.Random) -> None:
    """Puts a value of the same type in its place, one that few expect."""
    match parent[key]:
        case bool():
            return
        case int():
            parent[key] = chance.choice([n for n in NUMBERS if isinstance(n, int)])
        case float():
            parent[key] = float(chance.choice([n for n in NUMBERS if isinstance(n, float)]))
        case str():
            parent[key] = chance.choice(TEXTS)


def _drop(parent: Any, key: Any, _chance: random.Random) -> None:
    del parent[key]


def _double(parent: Any, key: Any, chance: random.Random) -> None:
    value = copy.deepcopy(parent[key])
    if isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), value)
    else:
        parent[f"{key}2"] = value


def _rename(parent: Any, key: Any, chance: random.Random) -> None:
    if isinstance(parent, dict):
        new = chance.choice([*TEXTS[:30], f"{key}s", str(key)[:-1], str(key).upper()])
        parent[new] = parent.pop(key)


def _move(parent: Any, key: Any, chance: random.Random) -> None:
    other = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]


def _nest(parent: Any, key: Any, chance: random.Random) -> None:
    parent[key] = nested(chance.choice([1, 3, 40, 150]), chance)


def _extend(parent: Any, key: Any, chance: random.Random) -> None:
    if isinstance(parent[key], dict):
        parent[key][chance.choice(TEXTS[:30])] = some_value(chance)
    elif isinstance(parent[key], list):
        parent[key].extend([some_value(chance)] * chance.choice([1, 2, 300]))
    else:
        parent[key] = [parent[key]]


_TREE_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    *(_replace, *[_stretch] * 5, *[_tweak] * 8, _drop, _drop),
    *(_double, _rename, _move, _nest, _extend),
)
