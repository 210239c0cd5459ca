"""The derived table `capability_correlations`: what goes with what checkpoints can do.

Accuracies, memorization and pass@k of each model over its checkpoints, correlated with every metric
of geometry and head; beside each what the step, the loss, the learning rate and random walks give.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards import query
from dashboards.finetune_trials import Row
from dashboards.predictors import MODEL, Predictor, learning_rates, predictors
from dashboards.series_correlations import COLUMNS as STATISTICS
from dashboards.series_correlations import FEWEST, OF_SERIES, SERIES, over_checkpoints
from jobs.columns import INTEGER, KEYS, TEXT, Column
from jobs.place import Place

ACCURACIES = ("acc", "acc_norm", "acc_tie", "exact_match")

OUTCOME = ("outcome", "task", "shots", "k")
"""What names an outcome of a model."""

_KNOWN = {column.name: column for column in KEYS}

COLUMNS = (
    *(_KNOWN[name] for name in MODEL),
    Column("outcome", TEXT, f"{', '.join(ACCURACIES)}: as in evals, memorization, or pass_at_k"),
    Column("task", TEXT, "the study's name for the task or the problems"),
    Column("shots", INTEGER, "as in evals; null for others"),
    Column("k", INTEGER, "as in passk, the least and the most of each; null for others"),
    Column(
        "predictor",
        TEXT,
        "as in correlations; loss: held-out loss of the first text that has one",
    ),
    *SERIES,
    *STATISTICS,
)
"""Columns of the table."""

SCHEMA = pa.schema([column.field() for column in COLUMNS])

_Outcomes = dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, float]]]
"""Values by model, outcome and revision."""


def capability_correlations(results: str | Path | Place) -> pa.Table:
    """Correlates every predictor with every capability, over each model's checkpoints.

    Args:
        results: Folder or URL of the results.

    Returns:
        One row per model, outcome that at least `FEWEST` checkpoints have, and predictor.

    Raises:
        StoreError: The place cannot be read.
    """
    steps: dict[tuple[Any, ...], dict[str, int]] = defaultdict(dict)
    outcomes: _Outcomes = defaultdict(lambda: defaultdict(dict))
    losses: dict[tuple[Any, ...], dict[str, dict[str, float]]] = defaultdict(dict)
    for outcome, row, value in _measured(results):
        if row["step"] is None or value is None or not math.isfinite(value):
            continue
        model = tuple(row[name] for name in MODEL)
        steps[model][row["revision"]] = row["step"]
        if outcome == "loss":
            losses[model].setdefault(row["task"], {}).setdefault(row["revision"], value)
        else:
            key = (outcome, row["task"], row.get("shots"), row.get("k"))
            outcomes[model][key].setdefault(row["revision"], value)
    if not outcomes:
        return SCHEMA.empty_table()
    known, rates = predictors(results), learning_rates(results)
    rows = [
        row
        for model, found in outcomes.items()
        for key, values in found.items()
        for row in _rows(model, key, values, steps[model], known[model], losses[model], rates)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _measured(results: str | Path | Place) -> Iterator[tuple[str, Row, float | None]]:
    """Gives the name, the row and the value of every outcome, and of every held-out loss."""
    columns = {*MODEL, "revision", "step", "task", "metric", "value", "subset", "shots"}
    for row in query.load("evals", results, columns=columns).to_pylist():
        if row["metric"] == "loss" or (
            row["metric"] in ACCURACIES and row["subset"] in (None, "all")
        ):
            yield row["metric"], row, row["value"]
    columns = {*MODEL, "revision", "step", "task", "memorization", "zero_policy"}
    for row in query.load("memorization", results, columns=columns).to_pylist():
        if row["zero_policy"] == "drop_token_both":
            yield "memorization", row, row["memorization"]
    columns = {*MODEL, "cell_id", "revision", "step", "problems", "k", "pass_at_k"}
    tries: dict[str, list[Row]] = defaultdict(list)
    for row in query.load("passk", results, columns=columns).to_pylist():
        tries[row["cell_id"]].append({**row, "task": row["problems"]})
    for rows in tries.values():
        rows.sort(key=lambda row: row["k"])
        for row in (rows[0], rows[-1])[: len(rows)]:
            yield "pass_at_k", row, row["pass_at_k"]


def _rows(
    model: tuple[Any, ...],
    key: tuple[Any, ...],
    values: Mapping[str, float],
    steps: Mapping[str, int],
    known: list[Predictor],
    losses: Mapping[str, Mapping[str, float]],
    rates: Mapping[tuple[str, str, int], float],
) -> Iterator[Row]:
    places = sorted((steps[revision], revision) for revision in values)
    if len(places) < FEWEST:
        return
    learning = {name: rates[(*model[:2], s)] for s, name in places if (*model[:2], s) in rates}
    nulls = [
        Predictor("log_step", {name: float(np.log1p(step)) for step, name in places}),
        Predictor("loss", next(iter(losses.values()), {})),
        Predictor("learning_rate", learning),
    ]
    series = {"value": [values[name] for _, name in places]}
    for _, predictor, _, row in over_checkpoints(places, series, [*known, *nulls]):
        yield (
            dict(zip((*MODEL, *OUTCOME), (*model, *key), strict=True))
            | {"predictor": predictor.name}
            | {name: predictor.labels.get(name) for name in OF_SERIES}
            | row
        )
