"""The derived table `correlations`: what goes with fine-tunability over a model's checkpoints.

Every predictor stands beside null models that know nothing of its geometry: the step, the loss
before, pretraining's learning rate. Two series that both trend correlate whatever they are.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dashboards import correlation_statistics as statistics
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
    NULL_MODELS,
    TEXT_LABELS,
    Predictor,
    learning_rates,
    predictors,
)
from dashboards.turns import Array
from jobs.columns import INTEGER, KEYS, REAL, TEXT, TRUTH, Column
from jobs.finetune_tables import FINETUNE_TABLES
from jobs.place import Place

TRENDING = 0.8
"""A series trends if its |Spearman| with the step is at least this."""

FEWEST = 3
"""Checkpoints that a correlation needs."""

_KNOWN = {column.name: column for column in (*KEYS, *FINETUNE_TABLES["finetunes"])}
_OF_SERIES = (*TEXT_LABELS, "predictor_dtype", "scale")

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
    Column("dataset", TEXT, "the study's name for the text of the predictor, where it has one"),
    Column("sequences_fingerprint", TEXT, "as in geometry"),
    Column("n_sequences", INTEGER, "as in geometry"),
    Column("seq_len", INTEGER, "as in geometry", "tokens"),
    Column("predictor_dtype", TEXT, "precision of the predictor's forward pass, where it has one"),
    Column("scale", REAL, "γ of sensitivity; null for others"),
    Column("is_null_model", TRUTH, "whether the predictor knows nothing of the model's geometry"),
    Column("n", INTEGER, "checkpoints that have predictor and outcome"),
    Column("pearson", REAL, "Pearson r; null where one of the two doesn't vary"),
    Column("pearson_low", REAL, "lower end of its 95 % interval by Fisher's z; null below n = 4"),
    Column("pearson_high", REAL, "upper end"),
    Column("pearson_pvalue", REAL, "two-sided p by `pvalue_kind`; see `independent`"),
    Column(
        "pvalue_kind",
        TEXT,
        "permutation: the share of all n! orders with as large a correlation, below n = 10; "
        "t: t-test with n − 2 degrees of freedom",
    ),
    Column("spearman", REAL, "Spearman's rank correlation, ties at their mean rank"),
    Column("spearman_pvalue", REAL, "its p, likewise"),
    Column(
        "partial_given_log_step",
        REAL,
        "Pearson r with log_step constant; null for log_step, and below 4 checkpoints",
    ),
    Column("partial_low", REAL, "lower end of its 95 % interval by Fisher's z; null below n = 5"),
    Column("partial_high", REAL, "upper end"),
    Column("differences_pearson", REAL, "Pearson r of first differences in step order"),
    Column("n_seeds", INTEGER, "fewest seeds that a checkpoint's mean is of"),
    Column("n_diverged", INTEGER, "trials without an outcome, which the means leave out"),
    Column("predictor_trend", REAL, "Spearman of the predictor with the step"),
    Column("outcome_trend", REAL, "Spearman of the outcome with the step"),
    Column(
        "independent",
        TRUTH,
        f"false where |predictor_trend| and |outcome_trend| are both at least {TRENDING}: the "
        "checkpoints of one run are no independent draws then, intervals and p don't hold, and "
        "only what a null model doesn't give says anything",
    ),
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


def correlate(
    steps: Sequence[int], outcome: Sequence[float], columns: Sequence[Sequence[float]]
) -> list[Row]:
    """Correlates series with an outcome, all over the same checkpoints.

    Args:
        steps: Their steps, ascending.
        outcome: The outcome at each.
        columns: Predictors, each at each.

    Returns:
        The columns of the table from `n` on but for counts of trials, one row per predictor.
    """
    n, y = len(steps), np.array(outcome, dtype=np.float64)
    step, log_step = np.array(steps, dtype=np.float64), np.log1p(np.array(steps, np.float64))
    series = [np.array(column, dtype=np.float64) for column in columns]
    y_step, y_trend = statistics.pearson(y, log_step), statistics.spearman(y, step)
    straight = _pvalues(series, y, n, ranked=False)
    ranked = _pvalues([statistics.ranks(x) for x in series], statistics.ranks(y), n, ranked=True)
    rows = []
    for x, (r, pvalue), (rho, rank_pvalue) in zip(series, straight, ranked, strict=True):
        # Of three points, whatever they are, the residuals of a line correlate perfectly.
        left = (
            statistics.partial(r, statistics.pearson(x, log_step), y_step) if n > FEWEST else None
        )
        x_trend = statistics.spearman(x, step)
        low, high = statistics.fisher_interval(r, n)
        partial_low, partial_high = statistics.fisher_interval(left, n, controlled=1)
        both = min(abs(x_trend or 0.0), abs(y_trend or 0.0)) >= TRENDING
        rows.append(
            {
                "n": n,
                "pearson": r,
                "pearson_low": low,
                "pearson_high": high,
                "pearson_pvalue": pvalue,
                "pvalue_kind": "permutation" if n < statistics.EXACT_BELOW else "t",
                "spearman": rho,
                "spearman_pvalue": rank_pvalue,
                "partial_given_log_step": left,
                "partial_low": partial_low,
                "partial_high": partial_high,
                "differences_pearson": statistics.pearson(np.diff(x), np.diff(y))
                if n > FEWEST
                else None,
                "predictor_trend": x_trend,
                "outcome_trend": y_trend,
                "independent": not both,
            }
        )
    return rows


def _pvalues(
    series: Sequence[Array], y: Array, n: int, *, ranked: bool
) -> list[tuple[float | None, float | None]]:
    """Returns r and p of each series, all permutations of it at once."""
    unit = statistics.standardized(y)
    units = [statistics.standardized(x) for x in series]
    kept = [u for u in units if u is not None]
    if unit is None or not kept:
        return [(None, None)] * len(series)
    matrix = np.stack(kept, axis=1)
    found = [max(-1.0, min(1.0, float(r))) for r in unit @ matrix]
    if n >= statistics.EXACT_BELOW:
        pvalues = [statistics.t_pvalue(r, n) for r in found]
    else:
        exact = statistics.rank_pvalues if ranked else statistics.permutation_pvalues
        pvalues = exact(matrix, unit).tolist()
    pairs = iter(zip(found, pvalues, strict=True))
    return [(None, None) if u is None else next(pairs) for u in units]


def _arm_rows(
    arm: Arm, rate: str, known: Sequence[Predictor], rates: Mapping[tuple[str, str, int], float]
) -> Iterator[Row]:
    points = [point for point in arm.points(rate) if point.trials]
    if len(points) < FEWEST:
        return
    labels = arm.labels | {"rate": rate, "lr": arm.lr if rate == "fixed" else None}
    all_known = [*known, *_null_models(arm, points, rates)]
    # Predictors that are known at the same checkpoints share their permutations.
    together: dict[tuple[int, ...], list[Predictor]] = defaultdict(list)
    for predictor in all_known:
        at = tuple(i for i, point in enumerate(points) if point.revision in predictor.values)
        if len(at) >= FEWEST:
            together[at].append(predictor)
    rows: dict[tuple[str, int], Row] = {}
    for at, group in together.items():
        chosen = [points[i] for i in at]
        columns = [[p.values[point.revision] for point in chosen] for p in group]
        counts = {
            "n_seeds": min(len(point.trials) for point in chosen),
            "n_diverged": sum(point.diverged for point in chosen),
        }
        for outcome in OUTCOMES:
            means = [_mean(point, outcome) for point in chosen]
            found = correlate([point.step for point in chosen], means, columns)
            for predictor, row in zip(group, found, strict=True):
                rows[outcome, all_known.index(predictor)] = (
                    labels
                    | {"outcome": outcome, "predictor": predictor.name}
                    | {name: predictor.labels.get(name) for name in _OF_SERIES}
                    | {"is_null_model": predictor.name in NULL_MODELS}
                    | counts
                    | row
                )
    yield from (rows[key] for key in sorted(rows))


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
