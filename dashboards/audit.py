"""What was refused before it was loaded, and which loads look wrong: told by the records alone."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dashboards import query
from dashboards.tables import Measured, Row, checkpoint_key
from jobs.place import Place

DETOUR = 2.0
"""How many times as long as the direct way the way over a checkpoint is, if it looks wrong.

Over the 22 checkpoints of a pico model, the longest way of any is 1.09 times the direct one; a
random walk of the weights would give 1.41. Of all pairs of steps of that model that are no
neighbours, the weights of one in the place of the other are noticed in 87 of 100 cases; at five
times the direct way it would be 50. Late in a training hardly anything changes, nor is it noticed.
"""
FLOOR = 0.05
"""Shorter ways are no evidence, in nats of the root mean square of a typical tensor."""

_COLUMNS = ("suite", "model", "stage", "revision", "step", "weights_sha256", "weight_profile")

Profile = npt.NDArray[np.float64]


def audit_table(measured: Measured) -> list[Row]:
    """Lists what a reader of the results must know about their checkpoints.

    A refusal counts until the checkpoint is measured after all, a missing step until it is there.

    Args:
        measured: The rows of the results.

    Returns:
        Rows with `label`, `revision`, `step`, `status` (refused, suspicious, noted or missing) and
        `finding`, in this order of the status.
    """
    there = {checkpoint_key(row) for row in measured.checkpoints}
    steps = {(r["suite"], r["model"], r["stage"], r["step"]) for r in measured.checkpoints}
    labels = {checkpoint_key(row): row["label"] for row in measured.checkpoints}
    refused = [row | {"status": "refused"} for row in measured.refused]
    suspicious = [
        row | {"status": "suspicious", "label": labels.get(checkpoint_key(row), row["model"])}
        for row in suspicious_loads(measured.results)
    ]
    noted, missing = [], []
    for row in measured.audit:
        if row["verdict"] == "gap":
            if (row["suite"], row["model"], row["stage"], row["step"]) not in steps:
                missing.append(row | {"status": "missing"})
        elif row["verdict"] != "summary" and not row["refused"] and checkpoint_key(row) in there:
            noted.append(row | {"status": "noted"})
    found = [*refused, *suspicious, *noted, *missing]
    once = {(*checkpoint_key(row), row["step"], row["status"]): row for row in found}
    return list(once.values())


def suspicious_loads(results: str | Path | Place) -> list[Row]:
    """Finds loaded checkpoints whose weights don't fit between those of their neighbours.

    The weights of a training move on. So a checkpoint is suspicious if the way from its predecessor
    over it to its successor is more than twice as long as the direct one, where the distance
    of two checkpoints is the root mean square difference of their weight profiles; or if another
    step has the very same weights. The first and the last one have no such way.

    Args:
        results: Folder or URL of the results.

    Returns:
        The keys of those checkpoints, and `finding`: why, in words.

    Raises:
        StoreError: The place cannot be read.
    """
    rows = query.load("checkpoints", results, columns=_COLUMNS).to_pylist()
    # Several cells may have loaded a checkpoint: the same weights under other texts or aliases.
    loaded = {checkpoint_key(row): row for row in rows if row["weights_sha256"] is not None}
    series: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in loaded.values():
        if row["step"] is not None:
            series[row["suite"], row["model"], row["stage"]].append(row)
    found: list[Row] = []
    for members in series.values():
        members.sort(key=lambda row: row["step"])
        reasons = _detours(members) | _twins(members)
        found += [
            {name: row[name] for name in ("suite", "model", "stage", "revision", "step")}
            | {"finding": reasons[place]}
            for place, row in enumerate(members)
            if place in reasons
        ]
    return found


def _twins(members: Sequence[Row]) -> dict[int, str]:
    """Returns the places of members with the very same weights under different steps."""
    found = {}
    for (place, one), (other_place, other) in combinations(enumerate(members), 2):
        if one["weights_sha256"] == other["weights_sha256"] and one["step"] != other["step"]:
            found[other_place] = f"its weights are those of step {one['step']}"
            found.setdefault(place, f"its weights are those of step {other['step']}")
    return found


def _detours(members: Sequence[Row]) -> dict[int, str]:
    """Returns the places of members whose profile lies off the way between its neighbours."""
    profiles = [np.asarray(row["weight_profile"] or [], np.float64) for row in members]
    found = {}
    for place in range(1, len(members) - 1):
        lengths = _ways(*profiles[place - 1 : place + 2])
        if lengths is None:
            continue
        over, direct = lengths
        if over > FLOOR and over > DETOUR * direct:
            before, after = members[place - 1]["step"], members[place + 1]["step"]
            found[place] = (
                f"its weights don't fit between those of steps {before} and {after}: their scales "
                f"are {over:.2f} nats away from both together, which are {direct:.2f} apart"
            )
    return found


def _ways(before: Profile, profile: Profile, after: Profile) -> tuple[float, float] | None:
    """Returns the lengths of the way over a profile and of the direct one; None if there are none.

    Tensors without a finite logarithm in any of them, such as biases that are still 0, are left
    out of all: a distance must not shrink because a tensor drops out of it.
    """
    if not before.shape == profile.shape == after.shape:
        return None
    finite = np.isfinite(before) & np.isfinite(profile) & np.isfinite(after)
    if not finite.any():
        return None

    def distance(one: Profile, other: Profile) -> float:
        return float(np.sqrt(np.mean((one[finite] - other[finite]) ** 2)))

    return distance(before, profile) + distance(profile, after), distance(before, after)
