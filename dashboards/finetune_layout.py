"""Tables as the page shows them, from rows of numbers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dashboards.finetune_trials import Row
from dashboards.finetune_words import Shown, column, number, pvalue
from dashboards.numbers import plain

Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Table:
    """A table as it is shown.

    Attributes:
        key: Name of its element in the page.
        title: Heading.
        note: What its columns mean.
        headings: Names of the columns; the first one names the row.
        rows: Their cells.
    """

    key: str
    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table(
    key: str, title: str, note: str, rows: Iterable[Row], columns: Sequence[tuple[str, Cell]]
) -> Table:
    """Makes a table, each cell by its column's function of the row."""
    cells = tuple(tuple(cell(row) for _, cell in columns) for row in rows)
    return Table(f"finetune-{key}", title, note, tuple(name for name, _ in columns), cells)


def text(name: str) -> Cell:
    """Shows a column as it is."""
    return lambda row: "–" if row[name] is None else str(row[name])


def shown_step(row: Row) -> str:
    """Shows a row's step."""
    return "all" if row["step"] is None else f"{row['step']:,}"


def shown_plain(name: str) -> Cell:
    """Shows a number to four digits."""
    return lambda row: plain(row[name])


def signed(name: str, shown: Shown = number) -> Cell:
    """Shows a number with its sign."""
    return lambda row: shown(row[name])


def estimated(name: str, shown: Shown = number) -> Cell:
    """Shows an estimate with its interval."""
    return lambda row: column(row, name, shown)


def tested(name: str) -> Cell:
    """Shows an estimate with its p and the number of pairs."""
    return lambda row: (
        "–" if row[name] is None else f"{column(row, name)}{pvalue(row[f'{name}_pvalue'])}"
    )
