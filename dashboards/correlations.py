"""The derived table `correlations`: what goes with fine-tunability over a model's checkpoints.

Every predictor stands beside null models that know nothing of its geometry: the step, the loss
before, pretraining's learning rate. Two series that both trend correlate whatever they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dashboards.finetune_trials import (
    CHANGED,
    OUTCOMES,
    RATES,
    SETTING,
    Arm,
    Point,
    Row,
    read_arms,
)
from dashboards.predictors import (
    MODEL,
    Predictor,
    learning_rates,
    predictors,
)
from dashboards.series_correlations import COLUMNS as STATISTICS
from dashboards.series_correlations import FEWEST, OF_SERIES, SERIES, over_checkpoints
from jobs.columns import INTEGER, KEYS, REAL, TEXT, Column
from jobs.finetune_tables import FINETUNE_TABLES
from jobs.place import Place

_KNOWN = {column.name: column for column in (*KEYS, *FINETUNE_TABLES["finetunes"])}

COLUMNS = (
    *(_KNOWN[name] for name in (*SETTING, *CHANGED)),
    Column(
        "rate",
        TEXT,
        "fixed: trials at `lr` that no search stopped; best: where a search tried several learning "
        "rates, each seed's trial with the lowest loss_post of those that it did not stop, which "
        "is picked by the loss that is reported and so biased",
    ),
    Column("lr", REAL, "learning rate of most trials of the arm; null for best"),
    Column("outcome", TEXT, "finetunability or net_gain; at each checkpoint, mean over its seeds"),
    Column(
        "predictor",
        TEXT,
        "norm_cv, norm_cv_invariant, norm_range, overlap_mean, overlap_std (√d times them "
        "correlate alike within a model): as in head; rankme, rankme_logits, alpha_req, "
        "participation_ratio: as in geometry, last layer; sensitivity: loss_increase at `scale`, "
        "mean over draws; log_step: ln(step + 1); loss_pre: validation loss before fine-tuning "
        "and any intervention; learning_rate: of pretraining at that step",
    ),
    *SERIES,
    Column("n_seeds", INTEGER, "fewest seeds that a checkpoint's mean is of"),
    Column("n_diverged", INTEGER, "trials without an outcome, which the means leave out"),
    *STATISTICS,
)
"""Columns of the table."""

SCHEMA = pa.schema([column.field() for column in COLUMNS])


def correlations(results: str | Path | Place) -> pa.Table:
    """Correlates every predictor with what fine-tuning gained, over each arm's checkpoints.

    Args:
        results: Folder or URL of the results.

    Returns:
        One row per arm with at least `FEWEST` checkpoints, rate, outcome and predictor.

    Raises:
        StoreError: The place cannot be read.
    """
    arms = read_arms(results)
    if not arms:
        return SCHEMA.empty_table()
    known = predictors(results)
    rates = learning_rates(results)
    rows = [
        row
        for arm in arms
        for rate in RATES
        for row in _arm_rows(arm, rate, known[tuple(arm.labels[n] for n in MODEL)], rates)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _arm_rows(
    arm: Arm, rate: str, known: Sequence[Predictor], rates: Mapping[tuple[str, str, int], float]
) -> Iterator[Row]:
    points = [point for point in arm.points(rate) if point.trials]
    if len(points) < FEWEST:
        return
    labels = arm.labels | {"rate": rate, "lr": arm.lr if rate == "fixed" else None}
    places = [(point.step, point.revision) for point in points]
    outcomes = {name: [_mean(point, name) for point in points] for name in OUTCOMES}
    all_known = [*known, *_null_models(arm, points, rates)]
    for outcome, predictor, at, row in over_checkpoints(places, outcomes, all_known):
        yield (
            labels
            | {"outcome": outcome, "predictor": predictor.name}
            | {name: predictor.labels.get(name) for name in OF_SERIES}
            | {
                "n_seeds": min(len(points[i].trials) for i in at),
                "n_diverged": sum(points[i].diverged for i in at),
            }
            | row
        )


def _null_models(
    arm: Arm, points: Sequence[Point], rates: Mapping[tuple[str, str, int], float]
) -> Iterator[Predictor]:
    yield Predictor("log_step", {p.revision: float(np.log1p(p.step)) for p in points})
    losses = {point.revision: point.over_seeds("loss_none") for point in points}
    yield Predictor("loss_pre", {name: loss.mean for name, loss in losses.items() if loss})
    key = (arm.labels["suite"], arm.labels["model"])
    values = {p.revision: rates[(*key, p.step)] for p in points if (*key, p.step) in rates}
    yield Predictor("learning_rate", values)


def _mean(point: Point, outcome: str) -> float:
    return float(np.mean([trial[outcome] for trial in point.trials.values()]))
