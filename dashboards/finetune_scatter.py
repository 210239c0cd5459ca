"""What fine-tuning gains against norm CV, against the overlaps' spread, and against the step."""

import altair as alt

from dashboards.charts import training_axis
from dashboards.figures import Figure
from dashboards.finetune_charts import INTERVAL, OUTCOME_NAMES, ends, lines, told
from dashboards.finetune_comparisons import causal_rows
from dashboards.finetune_tables import Finetuned, Setting, correlations_of
from dashboards.finetune_trials import OUTCOMES, Arm, Row
from dashboards.finetune_words import correlation

_AGAINST = {
    "norm_cv": ("norm-cv", "norm CV of the LM head", "norm CV"),
    "overlap_std": ("overlap-std", "standard deviation of the LM head's overlaps", "overlaps"),
    "step": ("step", "log step", "log step"),
}


def scatter_figures(found: Finetuned) -> list[Figure]:
    """Draws outcomes of plain LoRA against three predictors, and what equal norms change.

    Args:
        found: What was measured.

    Returns:
        The figures that there are rows for.
    """
    drawn = [_against(found, column) for column in _AGAINST]
    return [figure for figure in [*drawn, _changes(found)] if figure is not None]


def _against(found: Finetuned, column: str) -> Figure | None:
    """Draws both outcomes of plain LoRA against a predictor or the step."""
    points, words = [], []
    for setting in found.settings:
        arm = setting.reference
        known = setting.overlap_std if column == "overlap_std" else setting.norm_cv
        for point in arm.fixed if arm else ():
            at = {"norm_cv": setting.norm_cv.get(point.revision), column: known.get(point.revision)}
            if column != "step" and at[column] is None:
                continue
            for outcome in OUTCOMES:
                if (value := point.over_seeds(outcome)) is not None:
                    named = {"label": setting.label, "kind": OUTCOME_NAMES[outcome]}
                    points.append({**named, **at, "step": point.step, **ends(value)})
        if arm is not None:
            words.append(_correlated(found, setting, arm, column))
    if not points:
        return None
    key, name, short = _AGAINST[column]
    x = (
        training_axis(points, "step")
        if column == "step"
        else alt.X(f"{column}:Q", title=name, scale=alt.Scale(zero=False))
    )
    title = "relative improvement of the loss"
    return Figure(
        key=f"finetune-{key}",
        title=f"Fine-tunability and net gain against {name}",
        caption=(
            f"Plain LoRA on untouched weights. {INTERVAL} Any two series that trend over training "
            f"correlate, so what the step alone gives is what {short} must beat. {' '.join(words)}"
            if column != "step"
            else f"Plain LoRA on untouched weights. {INTERVAL} {' '.join(words)}"
        ),
        alternative=f"Chart of what fine-tuning gains against {name}. {told(points)}",
        rows=tuple(points),
        specs={"step": lines(points, x, title, "label", join=column == "step")},
    )


def _correlated(found: Finetuned, setting: Setting, arm: Arm, column: str) -> str:
    said = []
    for outcome in OUTCOMES:
        rows = {
            row["predictor"]: row
            for row in correlations_of(found, arm, rate="fixed", outcome=outcome)
        }
        named = {column: _AGAINST[column][2], "log_step": "log step alone"}
        parts = [
            f"{word} {correlation(rows[name])}" for name, word in named.items() if name in rows
        ]
        if parts:
            said.append(f"{OUTCOME_NAMES[outcome]}: {', '.join(parts)}")
    return f"{setting.label}: {'; '.join(said) or 'fewer than three checkpoints'}."


def _changes(found: Finetuned) -> Figure | None:
    """Draws what each intervention changes of fine-tunability, and of net gain, by norm CV."""
    points: list[Row] = []
    for setting in found.settings:
        for row in causal_rows(setting):
            if row["intervention"] == "none" or row["norm_cv"] is None:
                continue
            of = f"{setting.label}, {row['intervention']}"
            for outcome in OUTCOMES:
                name = f"{outcome}_difference"
                if row[name] is None:
                    continue
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                points.append(
                    {
                        "label": of,
                        "kind": OUTCOME_NAMES[outcome],
                        "step": row["step"],
                        "norm_cv": row["norm_cv"],
                        "value": row[name],
                        "low": row[name] if low is None else low,
                        "high": row[name] if high is None else high,
                        "change_percent": row["change_percent"],
                        "n": row[f"{name}_n"],
                    }
                )
    if not points:
        return None
    x = alt.X("norm_cv:Q", title="norm CV of the LM head", scale=alt.Scale(zero=False))
    return Figure(
        key="causal-change",
        title="What changing the norms adds, against norm CV",
        caption=(
            "Outcome after the intervention less that without, paired by seed. Fine-tunability is "
            "relative to the loss after the intervention, which rewards damage; net gain is "
            f"relative to the untouched model. {INTERVAL} In percent it stands in the table of "
            "norms changed before training, and in the rows."
        ),
        alternative=f"Chart of differences against norm CV. {told(points, 'norm_cv')}",
        rows=tuple(points),
        specs={"step": lines(points, x, "difference from untouched norms", "label", join=False)},
    )
