"""What an executor tells of its slots, and what the scheduler asks of it.

Invariant: a slot is free, or runs one task; whatever an executor tells of it comes in order.
"""

from dataclasses import dataclass

from jobs.cells import Cell
from jobs.errors import Cause
from jobs.events import Failed
from jobs.sources import HubFolder


@dataclass(frozen=True)
class SlotOpened:
    """A place that can run one task at a time is there.

    Attributes:
        slot: Its name.
        node: The machine, for people.
        cache: Which cache it fetches files into; empty if that isn't known.
        seat: What kind of place it is; it runs groups of this seat alone.
    """

    slot: str
    node: str = ""
    cache: str = ""
    seat: str = ""


@dataclass(frozen=True)
class SlotAlive:
    """A place was heard, though its task has nothing to tell."""

    slot: str


@dataclass(frozen=True)
class SlotRetired:
    """A place will go soon: it ends its task and gets no other."""

    slot: str


@dataclass(frozen=True)
class SlotLost:
    """A place is gone, with whatever it ran."""

    slot: str
    cause: Cause
    message: str


@dataclass(frozen=True)
class TaskEnded:
    """A place has reported all it will of its task and is free."""

    slot: str


@dataclass(frozen=True)
class Start:
    """Run these cells together in that slot; `frugal` after they ran out of memory."""

    slot: str
    cells: tuple[Cell, ...]
    frugal: bool


@dataclass(frozen=True)
class Prepare:
    """Fetch what these cells will need to that slot's node: they are likely to run there next."""

    slot: str
    cells: tuple[Cell, ...]


def to_fetch(cell: Cell) -> tuple[HubFolder, ...]:
    """Returns what must be fetched from the hub before a cell, and its like, can run."""
    if cell.checkpoint is None:
        return ()
    sources = (cell.checkpoint.source, cell.checkpoint.tokenizer)
    return tuple(source for source in sources if isinstance(source, HubFolder))


@dataclass(frozen=True)
class Quarantine:
    """Give a cell up."""

    cell: Cell
    failure: Failed
    attempts: int


@dataclass(frozen=True)
class Abandon:
    """Kill what runs in that slot; the executor answers with the loss of the slot."""

    slot: str
    message: str


@dataclass(frozen=True)
class Release:
    """Close that slot: it is retired and runs nothing any more."""

    slot: str


Action = Start | Prepare | Quarantine | Abandon | Release
"""What the scheduler asks for."""

SlotEvent = SlotOpened | SlotAlive | SlotRetired | SlotLost | TaskEnded
"""What an executor tells of its slots."""
