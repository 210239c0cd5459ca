"""Correlations of several series with an outcome over a model's checkpoints, beside null models."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dashboards import correlation_statistics as statistics
from dashboards.finetune_trials import Row
from dashboards.null_models import COLUMNS as NULL_COLUMNS
from dashboards.null_models import SHORT, beside_nulls
from dashboards.predictors import TEXT_LABELS, Predictor
from dashboards.turns import Array
from jobs.columns import INTEGER, REAL, TEXT, TRUTH, Column

TRENDING = 0.8
"""A series trends if its |Spearman| with the step is at least this."""

FEWEST = 3
"""Checkpoints that a correlation needs."""

OF_SERIES = (*TEXT_LABELS, "predictor_dtype", "scale")
"""What a predictor was measured on."""

SERIES = (
    Column("dataset", TEXT, "the study's name for the text of the predictor, where it has one"),
    Column("sequences_fingerprint", TEXT, "as in geometry"),
    Column("n_sequences", INTEGER, "as in geometry"),
    Column("seq_len", INTEGER, "as in geometry", "tokens"),
    Column("predictor_dtype", TEXT, "precision of the predictor's forward pass, where it has one"),
    Column("scale", REAL, "γ of sensitivity; null for others"),
    Column("is_null_model", TRUTH, "whether the predictor knows nothing of the model's geometry"),
)
"""Columns of a predictor."""

COLUMNS = (
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
    Column("predictor_trend", REAL, "Spearman of the predictor with the step"),
    Column("outcome_trend", REAL, "Spearman of the outcome with the step"),
    Column(
        "independent",
        TRUTH,
        f"false where |predictor_trend| and |outcome_trend| are both at least {TRENDING}: the "
        "checkpoints of one run are no independent draws then, intervals and p don't hold, and "
        "only what a null model doesn't give says anything",
    ),
    *NULL_COLUMNS,
)
"""Columns of a correlation."""


def over_checkpoints(
    places: Sequence[tuple[int, str]],
    outcomes: Mapping[str, Sequence[float]],
    known: Sequence[Predictor],
) -> Iterator[tuple[str, Predictor, tuple[int, ...], Row]]:
    """Correlates every predictor with every outcome, over the checkpoints that have it.

    Args:
        places: Step and revision of each checkpoint, by step.
        outcomes: Each outcome's value at each of them.
        known: Predictors, null models among them.

    Yields:
        By outcome, and in the order of the predictors: the outcome, the predictor, the places of
        the checkpoints that have it, and the columns `COLUMNS` with `is_null_model`. Predictors
        of fewer than `FEWEST` checkpoints are left out.
    """
    # Predictors that are known at the same checkpoints share their permutations.
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, predictor in enumerate(known):
        at = tuple(i for i, (_, name) in enumerate(places) if name in predictor.values)
        if len(at) >= FEWEST:
            together[at].append(number)
    for outcome, values in outcomes.items():
        found: dict[int, tuple[tuple[int, ...], Row]] = {}
        for at, numbers in together.items():
            chosen, here = [places[i] for i in at], [values[i] for i in at]
            columns = [[known[number].values[name] for _, name in chosen] for number in numbers]
            nulls = {
                p.name: [p.values.get(name) for _, name in chosen] for p in known if p.name in SHORT
            }
            rows = [
                row | {"is_null_model": known[number].name in SHORT}
                for number, row in zip(
                    numbers, correlate([step for step, _ in chosen], here, columns), strict=True
                )
            ]
            for number, row in zip(numbers, beside_nulls(rows, here, nulls), strict=True):
                found[number] = (at, row)
        for number in sorted(found):
            yield outcome, known[number], *found[number]


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
