"""Ours beside a paper's, one number a line: published, difference, n and interval.

Invariant: the published columns are there only where some line has a number that it may be compared
with; a table without them says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dashboards.finetune_layout import Table, table
from dashboards.finetune_words import Shown, interval, number
from dashboards.numbers import count, plain
from dashboards.published import Source, Value


@dataclass(frozen=True)
class Line:
    """One number.

    Attributes:
        row: What names its row.
        what: What it is.
        ours: Ours; None where it isn't defined.
        low: Lower end of its 95 % interval, where it has one.
        high: Upper end.
        n: How many points it is of.
        of: What they are.
        published: The paper's, where ours is of the same model under the same settings.
    """

    row: str
    what: str
    ours: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    of: str = ""
    published: Value | None = None


def comparison(
    key: str, title: str, note: str, source: Source, lines: Sequence[Line], needs: str
) -> Table:
    """Makes a table of ours, and of the paper's where they may be compared.

    Args:
        key: Name of its element in the page.
        title: Heading.
        note: What its numbers are.
        source: The paper's table or passage.
        lines: The numbers.
        needs: What a study must be for a comparison, for one that isn't.
    """
    compared = any(line.published is not None for line in lines)
    if compared:
        note += f" Published: {source.place} of the paper on {source.paper}. {source.note}"
    else:
        note += (
            f" Ours only: this study isn't the paper's, whose numbers ({source.place}, "
            f"{source.paper}) would need {needs}."
        )
    columns = [
        ("Row", lambda row: row["line"].row),
        ("What", lambda row: row["line"].what),
        ("Ours", lambda row: _plain(row["line"].ours)),
    ]
    if compared:
        columns += [("Published", _published), ("Difference", _difference)]
    columns += [("n", _number), ("95 % interval", _interval)]
    rows = [{"line": line} for line in lines]
    return replace(table(key, title, note, rows, columns), key=f"paper-{key}")


def difference(ours: float | None, published: Value | None, shown: Shown = number) -> str:
    """Formats ours less the published number; a dash where one of them is missing."""
    if ours is None or published is None:
        return "–"
    return shown(ours - published.value)


def _published(row: dict[str, Line]) -> str:
    value = row["line"].published
    if value is None:
        return "–"
    return f"{_plain(value.value)}{'' if value.n is None else f' (n = {value.n})'}"


def _difference(row: dict[str, Line]) -> str:
    return difference(row["line"].ours, row["line"].published)


def _number(row: dict[str, Line]) -> str:
    line = row["line"]
    if line.n is None:
        return "–"
    of = line.of.removesuffix("s") if line.n == 1 else line.of
    return f"{count(line.n)} {of}".strip()


def _interval(row: dict[str, Line]) -> str:
    line = row["line"]
    return interval(line.low, line.high, _plain).strip() or "–"


def _plain(value: float | None) -> str:
    return plain(value).replace("-", "−")
