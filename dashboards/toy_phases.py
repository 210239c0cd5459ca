"""The derived table `toy_phases`: how many runs of each setting of the toy show which phases.

Runs have no sampling noise, so a change counts from `FLOOR` of the larger value on, as in
`dashboards.turns`, whose result this gives for thousands of runs at once.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards import query
from dashboards.phases import name_phases
from dashboards.turns import FLOOR, Array
from jobs.columns import INTEGER, KEYS, REAL, TEXT, Column
from jobs.place import Place
from jobs.toy_tables import TOY_TABLES

SETTING = (
    "suite",
    "model",
    "description",
    "counts",
    "classes",
    "d",
    "skew",
    "scale",
    "learning_rate",
    "loss_function",
    "start",
)
"""What tells settings apart; `model` is the sweep."""

FIGURE_5 = "warmup, entropy_seeking, compression_seeking"
"""The sequence of the paper's Figure 5."""

COMPRESSES = "any with entropy_seeking, then compression_seeking"
"""What the paper's controls must lack, whatever comes before and after."""

_KNOWN = {column.name: column for column in (*KEYS, *TOY_TABLES["toy"])}
SCHEMA = pa.schema(
    [
        column.field()
        for column in (
            *(_KNOWN[name] for name in SETTING),
            Column("last_step", INTEGER, "step at which the runs end", "steps"),
            Column(
                "verdict",
                TEXT,
                f"names of a run's phases, in order; or, over all of them, '{COMPRESSES}'",
            ),
            Column("runs", INTEGER, "runs with that verdict"),
            Column("n", INTEGER, "all runs of the setting"),
            Column("fraction", REAL, "runs / n"),
            Column("fraction_low", REAL, "lower end of its 95 % Wilson interval"),
            Column("fraction_high", REAL, "upper end"),
        )
    ]
)


def toy_phases(results: str | Path | Place, floor: float = FLOOR) -> pa.Table:
    """Counts the runs of each setting by their phases.

    Args:
        results: Folder or URL of the results.
        floor: Smallest change of rankme that counts, relative to the larger value.

    Returns:
        For each setting the rows of `COMPRESSES` and `FIGURE_5`, then one row for every other
        verdict that occurs, the most frequent first.

    Raises:
        StoreError: The place cannot be read.
    """
    columns = {*SETTING, "steps", "rankme"}
    return pa.Table.from_pylist(
        list(_rows(query.load("toy", results, columns=columns), floor)), schema=SCHEMA
    )


def verdicts(values: Array, floor: float = FLOOR) -> list[str]:
    """Names the phases of runs.

    Args:
        values: rankme from step 0 on, shape (runs, steps), positive.
        floor: Smallest change that counts, relative to the larger value.

    Returns:
        One verdict for each run, as in table `phases`.
    """
    names = {s: ", ".join(name_phases(s, "rankme", True)) for s in set(signs(values, floor))}
    return [names[s] for s in signs(values, floor)]


def signs(values: Array, floor: float = FLOOR) -> list[tuple[int, ...]]:
    """Parts runs into alternating swings of at least `floor`, greedily and all runs at once.

    A swing lasts until the values come back by more than the floor from its extreme. For exact
    values that gives the most swings that there are.

    Args:
        values: Shape (runs, steps), positive.
        floor: Smallest change that counts, relative to the larger value.

    Returns:
        Signs of each run's swings, (0,) where nothing changes enough.
    """
    low, high = values[:, 0].copy(), values[:, 0].copy()
    now = np.zeros(len(values), dtype=np.int64)
    found: list[list[int]] = [[] for _ in values]
    for value in values.T:
        np.minimum(low, value, out=low)
        np.maximum(high, value, out=high)
        rises = (now <= 0) & (value - low > floor * value)
        falls = (now >= 0) & (high - value > floor * high)
        for sign, turned in ((1, rises), (-1, falls)):
            now[turned] = sign
            # The extreme of the swing that begins.
            low[turned] = high[turned] = value[turned]
            for run in np.flatnonzero(turned):
                found[run].append(sign)
    return [tuple(swings) or (0,) for swings in found]


def wilson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927).

    Args:
        hits: How many of them.
        count: Of how many, at least 1.
        level: Coverage.

    Returns:
        Lower and upper end, within [0, 1].
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = hits / count, 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def compresses(verdict: str) -> bool:
    """Tells whether a verdict has a compression after an expansion."""
    return "entropy_seeking, compression_seeking" in verdict


def _rows(table: pa.Table, floor: float) -> Iterator[dict[str, Any]]:
    for setting, last_step, values in _settings(table):
        told = Counter(verdicts(values, floor))
        base = setting | {"last_step": last_step}
        yield base | _counted(COMPRESSES, sum(n for v, n in told.items() if compresses(v)), told)
        yield base | _counted(FIGURE_5, told[FIGURE_5], told)
        for verdict, runs in sorted(told.items(), key=lambda item: (-item[1], item[0])):
            if verdict != FIGURE_5:
                yield base | _counted(verdict, runs, told)


def _counted(verdict: str, runs: int, told: Counter[str]) -> dict[str, Any]:
    low, high = wilson(runs, told.total())
    return {
        "verdict": verdict,
        "runs": runs,
        "n": told.total(),
        "fraction": runs / told.total(),
        "fraction_low": low,
        "fraction_high": high,
    }


def _settings(table: pa.Table) -> Iterable[tuple[dict[str, Any], int, Array]]:
    """Yields each setting with its last step and the runs' rankme, seeds one after another."""
    rows: dict[tuple[Any, ...], list[int]] = {}
    settings = table.select(list(SETTING)).to_pylist()
    lengths = table.column("steps").combine_chunks().value_lengths().to_pylist()
    for place, (setting, length) in enumerate(zip(settings, lengths, strict=True)):
        key = tuple(map(str, setting.values()))
        rows.setdefault((*key, length), []).append(place)
    for places in rows.values():
        part = table.take(pa.array(places))
        flat = part.column("rankme").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = flat.astype(np.float64).reshape(len(places), -1)
        yield settings[places[0]], part.column("steps")[0].as_py()[-1], values
