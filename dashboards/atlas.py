"""Results of several people as one, joined by the fingerprints of the checkpoints' weights.

Invariant: where results contradict each other every row is kept, marked and listed; nothing is
picked. Only rows that agree, of the same cell and the same weights, become one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboards import query
from dashboards.about import existing_study
from dashboards.atlas_labels import Labels, label_keys, read_labels
from dashboards.atlas_tables import CONFLICTS, JOINED, conflict_kinds
from dashboards.atlas_values import Folded, contradictions, fold
from jobs.errors import UsageError
from jobs.place import Place
from jobs.records import SIDE_TABLES, TABLES


@dataclass(frozen=True)
class Atlas:
    """Results of several people, joined.

    Attributes:
        sources: Their names, in the order given.
        tables: Every table of `jobs.records.TABLES` by name: weights_fingerprint, source,
            also_known_as and conflict (`JOINED`), then the table's own columns. Rows are ordered as
            those of `query.load`, and by source.
        conflicts: What contradicts, in the columns `CONFLICTS`; no rows where nothing does.
        provenance: How the rows came to be: of each cell and source a record, with `source`.
        studies: Names of the studies that reports in the places are about.
    """

    sources: tuple[str, ...]
    tables: dict[str, pa.Table]
    conflicts: pa.Table
    provenance: list[dict[str, Any]]
    studies: tuple[str, ...]


def merge(
    places: Sequence[Place],
    names: Sequence[str] | None,
    relative_tolerance: float,
    absolute_tolerance: float,
) -> Atlas:
    """Does what `query.merge` says."""
    sources = _names(places, names)
    for place in places:
        query.check_results(place)
    labels = read_labels(places, sources)
    tolerances = (relative_tolerance, absolute_tolerance)
    tables, conflicts = {}, list(labels.conflicts)
    done: set[str] = set()
    # Failures last: those of cells that anybody did are no failures any more.
    for table in sorted(TABLES, key=lambda name: name == "failures"):
        loaded = [query.load(table, place) for place in places]
        if table == "failures":
            ids = pa.array(sorted(done), pa.string())
            loaded = [rows.filter(pc.invert(pc.is_in(rows["cell_id"], ids))) for rows in loaded]
        elif table not in SIDE_TABLES:
            done.update(*(rows["cell_id"].unique().to_pylist() for rows in loaded))
        tables[table], found = _joined(table, loaded, sources, labels, tolerances)
        conflicts += found
    ordered = {name: tables[name] for name in TABLES}
    provenance = [
        {"source": source, **record}
        for source, place in zip(sources, places, strict=True)
        for record in query.provenance(place)
    ]
    studies = dict.fromkeys(filter(None, (existing_study(place)[0] for place in places)))
    listed = pa.Table.from_pylist(conflicts, CONFLICTS)
    return Atlas(sources, ordered, listed, provenance, tuple(studies))


def _joined(
    table: str,
    loaded: Sequence[pa.Table],
    sources: Sequence[str],
    labels: Labels,
    tolerances: tuple[float, float],
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Joins one table; returns it with the conflicts of its values."""
    rows = pa.concat_tables(loaded).combine_chunks()
    source = np.repeat(np.arange(len(loaded)), [len(part) for part in loaded])
    keys = label_keys(rows)
    own = table == "checkpoints"
    weights = rows["weights_sha256"] if own else labels.weights_of(keys, source)
    folded = fold(table, rows, source, weights, sources, tolerances)
    found = contradictions(table, rows, weights, folded, sources, tolerances)
    extra = {
        "weights_fingerprint": weights,
        "source": pa.array(folded.holders, pa.string()),
        "also_known_as": labels.other_names(keys, weights),
        "conflict": conflict_kinds(labels.is_conflicted(keys), folded.contradicted),
    }
    columns = [*(extra[field.name] for field in JOINED), *rows.columns]
    schema = pa.schema([*JOINED, *rows.schema], metadata=rows.schema.metadata)
    whole = pa.Table.from_arrays(columns, schema=schema).take(pa.array(_order(rows, folded)))
    return whole, [*folded.conflicts, *found]


def _order(rows: pa.Table, folded: Folded) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Returns the places of the rows that are kept, in the order of `query.load`."""
    by = [(name, "ascending") for name in query.ORDER if name in rows.column_names]
    kept = np.flatnonzero(folded.kept)
    # Rows of the same cell stay in the order of the sources.
    numbered = rows.select([name for name, _ in by]).append_column(
        "at", pa.array(np.arange(len(rows)))
    )
    chosen = numbered.take(pa.array(kept))
    order = pc.sort_indices(chosen, sort_keys=[*by, ("at", "ascending")]).to_numpy()
    places: np.ndarray[Any, np.dtype[np.int64]] = kept[order]
    return places


def _names(places: Sequence[Place], names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of the sources.

    Raises:
        UsageError: There are no results, or the names don't fit them.
    """
    if not places:
        raise UsageError("there are no results to merge", "name one folder or URL at least")
    if names is None:
        return tuple(str(number) for number in range(1, len(places) + 1))
    if len(names) != len(places):
        raise UsageError(
            f"{len(names)} names for {len(places)} results", "name each of them, in their order"
        )
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name) or list(names).count(name) > 1:
            raise UsageError(
                f"results cannot be named {name!r}",
                "give each a name of its own, of letters, digits, dots, hyphens and underscores",
            )
    return tuple(names)
