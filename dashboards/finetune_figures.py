"""Figures of fine-tunability: against norm CV and step, by intervention, norm decile and rate."""

from collections import defaultdict

import altair as alt

from dashboards.charts import training_axis
from dashboards.correlation_statistics import estimate
from dashboards.figures import Figure
from dashboards.finetune_charts import INTERVAL, OUTCOME_NAMES, ends, lines, told
from dashboards.finetune_comparisons import bases, causal_rows
from dashboards.finetune_mechanism import update_rows
from dashboards.finetune_scatter import scatter_figures
from dashboards.finetune_tables import Finetuned, Setting, arm_label
from dashboards.finetune_trials import OUTCOMES, Arm, Row, has_outcome, is_complete


def finetune_figures(found: Finetuned) -> list[Figure]:
    """Draws what the trials show.

    Args:
        found: What was measured.

    Returns:
        The figures that there are rows for.
    """
    drawn: list[Figure | None] = [*scatter_figures(found)]
    for place, setting in enumerate(found.settings):
        drawn += [_causal(setting, outcome, place) for outcome in reversed(OUTCOMES)]
        drawn += [_updates(found, setting, column, place) for column in _SIZES]
        drawn += [
            _rates(setting, arm, f"{place}-{which}")
            for which, arm in enumerate(arm for arm in setting.arms if arm.searches())
        ]
    return [figure for figure in drawn if figure is not None]


def _causal(setting: Setting, outcome: str, place: int) -> Figure | None:
    """Draws an outcome at each checkpoint, by what was done to the norms."""
    pairs = bases(setting)
    if not pairs:
        return None
    named = arm_label(pairs[0][0])
    points: list[Row] = [
        {
            "label": row["intervention"],
            "kind": row["intervention"],
            "step": row["step"],
            "value": row[outcome],
            "low": row[f"{outcome}_low"] if row[f"{outcome}_low"] is not None else row[outcome],
            "high": row[f"{outcome}_high"] if row[f"{outcome}_high"] is not None else row[outcome],
            "n": row[f"{outcome}_n"],
        }
        for row in causal_rows(setting)
        if row["arm"] == named
    ]
    if not points:
        return None
    note = (
        "Relative to the untouched model: an intervention without effect coincides with none."
        if outcome == "net_gain"
        else "Relative to the loss after the intervention, so mending what it broke counts as gain."
    )
    name = OUTCOME_NAMES[outcome]
    spec = lines(points, training_axis(points, "step"), name, "label", join=True)
    return Figure(
        key=f"causal-{outcome}-{place}",
        title=f"{name.capitalize()} by what was done to the norms: {setting.label}",
        caption=f"{named}. {note} {INTERVAL}",
        alternative=f"Line chart of {name} against training. {told(points)}",
        rows=tuple(points),
        specs={"step": spec},
    )


_TENTHS = alt.Axis(values=list(range(1, 11)), grid=False)

_SIZES = {
    "update_mean": ("‖Δw‖", "If updates did not depend on the norm (β = 0) it would be flat."),
    "relative_update_mean": (
        "ρ = ‖Δw‖/‖w‖",
        "Its slope is that of ‖Δw‖ less 1, so that it falls says nothing. Equally far: what it "
        "would be if all tokens moved as far as the middle ones (β = 0).",
    ),
}


def _updates(found: Finetuned, setting: Setting, column: str, place: int) -> Figure | None:
    """Draws sizes of updates by norm decile."""
    rows = update_rows(found, setting)
    rows = [row for row in rows if row["arm"] == rows[0]["arm"] and row[column] is not None]
    points: list[Row] = []
    for row in rows:
        limits = {"low": row[f"{column}_low"], "high": row[f"{column}_high"]}
        # A logarithmic axis has no place for an end at 0 or below.
        known = {
            k: row[column] if v is None else max(v, row[column] / 10) for k, v in limits.items()
        }
        at = {"label": row["tokens_of"], "decile": row["decile"], "norm": row["norm_mean"]}
        n = row[f"{column}_n"]
        points.append({**at, "kind": "measured", "value": row[column], **known, "n": n})
        if column == "relative_update_mean" and row["tokens_of"] == "all":
            value = row["expected_relative"]
            points.append(
                {**at, "kind": "equally far", "value": value, "low": value, "high": value, "n": n}
            )
    points = [point for point in points if point["value"] is not None and point["value"] > 0]
    if not points:
        return None
    title, note = _SIZES[column]
    x = alt.X("decile:Q", title="tenth of the tokens by norm, 1 the smallest", axis=_TENTHS)
    return Figure(
        key=f"updates-{'relative' if column != 'update_mean' else 'absolute'}-{place}",
        title=f"{title} by norm: {setting.label}",
        caption=f"{rows[0]['arm']}, step {rows[0]['step']:,}. {note} {INTERVAL}",
        alternative=f"Line chart of {title} by tenth of the norms. {told(points, 'decile')}",
        rows=tuple(points),
        specs={"step": lines(points, x, title, "label", join=True, log=True)},
    )


def _rates(setting: Setting, arm: Arm, place: str) -> Figure | None:
    """Draws the net gain of complete trials against the learning rate."""
    values: dict[tuple[int, float], list[float]] = defaultdict(list)
    left_out = {"stopped": 0, "diverged": 0}
    for (step, _, _), trials in arm.searches().items():
        for trial in trials:
            if not has_outcome(trial):
                left_out["diverged"] += 1
            elif not is_complete(trial):
                left_out["stopped"] += 1
            else:
                values[step, trial["lr"]].append(trial["net_gain"])
    points: list[Row] = [
        {
            "label": f"step {step:,}", "kind": f"step {step:,}", "step": step, "lr": lr,
            **ends(found),
        }
        for (step, lr), gains in sorted(values.items())
        if (found := estimate(gains)) is not None
    ]  # fmt: skip
    if not points:
        return None
    x = alt.X(
        "lr:Q",
        title="learning rate (log scale)",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=sorted({lr for _, lr in values}), labelOverlap="greedy", format="~g"),
    )
    return Figure(
        key=f"rates-{place}",
        title=f"Net gain by learning rate: {setting.label}",
        caption=(
            f"{arm_label(arm)}. Mean of the seeds whose trial was not stopped. Not drawn: "
            f"{left_out['stopped']} stopped and {left_out['diverged']} diverged trials. A best "
            f"rate at the edge of what was tried may not be the best. {INTERVAL}"
        ),
        alternative=f"Line chart of net gain against the learning rate. {told(points, 'lr')}",
        rows=tuple(points),
        specs={"step": lines(points, x, "net gain", "label", join=True)},
    )
