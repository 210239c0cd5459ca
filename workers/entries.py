"""Entries of a folder with a budget: which ones there are, and which ones go to make room.

An entry counts at the size that was reserved for it, or at what lies on the disk if that is more.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, last_use INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Found:
    """What lies on the disk of an entry.

    Attributes:
        bytes: Its size so far.
        changed: When it changed last.
    """

    bytes: int
    changed: float


@dataclass(frozen=True)
class Entry:
    """What the ledger says of an entry.

    Attributes:
        bytes: What it counts.
        last_use: A number that is greater the later it was reserved.
        used: Whether it was ever needed, and not only fetched ahead.
    """

    bytes: int
    last_use: int
    used: bool


def reconcile(
    ledger: sqlite3.Connection, found: Mapping[str, Found], pins: Mapping[str, int]
) -> dict[str, Entry]:
    """Brings the ledger in line with the files and the pins, and returns its entries.

    What is neither on the disk nor pinned is forgotten; what the ledger doesn't know is taken for
    used, and the longer ago a file changed the earlier.
    """
    known = {
        key: Entry(size, last_use, bool(used))
        for key, size, last_use, used in ledger.execute("SELECT * FROM entries")
    }
    for key in known.keys() - found.keys() - pins.keys():
        del known[key]
        ledger.execute("DELETE FROM entries WHERE key = ?", (key,))
    last_use = max((entry.last_use for entry in known.values()), default=0)
    changed: dict[str, Entry] = {}
    for key in (*sorted(found, key=lambda key: found[key].changed), *(pins.keys() - found.keys())):
        size = max(found[key].bytes if key in found else 0, pins.get(key, 0))
        if key not in known:
            last_use += 1
            changed[key] = Entry(size, last_use, True)
        elif size > known[key].bytes:
            changed[key] = replace(known[key], bytes=size)
    write(ledger, changed)
    return known | changed


def write(ledger: sqlite3.Connection, entries: Mapping[str, Entry]) -> None:
    """Puts entries in the ledger, in the place of earlier ones."""
    ledger.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
        [(key, entry.bytes, entry.last_use, entry.used) for key, entry in entries.items()],
    )


def leaving(
    entries: Mapping[str, Entry],
    kept: Mapping[str, int],
    wanted: Mapping[str, int],
    budget: int,
    ahead: bool,
) -> list[str] | None:
    """Returns which entries go to make room, in their order; None if there is not enough room.

    Args:
        entries: All that there are.
        kept: Those that are pinned.
        wanted: Those to make room for, with their sizes.
        budget: Most bytes.
        ahead: Whether those go, too, that were fetched ahead and not used yet.
    """
    excess = sum(entry.bytes for key, entry in entries.items() if key not in wanted) - budget
    excess += sum(max(n, entries[k].bytes if k in entries else 0) for k, n in wanted.items())
    idle = [
        key
        for key, entry in entries.items()
        if key not in kept and key not in wanted and (entry.used or ahead)
    ]
    gone: list[str] = []
    for key in sorted(idle, key=lambda key: (not entries[key].used, entries[key].last_use, key)):
        if excess <= 0:
            break
        gone.append(key)
        excess -= entries[key].bytes
    return gone if excess <= 0 else None
