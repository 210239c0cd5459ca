"""When a claim holds: only where an interval says so, and fails only where one does too."""

from dataclasses import dataclass

from dashboards.correlation_statistics import LEVEL, Estimate
from dashboards.finetune_trials import Row

HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "not decided", "not measured"

NEGLIGIBLE_R = 0.5
"""A correlation is shown to be absent if its interval lies within ± this: a quarter of the
variance."""
NEGLIGIBLE_SHARE = 0.05
"""An effect on net gain is shown to be absent if its interval ends below this share of the plain
net gain."""
RANK_SHARE = 0.25
"""A larger rank mitigates if it takes at least this share of the slope on norm CV."""
NEGLIGIBLE_BETA = 0.25
"""‖Δw‖ does not depend on the norm if β lies within ± this."""

CRITERIA = (
    f"Taken for absent: a correlation whose interval lies within ±{NEGLIGIBLE_R:g}, an effect "
    f"whose interval ends below {NEGLIGIBLE_SHARE:.0%} of the plain net gain, a β whose "
    f"interval lies within ±{NEGLIGIBLE_BETA:g}. A larger rank mitigates where it takes more than "
    f"{RANK_SHARE:.0%} of the slope on norm CV. Two series that trend are related only where the "
    "interval given log step says so as well."
)
"""What verdicts go by, for readers."""


@dataclass(frozen=True)
class Verdict:
    """What became of one claim.

    Attributes:
        claim: The claim.
        outcome: `HOLDS`, `FAILS`, `OPEN` or `MISSING`.
        sentence: The numbers behind it.
    """

    claim: str
    outcome: str
    sentence: str


def relation(row: Row, level: float = LEVEL) -> int | None:
    """Judges a row of `correlations`.

    Args:
        row: The row.
        level: Level of its p.

    Returns:
        The sign, where interval and p show one, and, where both series trend, the interval given
        log step does too; 0 where the interval lies within ± `NEGLIGIBLE_R`; None if open.
    """
    low, high = row["pearson_low"], row["pearson_high"]
    if row["pearson"] is None or low is None:
        return None
    if low > -NEGLIGIBLE_R and high < NEGLIGIBLE_R:
        return 0
    sign = 1 if row["pearson"] > 0 else -1
    if low <= 0 <= high or row["pearson_pvalue"] >= level:
        return None
    if not row["independent"]:
        ends = (row["partial_low"], row["partial_high"])
        if ends[0] is None or min(sign * ends[0], sign * ends[1]) <= 0:
            return None
    return sign


def judge(found: Estimate | None, small: float) -> str:
    """Judges the claim that an effect is positive.

    Args:
        found: The effect with its interval.
        small: What is as good as none.

    Returns:
        `FAILS` where the interval ends below `small`, else `HOLDS` where it begins above 0.
    """
    if found is None:
        return MISSING
    if found.low is None or found.high is None:
        return OPEN
    return FAILS if found.high < small else HOLDS if found.low > 0 else OPEN
