"""Every error a user can meet. Each one says what was wrong, with which value, and the remedy."""

import difflib
from collections.abc import Sequence
from typing import Literal

_LONGEST = 1_000
"""Characters of a message, and of a remedy; a value that it names may be of any length."""

Cause = Literal["preempted", "infrastructure", "memory", "data", "diverged", "user"]


class EigentraceError(Exception):
    """Root of the tree.

    Args:
        message: What was wrong, naming the value.
        remedy: What the reader can do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        message, remedy = shortened(message, _LONGEST), shortened(remedy, _LONGEST)
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} → {self.remedy}" if self.remedy else self.message


class UsageError(EigentraceError):
    """The user's mistake, seen before any work starts: the command ends with exit code 2."""


class StudyError(UsageError):
    """A study, an override or a path that a study names is wrong."""


class StoreError(UsageError):
    """The results folder cannot be used."""


class CellError(EigentraceError):
    """A cell cannot give its rows. It becomes a failure row and the rest of the run goes on."""

    cause: Cause = "user"


class DataError(CellError):
    """Weights or text that cannot be measured: truncated, not finite, too short, degenerate."""

    cause: Cause = "data"


class DivergedError(CellError):
    """A training run whose loss is no longer a number."""

    cause: Cause = "diverged"


def shortened(text: str, longest: int = 200) -> str:
    """Returns a text without its middle where it is longer than anyone reads."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} … {text[-longest // 4 :]}"


def nearest(word: str, names: Sequence[str]) -> str:
    """Returns the part of a message that names what may have been meant; empty if nothing is."""
    close = difflib.get_close_matches(word, [name for name in names if name], n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
