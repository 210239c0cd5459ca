"""Whether rows of several sources agree: those that do become one, and contradictions are listed.

Invariant: rows become one only with all other rows of their cell, where all of their values are
equal within the tolerance. A value that one of them lacks is no contradiction, and joins nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboards.atlas_conflicts import Mask, conflict, differences, largest
from dashboards.atlas_tables import PARAMETERS
from dashboards.distances import Places


@dataclass(frozen=True)
class Folded:
    """Rows of all sources, the same of several of them once.

    Attributes:
        kept: Which rows stay.
        holders: Of each row the names of the sources that hold it, joined by +.
        contradicted: Rows of cells whose values contradict those of another source.
        conflicts: What contradicts.
    """

    kept: Mask
    holders: list[str]
    contradicted: Mask
    conflicts: list[dict[str, Any]]


def fold(
    table: str,
    rows: pa.Table,
    source: Places,
    weights: Any,
    sources: Sequence[str],
    tolerances: tuple[float, float],
) -> Folded:
    """Makes one of the cells that several sources hold alike.

    Args:
        table: Name of the table.
        rows: Its rows in all sources.
        source: The source of each, ascending.
        weights: Its fingerprint, or null.
        sources: Names of the sources.
        tolerances: Relative and absolute difference up to which numbers are equal.
    """
    kept, contradicted = np.ones(len(rows), bool), np.zeros(len(rows), bool)
    if table == "failures":  # The luck of a run: each is kept, with its source.
        return Folded(kept, [sources[s] for s in source.tolist()], contradicted, [])
    group = _groups(rows["cell_id"], weights, source)
    first = np.full(int(group.max(initial=-1)) + 1, len(sources))
    np.minimum.at(first, group, source)
    base = source == first[group]
    pairs = group * len(sources) + source
    ours, theirs = _partners((group << 32) | rows["row"].to_numpy(), base)
    conflicts = []
    unlike = _unlike_counts(pairs, base, theirs, group)
    contradicting = set(unlike)
    for a, b, told in _counted(pairs, first, unlike, len(sources)):
        holders = (sources[source[a]], sources[source[b]])
        conflicts.append(conflict(table, rows, weights, "row", (a, b), holders, 1) | told)
    for column, different, sizes in differences(table, rows, ours, theirs, tolerances):
        unlike.update(pairs[theirs[different]].tolist())
        contradicting.update(pairs[theirs[sizes > 0]].tolist())
        for place, count in largest(sizes, pairs[theirs]):
            a, b = int(ours[place]), int(theirs[place])
            holders = (sources[source[a]], sources[source[b]])
            conflicts.append(conflict(table, rows, weights, column, (a, b), holders, count))
    alike = np.setdiff1d(np.unique(pairs[~base]), np.array(sorted(unlike), np.int64))
    kept = ~np.isin(pairs, alike)
    wrong = np.array(sorted(contradicting), np.int64)
    contradicted = np.isin(pairs, wrong) | (base & np.isin(group, wrong // len(sources)))
    joined: dict[int, str] = {}
    for pair in alike.tolist():
        g, s = divmod(pair, len(sources))
        joined[g] = f"{joined.get(g, sources[first[g]])}+{sources[s]}"
    holding = [
        joined.get(g, sources[s]) if of_base else sources[s]
        for g, s, of_base in zip(group.tolist(), source.tolist(), base.tolist(), strict=True)
    ]
    return Folded(kept, holding, contradicted, conflicts)


def contradictions(
    table: str,
    rows: pa.Table,
    weights: Any,
    folded: Folded,
    sources: Sequence[str],
    tolerances: tuple[float, float],
) -> list[dict[str, Any]]:
    """Finds what differs between cells that measured the same weights in the same way.

    They have other ids where the weights or the tokenizer came in other files. Marks their rows in
    `folded.contradicted`.

    Args:
        table: Name of the table.
        rows: Its rows in all sources.
        weights: Fingerprint of each.
        folded: What became of them.
        sources: Names of the sources.
        tolerances: As in `fold`.

    Returns:
        Rows of conflicts.
    """
    if table not in PARAMETERS:
        return []
    chosen = np.flatnonzero(folded.kept & ~np.asarray(pc.is_null(weights), bool))
    if not len(chosen):
        return []
    part = rows.take(pa.array(chosen))
    known = [pc.cast(part[column], pa.string()).fill_null("") for column in PARAMETERS[table]]
    fingerprints = weights.take(pa.array(chosen))
    key = pc.binary_join_element_wise(fingerprints, *known, "\x1f")
    codes, cells = _codes(key), _codes(part["cell_id"])
    _, starts, places = np.unique(codes, return_index=True, return_inverse=True)
    others = np.flatnonzero(cells != cells[starts[places]])
    ours, theirs = chosen[starts[places[others]]], chosen[others]
    found = []
    between = (cells[starts[places[others]]] << 32) | cells[others]
    for column, _, sizes in differences(table, rows, ours, theirs, tolerances, pa.float64()):
        folded.contradicted[np.concatenate([ours[sizes > 0], theirs[sizes > 0]])] = True
        for place, count in largest(sizes, between):
            a, b = int(ours[place]), int(theirs[place])
            holders = (folded.holders[a], folded.holders[b])
            found.append(conflict(table, rows, weights, column, (a, b), holders, count))
    return found


def _groups(cells: pa.ChunkedArray, weights: Any, source: Places) -> Places:
    """Returns a number for each cell; for each of its weights, where sources know others for it.

    A checkpoint that a cell made is identified by that cell, and its bits differ between machines.
    """
    cell, known = _codes(cells), _codes(weights)
    pairs = np.unique(np.stack([cell, known])[:, known >= 0], axis=1)
    split = np.flatnonzero(np.bincount(pairs[0], minlength=int(cell.max(initial=-1)) + 1) > 1)
    # Unknown weights are nobody else's then.
    own = np.where(known >= 0, known, int(known.max(initial=-1)) + 1 + source)
    apart = np.where(np.isin(cell, split), own + 1, 0)
    _, groups = np.unique(np.stack([cell, apart]), axis=1, return_inverse=True)
    return groups.reshape(-1).astype(np.int64)


def _partners(keys: Places, base: Mask) -> tuple[Places, Places]:
    """Returns the places of rows of the first sources, and those of the same rows of others."""
    firsts, others = np.flatnonzero(base), np.flatnonzero(~base)
    if not len(others):
        return others, others
    order = firsts[np.argsort(keys[firsts])]
    at = np.minimum(np.searchsorted(keys[order], keys[others]), len(order) - 1)
    found = keys[order[at]] == keys[others]
    return order[at[found]], others[found]


def _unlike_counts(pairs: Places, base: Mask, theirs: Places, group: Places) -> set[int]:
    """Returns the pairs of cell and source that haven't the rows that the cell's first source has.

    Args:
        pairs: Cell and source of each row in one number.
        base: Rows of first sources.
        theirs: Rows of others that the first source has as well.
        group: Cell of each row.
    """
    first = Counter(group[base].tolist())
    there, matched = Counter(pairs[~base].tolist()), Counter(pairs[theirs].tolist())
    cell = dict(zip(pairs.tolist(), group.tolist(), strict=True))
    return {pair for pair, n in there.items() if not n == matched[pair] == first[cell[pair]]}


def _counted(
    pairs: Places, first: Places, unlike: Iterable[int], sources: int
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields a row of each source of cells that differ in their rows, and how many there are."""
    for pair in sorted(unlike):
        cell = pair // sources
        both = [np.flatnonzero(pairs == p) for p in (cell * sources + int(first[cell]), pair)]
        values = [f"{len(places)} rows" for places in both]
        yield int(both[0][0]), int(both[1][0]), {"values": values, "parameters": ""}


def _codes(values: Any) -> Places:
    """Numbers the different values of a column; −1 for null."""
    array = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    coded = array.dictionary_encode()
    parts = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in coded.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)
