"""Figures of fine-tunability: against norm CV and step, by intervention, norm decile and rate."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboards.charts import plain, training_axis
from dashboards.correlation_statistics import Estimate, estimate
from dashboards.figures import Figure
from dashboards.finetune_comparisons import bases, causal_rows
from dashboards.finetune_mechanism import update_rows
from dashboards.finetune_tables import Finetuned, Setting, arm_label, correlations_of
from dashboards.finetune_trials import OUTCOMES, Arm, Row, has_outcome, is_complete
from dashboards.finetune_words import correlation, number
from dashboards.tables import natural

_NAMES = {"finetunability": "fine-tunability", "net_gain": "net gain"}
_INTERVAL = "Bars: 95 % t-intervals over the seeds, none for a single seed."


def finetune_figures(found: Finetuned) -> list[Figure]:
    """Draws what the trials show.

    Args:
        found: What was measured.

    Returns:
        The figures that there are rows for.
    """
    drawn: list[Figure | None] = [_against(found, "norm_cv"), _against(found, "step")]
    for place, setting in enumerate(found.settings):
        drawn += [_causal(setting, outcome, place) for outcome in reversed(OUTCOMES)]
        drawn += [_updates(found, setting, column, place) for column in _SIZES]
        drawn += [
            _rates(setting, arm, f"{place}-{which}")
            for which, arm in enumerate(arm for arm in setting.arms if arm.searches())
        ]
    return [figure for figure in drawn if figure is not None]


def _against(found: Finetuned, column: str) -> Figure | None:
    """Draws both outcomes of plain LoRA against norm CV or step."""
    points, words = [], []
    for setting in found.settings:
        arm = setting.reference
        for point in arm.fixed if arm else ():
            norm_cv = setting.norm_cv.get(point.revision)
            if column == "norm_cv" and norm_cv is None:
                continue
            for outcome in OUTCOMES:
                if (value := point.over_seeds(outcome)) is not None:
                    at = {"label": setting.label, "kind": _NAMES[outcome], "norm_cv": norm_cv}
                    points.append({**at, "step": point.step, **_ends(value)})
        if arm is not None:
            words.append(_correlated(found, setting, arm, column))
    if not points:
        return None
    name = "norm CV of the LM head" if column == "norm_cv" else "log step"
    x = (
        training_axis(points, "step")
        if column == "step"
        else alt.X("norm_cv:Q", title=name, scale=alt.Scale(zero=False))
    )
    spec = _lines(points, x, "relative improvement of the loss", "label", join=column == "step")
    return Figure(
        key=f"finetune-{'norm-cv' if column == 'norm_cv' else 'step'}",
        title=f"Fine-tunability and net gain against {name}",
        caption=(
            f"Plain LoRA on untouched weights. {_INTERVAL} Any two series that trend over training "
            "correlate, so what the step alone gives is what norm CV has to beat. "
            f"{' '.join(words)}"
        ),
        alternative=f"Chart of what fine-tuning gains against {name}. {_told(points)}",
        rows=tuple(points),
        specs={"step": spec},
    )


def _correlated(found: Finetuned, setting: Setting, arm: Arm, column: str) -> str:
    told = []
    for outcome in OUTCOMES:
        rows = {
            row["predictor"]: row
            for row in correlations_of(found, arm, rate="fixed", outcome=outcome)
        }
        parts = [
            f"{word} {correlation(rows[name])}"
            for name, word in (("norm_cv", "norm CV"), ("log_step", "log step alone"))
            if name in rows and (name == "log_step" or column == "norm_cv")
        ]
        if parts:
            told.append(f"{_NAMES[outcome]}: {', '.join(parts)}")
    return f"{setting.label}: {'; '.join(told) or 'fewer than three checkpoints'}."


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
    name = _NAMES[outcome]
    spec = _lines(points, training_axis(points, "step"), name, "label", join=True)
    return Figure(
        key=f"causal-{outcome}-{place}",
        title=f"{name.capitalize()} by what was done to the norms: {setting.label}",
        caption=f"{named}. {note} {_INTERVAL}",
        alternative=f"Line chart of {name} against training. {_told(points)}",
        rows=tuple(points),
        specs={"step": spec},
    )


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
        ends = {"low": row[f"{column}_low"], "high": row[f"{column}_high"]}
        # A logarithmic axis has no place for an end at 0 or below.
        known = {k: row[column] if v is None else max(v, row[column] / 10) for k, v in ends.items()}
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
        caption=f"{rows[0]['arm']}, step {rows[0]['step']:,}. {note} {_INTERVAL}",
        alternative=f"Line chart of {title} by tenth of the norms. {_told(points, 'decile')}",
        rows=tuple(points),
        specs={"step": _lines(points, x, title, "label", join=True, log=True)},
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
            **_ends(found),
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
            f"rate at the edge of what was tried may not be the best. {_INTERVAL}"
        ),
        alternative=f"Line chart of net gain against the learning rate. {_told(points, 'lr')}",
        rows=tuple(points),
        specs={"step": _lines(points, x, "net gain", "label", join=True)},
    )


_TENTHS = alt.Axis(values=list(range(1, 11)), grid=False)


def _lines(
    points: Sequence[Row], x: alt.X, title: str, colour: str, *, join: bool, log: bool = False
) -> dict[str, Any]:
    """Draws points with intervals, joined to lines or not; colours by `colour`, marks by `kind`."""
    labels = sorted({point[colour] for point in points}, key=natural)
    kinds = sorted({point["kind"] for point in points}, key=natural, reverse=True)
    scale = (
        alt.Scale(type="log", nice=False, padding=8) if log else alt.Scale(zero=False, nice=True)
    )
    # Kinds that say nothing more than the colours share their legend.
    same = len(kinds) == 1 or all(point["kind"] == point[colour] for point in points)
    of, domain = (colour, alt.Scale(domain=labels)) if same else ("kind", alt.Scale(domain=kinds))
    shape = alt.Shape(f"{of}:N", title=None, scale=domain)
    dash = alt.StrokeDash(f"{of}:N", title=None, scale=domain)
    known = [name for name in ("step", "norm_cv", "decile", "norm", "lr") if name in points[0]]
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=x,
        color=alt.Color(f"{colour}:N", title=None, scale=alt.Scale(domain=labels)),
    )
    y = alt.Y("value:Q", title=title, scale=scale)
    layers = [
        base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"),
        base.mark_point(size=40, filled=True, opacity=1).encode(
            y=y,
            shape=shape,
            tooltip=[
                alt.Tooltip(f"{colour}:N"),
                alt.Tooltip("kind:N"),
                *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in known),
                alt.Tooltip("value:Q", title=title, format=".4~g"),
                alt.Tooltip("low:Q", format=".4~g"),
                alt.Tooltip("high:Q", format=".4~g"),
                alt.Tooltip("n:Q", title="seeds"),
            ],
        ),
    ]
    if join:
        layers.insert(1, base.mark_line(strokeWidth=1.6).encode(y=y, strokeDash=dash))
    return plain(alt.layer(*layers).properties(width="container", height=300))


def _ends(found: Estimate) -> Row:
    """Returns value and ends of its interval: itself where there is none."""
    return {
        "value": found.mean,
        "low": found.mean if found.low is None else found.low,
        "high": found.mean if found.high is None else found.high,
        "n": found.n,
    }


def _told(points: Sequence[Row], at: str = "step") -> str:
    """Gives each line's first and last value in words."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for point in points:
        name = ", ".join(dict.fromkeys((point["label"], point["kind"])))
        lines[name].append(point)
    words = []
    for name, line in lines.items():
        line.sort(key=lambda point: point[at])
        ends = " → ".join(f"{number(p['value'])} at {at} {p[at]:,g}" for p in (line[0], line[-1]))
        words.append(f"{name}: {ends}")
    return f"{'; '.join(words)}."
