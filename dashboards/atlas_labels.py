"""Which weights a label stands for, and what else they are called.

Invariant: a fingerprint is told of a row only where its own source knows exactly one for its label.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dashboards import query
from jobs.place import Place

LABEL = ("suite", "model", "stage", "revision")
"""Columns that tell what a checkpoint is called."""

_BETWEEN = "\x1f"

Key = str
"""The columns of a label in one string."""


@dataclass(frozen=True)
class Labels:
    """What the tables `checkpoints` of all sources say.

    Attributes:
        weights: Of each source the fingerprint of each label; None where there are several.
        names: All names of each fingerprint.
        conflicted: Labels that stand for several fingerprints.
        conflicts: Rows of `atlas_tables.CONFLICTS` that tell of them.
    """

    weights: tuple[dict[Key, str | None], ...]
    names: dict[str, list[str]]
    conflicted: frozenset[Key]
    conflicts: tuple[dict[str, Any], ...]

    def weights_of(self, keys: pa.DictionaryArray, source: npt.NDArray[np.int64]) -> pa.Array:
        """Returns the fingerprint of each row, as its source knows it."""
        known = keys.dictionary.to_pylist()
        each = [pa.array([found.get(key) for key in known], pa.string()) for found in self.weights]
        places = source * len(known) + keys.indices.to_numpy()
        return pa.concat_arrays(each).take(pa.array(places))

    def other_names(self, keys: pa.DictionaryArray, weights: Any) -> pa.Array:
        """Returns the other names of each row's weights; null where there are none."""
        own = [name(key) for key in keys.dictionary.to_pylist()]
        codes = weights.dictionary_encode()
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        fingerprints = codes.dictionary.to_pylist()
        # Null weights have no name but the row's own.
        at = codes.indices.fill_null(len(fingerprints)).to_numpy(zero_copy_only=False)
        pairs = at * len(own) + keys.indices.to_numpy()
        different, places = np.unique(pairs, return_inverse=True)
        others = []
        for pair in different.tolist():
            fingerprint, label = divmod(pair, len(own))
            known = (
                self.names.get(fingerprints[fingerprint], ())
                if fingerprint < len(fingerprints)
                else ()
            )
            others.append([n for n in known if n != own[label]] or None)
        return pa.array(others, pa.list_(pa.string())).take(pa.array(places))

    def is_conflicted(self, keys: pa.DictionaryArray) -> npt.NDArray[np.bool_]:
        """Tells of each row whether its label stands for several fingerprints."""
        known = np.array([key in self.conflicted for key in keys.dictionary.to_pylist()], bool)
        return known[keys.indices.to_numpy()] if len(known) else np.zeros(len(keys), bool)


def label_keys(rows: pa.Table) -> pa.DictionaryArray:
    """Returns each row's label in one string."""
    columns = [rows[column].fill_null("") for column in LABEL]
    keys = pc.binary_join_element_wise(*columns, _BETWEEN).combine_chunks()
    keys = pa.concat_arrays(keys.chunks) if isinstance(keys, pa.ChunkedArray) else keys
    return keys.dictionary_encode()


def name(key: Key) -> str:
    """Returns a label as people write it."""
    suite, model, _, revision = key.split(_BETWEEN)
    return "/".join(filter(None, (suite, model))) + (f"@{revision}" if revision else "")


def read_labels(places: Sequence[Place], sources: Sequence[str]) -> Labels:
    """Reads which weights the labels of all sources stand for.

    Args:
        places: Where the results lie.
        sources: Their names.

    Raises:
        StoreError: A place cannot be read.
    """
    columns = {*LABEL, "cell_id", "step", "weights_sha256"}
    found: list[tuple[int, Key, dict[str, Any]]] = []
    for source, place in enumerate(places):
        rows = query.load("checkpoints", place, columns=columns)
        keys = label_keys(rows)
        for key, row in zip(keys.to_pylist(), rows.to_pylist(), strict=True):
            if row["weights_sha256"] is not None:
                found.append((source, key, row))
    weights: list[dict[Key, str | None]] = [{} for _ in places]
    names: dict[str, list[str]] = defaultdict(list)
    for source, key, row in found:
        fingerprint = row["weights_sha256"]
        if weights[source].setdefault(key, fingerprint) != fingerprint:
            weights[source][key] = None
        if name(key) not in names[fingerprint]:
            names[fingerprint].append(name(key))
    groups = [*_by_revision(found), *_by_step(found, len(places))]
    conflicts = tuple(_conflict(group, sources) for group in groups)
    conflicted = frozenset(key for group in groups for _, key, _ in group)
    return Labels(tuple(weights), dict(names), conflicted, conflicts)


_Known = tuple[int, Key, dict[str, Any]]


def _by_revision(found: Iterable[_Known]) -> list[list[_Known]]:
    """Returns the checkpoints with the same label and different weights."""
    groups: dict[Key, dict[tuple[int, str], _Known]] = defaultdict(dict)
    for known in found:
        source, key, row = known
        groups[key].setdefault((source, row["weights_sha256"]), known)
    return [
        list(group.values())
        for group in groups.values()
        if len({fingerprint for _, fingerprint in group}) > 1
    ]


def _by_step(found: Iterable[_Known], sources: int) -> list[list[_Known]]:
    """Returns those of the same step under different revisions, where a step means one checkpoint.

    Within one source a step may have several revisions, as those that end different courses.
    """
    groups: dict[Key, list[_Known]] = defaultdict(list)
    for known in found:
        _, key, row = known
        if row["step"] is not None:
            groups[f"{key.rpartition(_BETWEEN)[0]}{_BETWEEN}{row['step']}"].append(known)
    different = []
    for group in groups.values():
        revisions = [{key for source, key, _ in group if source == s} for s in range(sources)]
        single = all(len(keys) <= 1 for keys in revisions)
        if single and len(set().union(*revisions)) > 1:
            fingerprints = {row["weights_sha256"] for _, _, row in group}
            if len(fingerprints) > 1:
                different.append(group)
    return different


def _conflict(group: Sequence[_Known], sources: Sequence[str]) -> dict[str, Any]:
    step = group[0][2]["step"]
    return {
        "kind": "label",
        "table": "checkpoints",
        "fingerprint": None,
        "labels": [name(key) for _, key, _ in group],
        "cells": [row["cell_id"] for _, _, row in group],
        "parameters": "" if step is None else f"step={step}",
        "column": "weights_sha256",
        "values": [row["weights_sha256"] for _, _, row in group],
        "sources": [sources[source] for source, _, _ in group],
        "rows": len(group),
    }
