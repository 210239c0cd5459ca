"""When a claim about post-training holds: what its verdicts go by."""

from collections.abc import Iterable

from dashboards.correlation_statistics import Estimate
from dashboards.finetune_judgement import FAILS, HOLDS, OPEN, judge
from dashboards.passk_comparisons import Comparison

NEGLIGIBLE_RANK = 0.01
"""A change of rankme is shown to be absent if its interval ends below this share of the start."""
NEGLIGIBLE_PASS = 0.01
"""A change of pass@k is shown to be absent if its interval ends below this."""
WELL_FORMED = 0.95
"""So many answers must be well-formed before RLVR for its gain to be one of skill."""
DECIDED = 0.95
"""A crossover is there if this share of the bootstrap draws has one, and absent if as many lack
it."""
LEAST_PROBLEMS = 10
"""With fewer problems a bootstrap over them decides nothing."""

CRITERIA = (
    f"Taken for absent: a change of RankMe whose interval ends below {NEGLIGIBLE_RANK:.0%} of its "
    f"start, a change of pass@k whose interval ends below {NEGLIGIBLE_PASS:g}. A crossover is "
    f"there where at least {DECIDED:.0%} of the bootstrap draws have one, and absent where at most "
    f"{1 - DECIDED:.0%} do. With several seeds, the interval over seeds must say the same. Fewer "
    f"than {LEAST_PROBLEMS} problems decide nothing."
)
"""What verdicts go by, for readers."""


def agreed(outcomes: Iterable[str]) -> str:
    """Returns the outcome that all ways of judging share; not decided where they differ."""
    found = set(outcomes)
    return found.pop() if len(found) == 1 else OPEN


def positive(found: Iterable[Estimate | None], small: float) -> str:
    """Judges that an effect is positive, by each interval that is there.

    Args:
        found: The effect with its intervals: over sequences or problems, and over seeds.
        small: What is as good as none.

    Returns:
        The outcome that all intervals share.
    """
    return agreed(judge(value, small) for value in found if value is not None)


def over_problems(found: Comparison, place: int) -> Estimate:
    """Returns the mean difference at the k of that place with its paired bootstrap interval."""
    value = float(found.pooled.difference[place])
    if found.pooled.n < LEAST_PROBLEMS:
        return Estimate(value, None, None, None, found.pooled.n)
    low, high = float(found.pooled.low[place]), float(found.pooled.high[place])
    return Estimate(value, low, high, None, found.pooled.n)


def shifted(found: Estimate, by: float) -> Estimate:
    """Returns an estimate less a known number, and its intervals' ends too."""
    low, high = (None if end is None else end - by for end in (found.low, found.high))
    return Estimate(found.mean - by, low, high, None, found.n)


def negative(found: Estimate) -> Estimate:
    """Returns the estimate of the opposite effect."""
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Estimate(-found.mean, low, high, None, found.n)


def crossing(found: Comparison) -> str:
    """Judges that the earlier checkpoint overtakes the later one at large k."""
    if found.pooled.n < LEAST_PROBLEMS or len(found.pooled.k) < 2:
        return OPEN
    share = found.pooled.share
    outcome = HOLDS if share >= DECIDED else FAILS if share <= 1 - DECIDED else OPEN
    seeds = found.over_seeds(-1)
    if outcome == HOLDS and seeds is not None:
        behind = seeds.high is not None and seeds.high < 0
        return HOLDS if behind else OPEN
    if outcome == FAILS and any(seed.crossover is not None for seed in found.seeds):
        # The mean over seeds has none, but a seed has.
        return OPEN
    return outcome
