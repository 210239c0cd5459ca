"""What becomes of each claim of the norm paper, in words that follow from the rows alone.

Verdicts go by net gain, since an intervention that damages a model raises its finetunability;
finetunability stands beside. A claim holds or fails only where an interval says so.
"""

from dashboards.correlation_statistics import LEVEL
from dashboards.finetune_effects import equalizing, ranks, shuffling, updates
from dashboards.finetune_judgement import FAILS, HOLDS, MISSING, OPEN, Verdict, relation
from dashboards.finetune_tables import Finetuned, Setting, correlations_of
from dashboards.finetune_trials import Row
from dashboards.finetune_words import coefficient, correlation, interval
from dashboards.predictors import NULL_MODELS


def verdicts(found: Finetuned) -> list[tuple[str, list[Verdict]]]:
    """Judges every claim, for each setting and for each model's tasks together.

    Args:
        found: What was measured.

    Returns:
        The setting's name with its verdicts, then the models'.
    """
    told = [
        (
            setting.label,
            [
                overlaps(found, setting),
                norms(found, setting),
                *equalizing(setting),
                shuffling(setting),
                ranks(found, setting),
                updates(setting),
            ],
        )
        for setting in found.settings
    ]
    models = dict.fromkeys(setting.model for setting in found.settings)
    together = [(f"{m[0]}/{m[1]}, tasks together", [tasks(found, m)]) for m in models]
    return told + together


def overlaps(found: Finetuned, setting: Setting) -> Verdict:
    """Claim (a): overlaps of the head's rows don't predict fine-tunability."""
    claim = "Overlaps do not predict fine-tunability"
    rows = [_row(found, setting, name) for name in ("overlap_mean", "overlap_std")]
    known = [row for row in rows if row is not None and row["pearson"] is not None]
    if not known:
        return Verdict(claim, MISSING, "No overlaps at three checkpoints or more.")
    # Two metrics are tried, so each at half the level.
    signs = [relation(row, LEVEL / len(known)) for row in known]
    outcome = FAILS if {1, -1} & set(signs) else HOLDS if set(signs) == {0} else OPEN
    words = [
        f"{row['predictor']} with net gain {correlation(row)}, with finetunability "
        f"{correlation(_row(found, setting, row['predictor'], 'finetunability'))}"
        for row in known
    ]
    return Verdict(claim, outcome, f"{'; '.join(words)}.")


def norms(found: Finetuned, setting: Setting) -> Verdict:
    """Claim (b): norm CV predicts fine-tunability, beyond what null models do."""
    claim = "Norm CV predicts lower fine-tunability, beyond the step and the loss"
    row = _row(found, setting, "norm_cv")
    if row is None or row["pearson"] is None:
        return Verdict(claim, MISSING, "No norm CV that varies at three checkpoints or more.")
    nulls = {
        name: null["pearson"]
        for name in NULL_MODELS
        if (null := _row(found, setting, name)) is not None and null["pearson"] is not None
    }
    low, high = row["partial_low"], row["partial_high"]
    better = [name for name, r in nulls.items() if abs(r) >= abs(row["pearson"])]
    survives = high is not None and high < 0
    shown = row["pearson_high"] is not None and row["pearson_high"] < 0
    shown = shown and row["pearson_pvalue"] < LEVEL
    opposite = row["pearson_low"] is not None and row["pearson_low"] > 0
    if opposite or relation(row) == 0 or (low is not None and low >= 0):
        outcome = FAILS
    else:
        outcome = HOLDS if shown and survives and not better else OPEN
    best = _row(found, setting, "norm_cv", rate="best")
    parts = [
        f"Norm CV with net gain: {correlation(row)}",
        f"with finetunability: {correlation(_row(found, setting, 'norm_cv', 'finetunability'))}",
        *([f"at the best learning rates, net gain: {correlation(best)}"] if best else []),
        "null models with net gain: "
        + (", ".join(f"{name} {coefficient(r)}" for name, r in nulls.items()) or "none defined"),
        f"{' and '.join(better)} alone {'do' if len(better) > 1 else 'does'} no worse"
        if better
        else "none of them does as well",
        f"given log step, r = {coefficient(row['partial_given_log_step'])}"
        f"{interval(low, high, coefficient)}"
        + (", which excludes 0" if survives else ", which does not show a negative one"),
        f"first differences: r = {coefficient(row['differences_pearson'])}",
    ]
    return Verdict(claim, outcome, f"{'; '.join(parts)}.")


def tasks(found: Finetuned, model: tuple[str, str, str]) -> Verdict:
    """Claim (f): norm CV predicts fine-tunability on every task."""
    claim = "Norm CV predicts lower fine-tunability on every task"
    here = [setting for setting in found.settings if setting.model == model]
    rows = {s.label: row for s in here if (row := _row(found, s, "norm_cv")) is not None}
    known = {label: row for label, row in rows.items() if row["pearson"] is not None}
    if len({setting.task for setting in here if setting.label in known}) < 2:
        return Verdict(claim, MISSING, "One task only.")
    signs = [relation(row) for row in known.values()]
    against = [row["pearson_low"] is not None and row["pearson_low"] > 0 for row in known.values()]
    if any(against) or {0, 1} & set(signs):
        outcome = FAILS
    else:
        outcome = HOLDS if set(signs) == {-1} else OPEN
    words = [
        f"{setting.label}: net gain {correlation(known[setting.label])}, finetunability "
        f"{correlation(_row(found, setting, 'norm_cv', 'finetunability'))}"
        for setting in here
        if setting.label in known
    ]
    return Verdict(claim, outcome, f"{'; '.join(words)}.")


def _row(
    found: Finetuned,
    setting: Setting,
    predictor: str,
    outcome: str = "net_gain",
    rate: str = "fixed",
) -> Row | None:
    """Returns the row of `correlations` of a setting's reference arm, if there is one."""
    if setting.reference is None:
        return None
    wanted = {"predictor": predictor, "outcome": outcome, "rate": rate}
    return next(iter(correlations_of(found, setting.reference, **wanted)), None)
