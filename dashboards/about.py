"""What a page says of itself at its head: of which results it is, and of which study."""

import html
import json
import re
from pathlib import Path
from typing import TypedDict

import pyarrow as pa

from jobs.place import Place

PAGE = "report.html"
"""The report's name within the results."""

_HEAD_BYTES = 2**16


class About(TypedDict):
    """What a study asks for, in plain words.

    Attributes:
        name: The study's name.
        description: One line on what it shows.
        suites: Name and kind of each series of checkpoints, chains of post-training among them.
        texts: Name, kind, M and L of each text.
        asked: Each part of the study that asks for something, and what that is.
    """

    name: str
    description: str
    suites: list[tuple[str, str]]
    texts: list[tuple[str, str, int, int]]
    asked: list[tuple[str, str]]


def existing_digest(results: str | Path | Place, name: str = PAGE) -> str | None:
    """Reads the digest that a report was rendered with.

    Args:
        results: Folder or URL of the results.
        name: The report's name there.

    Returns:
        The digest; None where there is no such file, or none was given.

    Raises:
        StoreError: The place cannot be read.
    """
    found = re.search(r'<meta name="eigentrace-digest" content="([^"]*)">', _head(results, name))
    return html.unescape(found[1]) or None if found else None


def existing_study(
    results: str | Path | Place, name: str = PAGE
) -> tuple[str | None, About | None]:
    """Reads which study a report is of.

    Args:
        results: Folder or URL of the results.
        name: The report's name there.

    Returns:
        The study's name and what it asks for; None where they are not known.

    Raises:
        StoreError: The place cannot be read.
    """
    head = _head(results, name)
    title = re.search(r"<title>Eigentrace: ([^<]*)</title>", head)
    told = re.search(r'<script type="application/json" id="study-asked">([^<]*)</script>', head)
    about: About | None = json.loads(told[1]) if told else None
    return html.unescape(title[1]) if title else None, about


def _head(results: str | Path | Place, name: str) -> str:
    place = Place(results)
    try:
        if not place.exists(name):
            return ""
        return place.read(name)[:_HEAD_BYTES].decode(errors="replace")
    except (OSError, pa.ArrowException) as error:
        raise place.failure("cannot read", error, "mend its permissions", name) from error
