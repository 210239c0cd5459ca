"""The derived table `phases`: one verdict for each model, layer, text and metric.

Invariant: rows follow from the tables alone. What the errors of two checkpoints share cancels in
their difference, so turns are judged by the influences of the same sequences on both.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards import query
from dashboards.turns import Array, Swing, find_swings
from jobs.columns import INTEGER, KEYS, REAL, TEXT, TRUTH, Column
from jobs.place import Place

Row = dict[str, Any]

NAMES = {
    "rankme": ("entropy_seeking", "compression_seeking"),
    "overlap_mean_scaled": ("expansion", "crystallization"),
    "overlap_std_scaled": ("expansion", "crystallization"),
    "norm_cv": ("spreading", "evening"),
}
"""Metrics that have phases: what a rise of each is called, and a fall."""

_BLOCK = 2048
_LABELS = ("suite", "model", "stage")
_TEXT = ("dataset", "sequences_fingerprint", "n_sequences", "seq_len", "forward_dtype", "layer")

COLUMNS = (
    *(column for column in KEYS if column.name in _LABELS),
    Column("dataset", TEXT, "the study's name for the text; null for metrics of the head"),
    Column("sequences_fingerprint", TEXT, "as in geometry"),
    Column("n_sequences", INTEGER, "as in geometry"),
    Column("seq_len", INTEGER, "as in geometry", "tokens"),
    Column("forward_dtype", TEXT, "as in geometry"),
    Column("layer", INTEGER, "as in geometry"),
    Column("metric", TEXT, ", ".join(NAMES)),
    Column("verdict", TEXT, "the names of the series' phases, in order"),
    Column("place", INTEGER, "place of the phase in its series, from 1 on; 0 if unobserved"),
    Column(
        "phase",
        TEXT,
        "rankme: warmup (a first fall, if the series starts before the learning rate's warm-up "
        "ends; else unobserved), entropy_seeking (a rise), compression_seeking (a later fall), "
        "flat; overlaps: expansion, crystallization; norm_cv: spreading, evening",
    ),
    Column("start_step", INTEGER, "first checkpoint of the phase", "steps"),
    Column("end_step", INTEGER, "its last checkpoint, the first one of the next phase", "steps"),
    Column("start_tokens", INTEGER, "tokens at its start", "tokens"),
    Column("end_tokens", INTEGER, "tokens at its end", "tokens"),
    Column("end_earliest_step", INTEGER, "first checkpoint that cannot be told from the end"),
    Column("end_latest_step", INTEGER, "last checkpoint that cannot be told from the end"),
    Column("start_value", REAL, "the metric at its start"),
    Column("end_value", REAL, "the metric at its end"),
    Column("change", REAL, "end_value − start_value"),
    Column("change_se", REAL, "its standard error, by `basis`; 0 for exact values"),
    Column("confidence", REAL, "1 − chance of so large a swing in a series that has none"),
    Column("alpha_req_change", REAL, "change of alpha_req over the phase"),
    Column("alpha_req_change_se", REAL, "its standard error, paired where influences are known"),
    Column(
        "basis",
        TEXT,
        "paired: influences of the same sequences; separate: each value's own standard error; "
        "exact: no sampling; unknown: any change of more than 1 % is taken for a swing",
    ),
    Column("se_reliable", TRUTH, "whether M ≥ 10 d at every checkpoint, as in geometry"),
    Column("n_checkpoints", INTEGER, "checkpoints of the series"),
)
"""Columns of the table."""

SCHEMA = pa.schema([column.field() for column in COLUMNS])


@dataclass(frozen=True)
class _Series:
    """Values over steps, with what is known of their errors."""

    rows: Sequence[Row]
    metric: str
    covariance: Array | None
    basis: str
    alpha_errors: Array | None

    @property
    def values(self) -> Array:
        return np.array([row[self.metric] for row in self.rows], dtype=np.float64)


def phases(results: str | Path | Place) -> pa.Table:
    """Finds the phases of every series of the results.

    Args:
        results: Folder or URL of the results.

    Returns:
        One row per phase, in the order of suites, models, texts, layers and metrics.

    Raises:
        StoreError: The place cannot be read.
    """
    warmups = _warmups(results)
    rows = [
        row
        for series in (*_geometry(results), *_head(results))
        for row in _phase_rows(series, warmups)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def name_phases(signs: Iterable[int], metric: str, starts_in_warmup: bool) -> list[str]:
    """Names swings by their signs.

    Args:
        signs: 1 rise, −1 fall, 0 flat; in order.
        metric: One of `NAMES`.
        starts_in_warmup: Whether the first value is from before the warm-up's end.

    Returns:
        One name per swing.
    """
    rise, fall = NAMES[metric]
    names = [{1: rise, -1: fall, 0: "flat"}[sign] for sign in signs]
    if metric == "rankme" and starts_in_warmup and names and names[0] == fall:
        names[0] = "warmup"
    return names


def _phase_rows(series: _Series, warmups: Mapping[tuple[str, str], int]) -> Iterable[Row]:
    rows, first = series.rows, series.rows[0]
    swings = find_swings(series.values, series.covariance)
    # Whatever a warm-up lasts, it isn't over before the first step.
    ends = warmups.get((first["suite"], first["model"]), 1)
    begins_in_time = first["step"] < max(ends, 1)
    names = name_phases([swing.sign for swing in swings], series.metric, begins_in_time)
    unseen = series.metric == "rankme" and not begins_in_time
    labels = {name: first.get(name) for name in (*_LABELS, *_TEXT)} | {
        "metric": series.metric,
        "verdict": ", ".join([*(["unobserved"] if unseen else []), *names]),
        "basis": series.basis,
        "se_reliable": None
        if first.get("se_reliable") is None
        else all(row["se_reliable"] for row in rows),
        "n_checkpoints": len(rows),
    }
    if unseen:
        end = {"end_step": first["step"], "end_tokens": first["tokens"]}
        yield labels | {"place": 0, "phase": "unobserved"} | end
    for place, (swing, name) in enumerate(zip(swings, names, strict=True), start=1):
        yield labels | {"place": place, "phase": name} | _described(series, swing)


def _described(series: _Series, swing: Swing) -> Row:
    start, end = series.rows[swing.first], series.rows[swing.last]
    described: Row = {
        **{f"start_{name}": start[name] for name in ("step", "tokens")},
        **{f"end_{name}": end[name] for name in ("step", "tokens")},
        "end_earliest_step": series.rows[swing.earliest]["step"],
        "end_latest_step": series.rows[swing.latest]["step"],
        "start_value": start[series.metric],
        "end_value": end[series.metric],
        "change": end[series.metric] - start[series.metric],
        "change_se": _error(series.covariance, swing),
        "confidence": swing.confidence,
    }
    if series.metric == "rankme" and _finite(start["alpha_req"]) and _finite(end["alpha_req"]):
        described["alpha_req_change"] = end["alpha_req"] - start["alpha_req"]
        described["alpha_req_change_se"] = _error(series.alpha_errors, swing)
    return described


def _error(covariance: Array | None, swing: Swing) -> float | None:
    if covariance is None:
        return None
    i, j = swing.first, swing.last
    square = float(covariance[i, i] + covariance[j, j] - 2 * covariance[i, j])
    return math.sqrt(max(square, 0.0)) if math.isfinite(square) else None


def _geometry(results: str | Path | Place) -> list[_Series]:
    """Returns the series of rankme, each with the influences of its checkpoints where known."""
    columns = {
        *_LABELS,
        *_TEXT,
        *("cell_id", "step", "tokens", "rankme", "rankme_se", "alpha_req", "alpha_req_se"),
        "se_reliable",
    }
    groups = _grouped(query.load("geometry", results, columns=columns), (*_LABELS, *_TEXT))
    names = ["cell_id", "dataset", "layer", "influence_rankme", "influence_alpha_req"]
    table = query.load("influences", results, columns=names)
    places = {
        key: place
        for place, key in enumerate(
            zip(*(table.column(name).to_pylist() for name in names[:3]), strict=True)
        )
    }
    found = []
    for rows in groups:
        usable = [row for row in rows if _finite(row["rankme"])]
        if not usable:
            continue
        keys = [places.get((row["cell_id"], row["dataset"], row["layer"])) for row in usable]
        shared, alpha = (
            _paired([table.column(name)[k] if k is not None else None for k in keys])
            for name in names[3:]
        )
        own = _separate([row["rankme_se"] for row in usable])
        basis = "paired" if shared is not None else "unknown" if own is None else "separate"
        if alpha is None:
            alpha = _separate([row["alpha_req_se"] for row in usable])
        found.append(_Series(usable, "rankme", own if shared is None else shared, basis, alpha))
    return found


def _head(results: str | Path | Place) -> list[_Series]:
    metrics = [name for name in NAMES if name != "rankme"]
    table = query.load("head", results, columns={*_LABELS, "step", "tokens", *metrics})
    found = []
    for rows in _grouped(table, _LABELS):
        for metric in metrics:
            usable = [row for row in rows if _finite(row[metric])]
            if usable:
                exact = np.zeros((len(usable), len(usable)))
                found.append(_Series(usable, metric, exact, "exact", None))
    return found


def _grouped(table: pa.Table, by: Sequence[str]) -> list[list[Row]]:
    """Groups the rows that have a step, one for each step, by step."""
    groups: dict[tuple[Any, ...], dict[int, Row]] = defaultdict(dict)
    for row in table.to_pylist():
        if row["step"] is not None:
            groups[tuple(row[name] for name in by)].setdefault(row["step"], row)
    return [[group[step] for step in sorted(group)] for group in groups.values()]


def _paired(influences: Sequence[pa.ListScalar | None]) -> Array | None:
    """Covariance of values from the influences of the same sequences on each; None if some lack."""
    known = [i.values for i in influences if i is not None and i.is_valid]
    if len(known) != len(influences) or len({len(values) for values in known}) != 1:
        return None
    matrix = np.stack([v.to_numpy(zero_copy_only=False) for v in known])
    covariance: Array = np.zeros((len(matrix), len(matrix)))
    # Not all of it in double precision at once: a study may have a gigabyte of influences.
    for start in range(0, matrix.shape[1], _BLOCK):
        block = matrix[:, start : start + _BLOCK].astype(np.float64)
        covariance += block @ block.T
    return covariance if np.isfinite(covariance).all() else None


def _separate(errors: Sequence[float | None]) -> Array | None:
    known = [error for error in errors if error is not None and math.isfinite(error)]
    return np.diag(np.square(known)) if len(known) == len(errors) else None


def _warmups(results: str | Path | Place) -> dict[tuple[str, str], int]:
    """Returns the step at which each model's learning rate is first at its peak."""
    columns = {"suite", "model", "step", "learning_rate"}
    peaks: dict[tuple[str, str], tuple[float, int]] = {}
    for row in query.load("training_log", results, columns=columns).to_pylist():
        key = (row["suite"], row["model"])
        candidate = (-row["learning_rate"], row["step"])
        peaks[key] = min(peaks.get(key, candidate), candidate)
    return {key: step for key, (_, step) in peaks.items()}


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
