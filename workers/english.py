"""English that is on every machine with Python: the standard library's docs and comments.

Invariant: the same release of Python gives the same documents in the same order, and no paragraph
twice. Importing this module is cheap, since the planner asks it for a fingerprint.
"""

import ast
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

_SKIPPED = frozenset(
    {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib-dynload", "__pycache__"}
)
_LEGAL = re.compile(
    r"copyright|licen[sc]e|warrant|permission (to|notice|is)|merchantab|all rights reserved|"
    r"contributor agreement|liable|coding[:=]|pylint|type: ignore|noqa",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"^(>>>|\.\.\.|\.\. |[|+]-|\$ |#!)|::=|[=!<>]=|->|\w\(.*\):$|^\w+(\[\w+\])? = |;$"
)
_LETTER_SHARE = 0.85
_SHORTEST_PARAGRAPH = 6
_SHORTEST_DOCUMENT = 12
_SHINGLE = 8


def _source_files() -> list[tuple[str, Path]]:
    """Returns the standard library's files as (POSIX path below it, path), sorted."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        # Folders that are no package, as config-3.11-x86_64-linux-gnu, differ between builds.
        folders[:] = [name for name in folders if name not in _SKIPPED and name.isidentifier()]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    # Both are written by the build or the distribution, not by Python's authors.
    kept = [p for p in found if not p.name.startswith(("_sysconfigdata", "sitecustomize"))]
    return sorted((path.relative_to(root).as_posix(), path) for path in kept)


def source_fingerprint() -> str:
    """Returns the SHA-256 of the English source: path, length and bytes of every file, by path.

    The planner calls this, so the module imports nothing heavy. Two nodes agree if they run the
    same release of Python.
    """
    digest = hashlib.sha256()
    for name, path in _source_files():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def clean(text: str) -> list[str]:
    """Returns the prose paragraphs of a docstring or comment, each as one line."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        kept = [line for line in lines if re.search(r"\w", line) and not _CODE.search(line)]
        # A paragraph that loses most of its lines was code, a table or a drawing.
        if not kept or len(kept) * 2 < len(lines):
            continue
        joined = re.sub(r"[`*|~^]+|[-=#_]{3,}", " ", " ".join(kept)).replace("::", ":")
        joined = re.sub(r"\s+", " ", joined).strip()
        letters = sum(c.isalpha() or c == " " for c in joined)
        words = re.findall(r"[A-Za-z]{2,}", joined)
        if (
            len(words) >= _SHORTEST_PARAGRAPH
            and letters >= _LETTER_SHARE * len(joined)
            and joined.isascii()
            and not _LEGAL.search(joined)
        ):
            paragraphs.append(joined)
    return paragraphs


def prose(source: str) -> Iterator[str]:
    """Yields the docstrings, then the comments of a Python file, raw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno is not None:
            inside.update(range(node.lineno + 1, node.end_lineno + 1))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=True)
            if docstring:
                yield docstring
    block: list[str] = []
    for number, line in enumerate(source.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("#") and number not in inside:
            block.append(stripped.lstrip("#").removeprefix(" "))
        elif block:
            yield inspect.cleandoc("\n".join(block))
            block = []
    if block:
        yield inspect.cleandoc("\n".join(block))


def documents(report: Callable[[int, int], None]) -> list[str]:
    """Returns the English documents: cleaned, no paragraph twice, in the order of the source.

    A document is one docstring, one comment or one topic of Python's built-in help; its
    paragraphs are lines. Paragraphs count as the same if their letters and digits are.

    Args:
        report: Called with (files read, files).
    """
    files = _source_files()
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    raw: list[str] = [topics[name] for name in sorted(topics)]
    for done, (_, path) in enumerate(files, start=1):
        if path.parent.name != "pydoc_data":
            raw += prose(path.read_text(encoding="utf-8", errors="replace"))
        report(done, len(files))
    return deduplicate(clean(text) for text in raw)


def deduplicate(texts: Iterable[list[str]]) -> list[str]:
    """Joins paragraphs to documents, leaving out those seen before and documents then too short.

    Args:
        texts: Paragraphs of each document.
    """
    seen: set[str] = set()
    kept = []
    for paragraphs in texts:
        fresh = []
        for paragraph in paragraphs:
            key = re.sub(r"[^a-z0-9]", "", paragraph.lower())
            if key not in seen:
                seen.add(key)
                fresh.append(paragraph)
        if sum(len(paragraph.split()) for paragraph in fresh) >= _SHORTEST_DOCUMENT:
            kept.append("\n".join(fresh))
    return kept


def split(english: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Splits documents into those for training and those held out, each in a seeded order.

    A held-out document that shares more than half of its runs of eight words with the training
    documents is left out of both: variants of a docstring would be no test.

    Args:
        english: The documents.
        share: Share to hold out, before near duplicates are left out.
        seed: Seed of the split.

    Returns:
        (training documents, held-out documents)
    """
    order = np.random.default_rng([seed, 0]).permutation(len(english)).tolist()
    cut = round(len(english) * share)
    train = [english[place] for place in order[cut:]]
    known = {shingle for text in train for shingle in _shingles(text)}
    held = []
    for place in order[:cut]:
        shingles = _shingles(english[place])
        if 2 * len(shingles & known) <= len(shingles):
            held.append(english[place])
    return train, held


def _shingles(text: str) -> set[str]:
    """Returns the runs of eight words of a text."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}
