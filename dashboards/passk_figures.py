"""Figures of pass@k against k, for each checkpoint that was sampled."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboards.charts import plain
from dashboards.figures import Figure
from dashboards.finetune_words import size
from dashboards.posttrain_chains import METHODS, Chain, Key
from dashboards.posttrain_read import Posttrained, Setting
from dashboards.tables import Row


def passk_figures(found: Posttrained) -> list[Figure]:
    """Draws pass@k: a figure for each chain and way of sampling, and one for all other checkpoints.

    Args:
        found: What is known.

    Returns:
        The figures that there are rows for.
    """
    drawn = []
    groups = [(chain.label, _labels(chain)) for chain in found.chains]
    placed = {key for _, labels in groups for key in labels}
    others = {key: f"{key[1]} {key[3]}" for key in found.sampled if key not in placed}
    for place, (title, labels) in enumerate([*groups, ("other checkpoints", others)]):
        settings: dict[Setting, list[Row]] = defaultdict(list)
        for key, label in labels.items():
            for setting, rows in found.sampled.get(key, {}).items():
                settings[setting] += _points(key, label, rows)
        for which, (setting, points) in enumerate(
            sorted(settings.items(), key=lambda item: str(item[0]))
        ):
            if points:
                drawn.append(_figure(f"passk-{place}-{which}", title, setting, points))
    return drawn


def _labels(chain: Chain) -> dict[Key, str]:
    """Names a chain's checkpoints; seeds share their names, and so their colours."""
    labels: dict[Key, str] = {}
    for run in chain.runs:
        if run.base is not None:
            labels[run.base.key] = "start"
        for stage in run.stages:
            # A stage's first checkpoint stands for its start where that isn't known.
            for point in (*([stage.start] if stage.partial and stage.start else []), *stage.kept):
                labels[point.key] = f"{METHODS[stage.method]}, step {point.step:,}"
    return labels


def _points(key: Key, label: str, rows: dict[int, Row]) -> list[Row]:
    points = []
    for k, row in sorted(rows.items()):
        value = row["pass_at_k"]
        if value is None:
            continue
        points.append(
            {
                "label": label,
                "series": f"{key[0]} {key[1]} {key[3]}",
                "checkpoint": f"{key[1]} {key[3]}",
                "k": k,
                "value": value,
                "low": value if row["low"] is None else row["low"],
                "high": value if row["high"] is None else row["high"],
                "guessing": row["guessing"],
                "n": row["n_problems"],
            }
        )
    return points


def _figure(key: str, title: str, setting: Setting, points: Sequence[Row]) -> Figure:
    counts = sorted({point["n"] for point in points if point["n"] is not None})
    problems = " or ".join(f"{count:,}" for count in counts) or "unknown"
    nucleus = "" if setting.top_p in (None, 1.0) else f", top-p {setting.top_p:g}"
    return Figure(
        key=key,
        title=f"pass@k on {setting.problems}: {title}",
        caption=(
            f"{problems} problems, N = {setting.n_samples} samples of each at temperature "
            f"{setting.temperature:g}{nucleus}. Band: 95 % bootstrap interval over problems. "
            "Dashed, in the same colour: pass@k of drawing from that checkpoint's own answers to "
            "all problems, whatever the problem."
        ),
        alternative=f"Line chart of pass@k against k on {setting.problems}. {_told(points)}",
        rows=tuple(points),
        specs={"step": _lines(points)},
    )


def _lines(points: Sequence[Row]) -> dict[str, Any]:
    labels = list(dict.fromkeys(point["label"] for point in points))
    tries = sorted({point["k"] for point in points})
    x = alt.X(
        "k:Q",
        title="k (log scale)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=8),
        axis=alt.Axis(values=tries, labelOverlap="greedy", format="d", grid=False),
    )
    legend = alt.Legend(symbolOpacity=1, symbolStrokeWidth=1.8)
    colour = alt.Color("label:N", title=None, scale=alt.Scale(domain=labels), legend=legend)
    shape = alt.Shape("label:N", title=None, scale=alt.Scale(domain=labels))
    base = alt.Chart(alt.NamedData("rows")).encode(x=x, color=colour, detail="series:N")
    y = alt.Y("value:Q", title="pass@k")
    marks = [
        base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title="pass@k"), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=y),
    ]
    if any(point["guessing"] is not None for point in points):
        guessed = base.transform_filter("isValid(datum.guessing)")
        dashed = guessed.mark_line(strokeWidth=1.4, strokeDash=[5, 4])
        marks.append(dashed.encode(y=alt.Y("guessing:Q", title="pass@k")))
    marks.append(
        base.mark_point(size=30, filled=True, opacity=1).encode(
            y=y,
            shape=shape,
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("k:Q"),
                alt.Tooltip("value:Q", title="pass@k", format=".4~g"),
                alt.Tooltip("low:Q", format=".4~g"),
                alt.Tooltip("high:Q", format=".4~g"),
                alt.Tooltip("guessing:Q", format=".4~g"),
                alt.Tooltip("n:Q", title="problems"),
            ],
        )
    )
    return plain(alt.layer(*marks).properties(width="container", height=320))


def _told(points: Sequence[Row]) -> str:
    """Gives each checkpoint's first and last value in words."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for point in points:
        lines[f"{point['checkpoint']} ({point['label']})"].append(point)
    words = [
        f"{name}: " + " → ".join(f"{size(p['value'])} at k = {p['k']}" for p in (line[0], line[-1]))
        for name, line in lines.items()
    ]
    return f"{'; '.join(words)}."
