"""Charts of what fine-tuning gains: points with intervals over the seeds, joined or not."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboards.charts import plain
from dashboards.correlation_statistics import Estimate
from dashboards.finetune_trials import Row
from dashboards.finetune_words import number
from dashboards.tables import natural

OUTCOME_NAMES = {"finetunability": "fine-tunability", "net_gain": "net gain"}
"""What outcomes are called."""

INTERVAL = "Bars: 95 % t-intervals over the seeds, none for a single seed."
"""What the bars mean, for captions."""


def lines(
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


def ends(found: Estimate) -> Row:
    """Returns value and ends of its interval: itself where there is none."""
    return {
        "value": found.mean,
        "low": found.mean if found.low is None else found.low,
        "high": found.mean if found.high is None else found.high,
        "n": found.n,
    }


def told(points: Sequence[Row], at: str = "step") -> str:
    """Gives each line's first and last value in words."""
    courses: dict[str, list[Row]] = defaultdict(list)
    for point in points:
        name = ", ".join(dict.fromkeys((point["label"], point["kind"])))
        courses[name].append(point)
    words = []
    for name, line in courses.items():
        line.sort(key=lambda point: point[at])
        course = " → ".join(f"{number(p['value'])} at {at} {p[at]:,g}" for p in (line[0], line[-1]))
        words.append(f"{name}: {course}")
    return f"{'; '.join(words)}."
