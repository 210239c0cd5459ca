"""What knows nothing of a model's geometry and correlates with an outcome all the same.

A finding survives only if it says more than each of these: the step, the loss, the learning rate,
and a head whose numbers drift at random. A head drawn anew at every checkpoint has the same
expected numbers throughout (overlaps of √(2/(πd)), for one), so that its r is 0 but for chance,
which is what the exact or t-test p of the correlation tells.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dashboards import correlation_statistics as statistics
from dashboards.finetune_trials import Row
from dashboards.turns import Array
from jobs.columns import REAL, TRUTH, Column

_WALKS = 2000
_FEWEST = 3

SHORT = {
    "log_step": "log_step",
    "loss": "loss",
    "loss_pre": "loss",
    "learning_rate": "learning_rate",
}
"""Null models, and what the columns call them."""

COLUMNS = (
    Column("null_log_step", REAL, "Pearson r of ln(step + 1) with the outcome, same checkpoints"),
    Column("null_loss", REAL, "likewise of the loss, over those of them where it is known"),
    Column("null_learning_rate", REAL, "likewise of pretraining's rate: step 0 has none"),
    Column(
        "walk_pvalue",
        REAL,
        "share of 2,000 Gaussian random walks that correlate with the outcome at least as strongly",
    ),
    Column(
        "survives",
        TRUTH,
        "whether |pearson| exceeds those of all null models, walk_pvalue is at most 0.05, the "
        "interval given log step keeps to the sign, and first differences have it too; null for "
        "null models, and where one of these isn't known",
    ),
)
"""Columns that `beside_nulls` adds."""

CRITERION = (
    "Survives: yes where |r| is larger than that of log step, loss and learning rate, at most 5 % "
    "of random walks reach it, the interval given log step keeps to the sign of r, and first "
    "differences have that sign as well; no where one of these fails; – where too little is known. "
    "Not corrected for the number of rows. Random walks stand for a head whose numbers drift "
    "without aim; one drawn anew at each checkpoint has the same expected numbers throughout "
    "(overlaps of √(2/(πd))), so its r is 0 up to chance, which is what p says."
)
"""What `survives` goes by, for readers."""


VERDICTS = {True: "yes", False: "no", None: "–"}
"""How `survives` is written."""


def share(value: float | None) -> str:
    """Formats the share of random walks."""
    return "–" if value is None else f"{value:.3f}"


def walk_correlations(outcome: Sequence[float]) -> Array | None:
    """Returns |Pearson r| of an outcome with random walks of its length, ascending.

    Args:
        outcome: The outcome at each checkpoint, shape (n,).

    Returns:
        The same 2,000 walks for every outcome of a length, shape (2000,); None where the outcome
        doesn't vary.
    """
    unit = statistics.standardized(np.array(outcome, dtype=np.float64))
    if unit is None:
        return None
    steps = np.random.default_rng(0).standard_normal((len(unit), _WALKS))
    walks = np.cumsum(steps, axis=0)
    walks -= walks.mean(axis=0)
    walks /= np.linalg.norm(walks, axis=0)
    found: Array = np.sort(np.abs(unit @ walks))
    return found


def walk_pvalue(r: float | None, walks: Array | None) -> float | None:
    """Returns the share of random walks that correlate with the outcome at least as strongly."""
    if r is None or walks is None:
        return None
    return float(len(walks) - np.searchsorted(walks, abs(r))) / len(walks)


def survives(row: Row, nulls: Mapping[str, float | None]) -> bool | None:
    """Judges a correlation by `CRITERION`.

    Args:
        row: Columns `pearson`, `partial_low`, `partial_high`, `differences_pearson` and
            `walk_pvalue`.
        nulls: r of each null model with the same outcome; unknown ones are passed over.

    Returns:
        Whether it survives; None for null models, and where r, its interval given log step, or
        that of first differences isn't defined.
    """
    if row.get("is_null_model"):
        return None
    r, low, high = row["pearson"], row["partial_low"], row["partial_high"]
    moves, walked = row["differences_pearson"], row["walk_pvalue"]
    if r is None or low is None or high is None or moves is None or walked is None:
        return None
    stronger = all(abs(r) > abs(null) for null in nulls.values() if null is not None)
    left = low > 0 if r > 0 else high < 0
    return stronger and left and moves * r > 0 and walked <= statistics.LEVEL


def beside_nulls(
    rows: Iterable[Row], outcome: Sequence[float], nulls: Mapping[str, Sequence[float | None]]
) -> list[Row]:
    """Puts beside each correlation with one outcome what the null models give.

    Args:
        rows: Correlations with the outcome, all over the same checkpoints.
        outcome: The outcome at each of them.
        nulls: Each null model's series over them, by its name in `SHORT`; None where unknown.

    Returns:
        The rows with the columns `COLUMNS`.
    """
    walks = walk_correlations(outcome)
    found = {SHORT[name]: _where_known(series, outcome) for name, series in nulls.items()}
    beside = {f"null_{name}": found.get(name) for name in dict.fromkeys(SHORT.values())}
    given = [row | beside | {"walk_pvalue": walk_pvalue(row["pearson"], walks)} for row in rows]
    return [row | {"survives": survives(row, found)} for row in given]


def _where_known(series: Sequence[float | None], outcome: Sequence[float]) -> float | None:
    """Returns Pearson's r over the checkpoints that have both, at least three."""
    pairs = [(x, y) for x, y in zip(series, outcome, strict=True) if x is not None]
    if len(pairs) < _FEWEST:
        return None
    x, y = np.array(pairs, dtype=np.float64).T
    return statistics.pearson(x, y)
