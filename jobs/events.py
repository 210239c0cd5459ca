"""What a worker tells of its cells. Executors pass these on; the scheduler reacts to them."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs.errors import Cause


@dataclass(frozen=True)
class Started:
    """A cell is being worked on."""

    cell_id: str


@dataclass(frozen=True)
class Progress:
    """A long cell's state: `done` of `total` units."""

    cell_id: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A cell's rows, side tables first and the primary one last.

    Without tables it is a receipt: the worker has already written the rows.

    Attributes:
        cell_id: The cell.
        tables: Name and rows of each table.
        provenance: Code, libraries, device, precision, threads and seconds.
    """

    cell_id: str
    tables: tuple[tuple[str, pa.Table], ...]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A cell could not give its rows.

    Attributes:
        cell_id: The cell.
        cause: Who is to blame.
        message: What was wrong.
        remedy: What to do about it.
        traceback: Where it came up.
        provenance: Where it was tried.
    """

    cell_id: str
    cause: Cause
    message: str
    remedy: str = ""
    traceback: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Alive:
    """The worker is at work, though it has nothing to tell."""


Event = Started | Progress | Finished | Failed
