"""Vega-Lite specifications. They name the data set `rows`; colours belong to whoever shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from dashboards.tables import Row, natural

AXES = {"step": "optimizer step", "tokens": "training tokens"}
"""What a trajectory is drawn against, and how the axis is called."""

Z95 = 1.96
"""Half width of a 95 % normal interval, in standard errors."""

RANDOM_OVERLAP = math.sqrt(2 / math.pi)
"""√d times the mean |cos| of random directions."""

RANDOM_SPREAD = math.sqrt(1 - 2 / math.pi)
"""√d times the standard deviation of |cos| of random directions."""


@dataclass(frozen=True)
class Trajectory:
    """A quantity that is drawn over training.

    Attributes:
        key: Name of the figure.
        table: Which rows of `Measured` hold it.
        column: The quantity.
        title: Heading and name of the y axis.
        unit: Its unit, empty for pure numbers.
        note: What the marks mean, for the caption.
        se: Column of its standard error, drawn as a band of ± 1.96.
        spread: Column of a standard deviation that is no uncertainty, for the tooltip.
        rule: A reference value that is drawn as a line.
        rule_label: What the reference is.
    """

    key: str
    table: Literal["geometry", "head", "loss", "tasks", "memorization", "log"]
    column: str
    title: str
    note: str
    unit: str = ""
    se: str | None = None
    spread: str | None = None
    rule: float | None = None
    rule_label: str = ""


# The axis' own format would give all ticks the prefix of the largest: 0k, 0.1k.
_SHORT = "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '.3~s')"
_JACKKNIFE = "Band: ± 1.96 standard errors over the sequences (infinitesimal jackknife)."
TRAJECTORIES = (
    Trajectory("rankme", "geometry", "rankme", "RankMe", _JACKKNIFE, se="rankme_se"),
    Trajectory("alpha-req", "geometry", "alpha_req", "α-ReQ", _JACKKNIFE, se="alpha_req_se"),
    Trajectory(
        "norm-cv",
        "head",
        "norm_cv",
        "Norm CV",
        "Exact over the whole vocabulary, so there is no sampling error and no band.",
    ),
    Trajectory(
        "overlap",
        "head",
        "overlap_mean_scaled",
        "Mean overlap · √d",
        "The mean is exact over all pairs of tokens, so there is no sampling error and no band; "
        "the tooltips give the standard deviation of the pairs, which is their spread and not an "
        "uncertainty. Dashed line: random directions, √(2/π).",
        spread="overlap_std_scaled",
        rule=RANDOM_OVERLAP,
        rule_label="random directions",
    ),
    Trajectory(
        "overlap-spread",
        "head",
        "overlap_std_scaled",
        "Spread of overlaps · √d",
        "Standard deviation of |cos| over all pairs of tokens, exact. Dashed line: random "
        "directions, √(1 − 2/π).",
        rule=RANDOM_SPREAD,
        rule_label="random directions",
    ),
    Trajectory(
        "loss",
        "loss",
        "value",
        "Held-out loss",
        "Band: ± 1.96 standard errors over the examples.",
        unit="nats per token",
        se="stderr",
    ),
)
"""The main figures, in order."""

_LOG_POINT = 8
"""Hundreds of points in a line need but be there to be pointed at."""
_COUNTED = {
    "geometry": "sequences",
    "head": "tokens of the head",
    "loss": "n",
    "tasks": "questions",
    "memorization": "answers",
}


def trajectory_spec(rows: Sequence[Row], quantity: Trajectory, axis: str) -> dict[str, Any]:
    """Draws lines with points and a band over training.

    Args:
        rows: Points with `series`, `label`, `variant`, `value`, `low`, `high` and the axis.
        quantity: What is drawn.
        axis: One of `AXES`; known in every row.

    Returns:
        A Vega-Lite specification without colours, as wide as its container.
    """
    x = training_axis(rows, axis)
    labels = sorted({row["label"] for row in rows}, key=natural)
    variants = sorted({row["variant"] for row in rows}, key=natural)
    title = f"{quantity.title} ({quantity.unit})" if quantity.unit else quantity.title
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    colour = alt.Color(
        "label:N",
        title=None,
        scale=alt.Scale(domain=labels),
        legend=alt.Legend(symbolOpacity=1, symbolStrokeWidth=1.8),
    )
    shape = alt.Shape("label:N", title=None, scale=alt.Scale(domain=labels))
    dash: alt.StrokeDash | alt.typing.Optional[Any] = alt.Undefined
    if len(variants) > 1:
        kinds = alt.Scale(domain=variants)
        shape = alt.Shape("variant:N", title=None, scale=kinds)
        dash = alt.StrokeDash("variant:N", title=None, scale=kinds)
    base = alt.Chart(alt.NamedData("rows")).encode(x=x, detail="series:N")
    marks: list[alt.Chart] = []
    if quantity.rule is not None:
        rule = alt.Chart(alt.InlineData([{"at": quantity.rule, "name": quantity.rule_label}]))
        marks.append(rule.mark_rule(strokeDash=[6, 4], opacity=0.7).encode(y="at:Q"))
        marks.append(
            rule.mark_text(align="right", baseline="top", dx=-4, dy=4).encode(
                y="at:Q", x=alt.value("width"), text="name:N"
            )
        )
    if quantity.se is not None:
        interval = {"y": alt.Y("low:Q", title=title), "y2": "high:Q", "color": colour}
        marks.append(base.mark_area(opacity=0.25).encode(**interval))
        names = [row["series"] for row in rows]
        alone = [name for name in set(names) if names.count(name) == 1]
        if alone:
            # An area over one point has no width.
            only = base.transform_filter(alt.FieldOneOfPredicate("series", oneOf=sorted(alone)))
            marks.append(only.mark_rule(opacity=0.6).encode(**interval))
    marks.append(base.mark_line(strokeWidth=1.8).encode(y=y, color=colour, strokeDash=dash))
    marks.append(
        base.mark_point(
            size=_LOG_POINT if quantity.table == "log" else 34, filled=True, opacity=1
        ).encode(y=y, color=colour, shape=shape, tooltip=_tooltip(quantity))
    )
    chart = alt.layer(*marks).properties(width="container", height=300)
    return plain(chart)


def layer_spec(axis: str, order: Sequence[str], title: str) -> dict[str, Any]:
    """Draws a metric by layer and checkpoint as a heat map.

    Args:
        axis: One of `AXES`.
        order: The layers, the lowest first.
        title: What the metric is called.

    Returns:
        A Vega-Lite specification as wide as its container.
    """
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_rect()
        .encode(
            x=alt.X(
                f"{axis}:O",
                # Whole pixels, or the page shines through between the columns.
                scale=alt.Scale(round=True),
                title=f"{AXES[axis]}, one column per checkpoint",
                axis=alt.Axis(labelAngle=-45, labelOverlap="greedy", labelExpr=_SHORT),
            ),
            y=alt.Y("layer:N", title="layer", sort=list(order)[::-1]),
            color=alt.Color("value:Q", title=title, scale=alt.Scale(scheme="viridis")),
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("step:Q", format=","),
                alt.Tooltip("layer:N"),
                alt.Tooltip("value:Q", title=title, format=".4~g"),
            ],
        )
        .properties(width="container", height=max(120, 28 * len(order)))
    )
    return plain(chart)


def _tooltip(quantity: Trajectory) -> list[alt.Tooltip]:
    count = _COUNTED.get(quantity.table)
    shown = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("tokens:Q", format=","),
        alt.Tooltip("value:Q", title=quantity.title, format=".5~g"),
    ]
    if quantity.se is not None:
        shown.append(alt.Tooltip("se:Q", title="standard error", format=".3~g"))
    if quantity.spread is not None:
        name = "standard deviation of the pairs"
        shown.append(alt.Tooltip("spread:Q", title=name, format=".3~g"))
    return [*shown, alt.Tooltip("n:Q", title=count, format=",")] if count else shown


def training_axis(rows: Sequence[Row], axis: str, field: str | None = None) -> alt.X:
    """Returns the x axis of training over the values of rows, logarithmic but for a 0.

    Args:
        rows: Rows with the axis; known in each.
        axis: One of `AXES`.
        field: What is drawn on it; the axis itself where it is left out.
    """
    values = sorted({row[axis] for row in rows})
    positive = [value for value in values if value > 0]
    if len(values) < 2 or not positive:
        return alt.X(
            f"{field or axis}:Q",
            title=AXES[axis],
            scale=alt.Scale(zero=False),
            axis=alt.Axis(values=values, labelExpr=_SHORT),
        )
    low, high = positive[0], positive[-1]
    ticks = _ticks(low, high)
    if values[0] > 0:
        title = f"{AXES[axis]} (log scale)"
        scale = alt.Scale(type="log", domain=[low, high], nice=False)
    else:
        # A logarithm has no place for step 0: below the first positive value the axis is linear.
        title = f"{AXES[axis]} (log scale; linear below {low:,})"
        scale = alt.Scale(type="symlog", constant=low, domain=[0, high], nice=False)
        ticks = [0, *ticks]
    ticks_axis = alt.Axis(values=ticks, labelExpr=_SHORT, labelOverlap="greedy", grid=False)
    return alt.X(f"{field or axis}:Q", title=title, scale=scale, axis=ticks_axis)


def _ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leading in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**power for power in exponents for digit in leading]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    return sorted({low, *inside, high})


def plain(chart: alt.Chart | alt.LayerChart | alt.FacetChart) -> dict[str, Any]:
    """Returns a chart's specification without looks of its own, its data inline."""
    # Altair would move inline data to the top level, where the page puts its own.
    with alt.data_transformers.enable(consolidate_datasets=False):
        spec = chart.to_dict()
    # Altair's own look; the page and the picture bring theirs.
    spec.pop("config", None)
    return spec
