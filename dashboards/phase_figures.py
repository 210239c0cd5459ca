"""Figures of phases: each model's along training, and groups of models that differ by one thing."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboards.charts import plain, training_axis
from dashboards.figures import Figure
from dashboards.tables import LAST_LAYER, Measured, Row, last_layer, model_labels, natural

PHASES = (
    "unobserved",
    "warmup",
    "entropy_seeking",
    "compression_seeking",
    "flat",
)
"""Names of rankme's phases, in the order of their colours."""
IN_WORDS = "replace(datum.label, '_', ' ')"
"""What legends make of these names, which tables and CSVs keep."""

_SEED = re.compile(r"(.+)-(\d+)")
_COMPARED = (("rankme", "RankMe"), ("norm_cv", "Norm CV of the LM head"))


def phase_strip(measured: Measured, rows: Sequence[Row]) -> Figure | None:
    """Draws the phases of rankme after the final norm as bars over training.

    Args:
        measured: The rows of the results, for the names of the models.
        rows: Rows of `phases`.

    Returns:
        The figure; None where there are none.
    """
    labels = model_labels(measured)
    bars = tuple(
        {
            "series": _series(row, labels),
            "phase": row["phase"],
            "start": row["start_step"] or 0,
            "end": row["end_step"],
            "start_tokens": row["start_tokens"] or 0,
            "end_tokens": row["end_tokens"],
            "change": row["change"],
            "confidence": row["confidence"],
            "verdict": row["verdict"],
        }
        for row in rows
        if row["metric"] == "rankme" and row["layer"] == LAST_LAYER and row["n_checkpoints"] > 1
    )
    if not bars:
        return None
    verdicts = sorted({f"{bar['series']}: {bar['verdict']}" for bar in bars}, key=natural)
    specs = {"step": _strip(bars, "step", "start", "end")}
    if all(bar["end_tokens"] is not None for bar in bars):
        specs["tokens"] = _strip(bars, "tokens", "start_tokens", "end_tokens")
    return Figure(
        key="phases",
        title="Phases of RankMe",
        caption=(
            "After the final norm (layer −1). A phase ends where the next one begins: at a turn "
            "between two changes that each exceed the paired uncertainty of their difference, and "
            "1 %. unobserved: the series begins after the warm-up."
        ),
        alternative=f"Bars of phases against training. {'; '.join(verdicts)}.",
        rows=bars,
        specs=specs,
    )


def _strip(bars: Sequence[Row], axis: str, start: str, end: str) -> dict[str, Any]:
    places = [bar[name] for bar in bars for name in (start, end)]
    # From the first step on the axis is logarithmic, whatever ends first.
    first = 1 if axis == "step" else min((place for place in places if place > 0), default=1)
    shown = {bar["phase"] for bar in bars}
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(height=16, cornerRadius=2)
        .encode(
            x=training_axis([{axis: first}, *({axis: p} for p in places)], axis, start),
            x2=f"{end}:Q",
            y=alt.Y(
                "series:N",
                title=None,
                axis=alt.Axis(labelLimit=280),
                sort=sorted({b["series"] for b in bars}, key=natural),
            ),
            color=alt.Color(
                "phase:N",
                title=None,
                scale=alt.Scale(domain=list(PHASES)),
                legend=alt.Legend(
                    values=[phase for phase in PHASES if phase in shown], labelExpr=IN_WORDS
                ),
            ),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("start:Q", format=","),
                alt.Tooltip("end:Q", format=","),
                alt.Tooltip("change:Q", format=".4~g"),
                alt.Tooltip("confidence:Q", format=".3~f"),
            ],
        )
        # Not by alt.Step: a discrete height can't be fitted, and the page would complain of it.
        .properties(width="container", height=24 * len({bar["series"] for bar in bars}))
    )
    return plain(chart)


def comparisons(measured: Measured, phases: Sequence[Row]) -> list[Figure]:
    """Draws groups of models that differ by their seed alone, one colour for each group.

    Models belong together if their names differ only by a number at their end: `constant-0` and
    `constant-1`. Nothing is drawn for a suite without two such groups of two.

    Args:
        measured: The rows of the results.
        phases: Rows of `phases`, whose verdicts are counted in the captions.

    Returns:
        A figure of rankme and one of norm CV for each suite.
    """
    sources = {"rankme": last_layer(measured), "norm_cv": list(measured.head)}
    drawn = []
    for suite, groups in _groups(sources["rankme"] + sources["norm_cv"]).items():
        for column, title in _COMPARED:
            points = tuple(
                {"group": groups[row["model"]], "model": row["model"], "step": row["step"],
                 "value": row[column]}
                for row in sources[column]
                if row["suite"] == suite and row["model"] in groups and row["step"] is not None
                and row[column] is not None
            )  # fmt: skip
            if points:
                told = _verdicts(phases, suite, column, groups)
                drawn.append(_comparison(suite, column, title, points, told))
    return drawn


def _groups(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Returns each suite's models with their groups, of suites that have something to compare."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if match := _SEED.fullmatch(row["model"]):
            found[row["suite"]][match[1]].add(row["model"])
    kept = {
        suite: {name: models for name, models in groups.items() if len(models) > 1}
        for suite, groups in found.items()
    }
    return {
        suite: {model: name for name, models in groups.items() for model in models}
        for suite, groups in kept.items()
        if len(groups) > 1
    }


def _verdicts(phases: Sequence[Row], suite: str, metric: str, groups: Mapping[str, str]) -> str:
    """Says how many models of each group have which verdict."""
    verdicts = {
        (row["model"], row["dataset"]): row["verdict"]
        for row in phases
        if (row["suite"], row["metric"]) == (suite, metric)
        and row["model"] in groups
        and row["layer"] in (None, LAST_LAYER)
    }
    counts = Counter((groups[model], verdict) for (model, _), verdict in verdicts.items())
    told: dict[str, list[str]] = defaultdict(list)
    for (group, verdict), number in sorted(counts.items(), key=lambda item: -item[1]):
        told[group].append(f"{number} × {verdict}")
    return "; ".join(f"{name}: {', or '.join(told[name])}" for name in sorted(told, key=natural))


def _comparison(
    suite: str, column: str, title: str, points: Sequence[Row], verdicts: str
) -> Figure:
    names = sorted({row["group"] for row in points}, key=natural)
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=training_axis(points, "step"),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("group:N", title=None, scale=alt.Scale(domain=names)),
        detail="model:N",
    )
    tooltip: list[Any] = [
        alt.Tooltip("model:N"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", title=title, format=".4~g"),
    ]
    chart = alt.layer(
        base.mark_line(strokeWidth=1.4, opacity=0.8),
        base.mark_point(size=22, filled=True).encode(
            shape=alt.Shape("group:N", title=None, scale=alt.Scale(domain=names)), tooltip=tooltip
        ),
    ).properties(width="container", height=300)
    words = []
    for name in names:
        ends: dict[str, list[float]] = defaultdict(list)
        for row in sorted(points, key=lambda row: row["step"]):
            if row["group"] == name:
                ends[row["model"]].append(row["value"])
        told = ", ".join(
            f"{v[0]:.3g} → {min(v):.3g} … {max(v):.3g} → {v[-1]:.3g}" for v in ends.values()
        )
        words.append(f"{name}: {told}")
    return Figure(
        key=f"compared-{column}-{re.sub(r'[^A-Za-z0-9]', '-', suite)}",
        title=f"{title}, {suite}: {' / '.join(names)}",
        caption=(
            "One line for each seed, one colour for each group of models, named as its models are "
            f"without the number at their end. Phases: {verdicts}."
        ),
        alternative=(
            f"Line chart of {title} against training; first value, lowest, highest and last of "
            f"each seed. {'; '.join(words)}."
        ),
        rows=tuple(points),
        specs={"step": plain(chart)},
    )


def _series(row: Row, labels: Mapping[tuple[str, str, str], str]) -> str:
    label = labels[row["suite"], row["model"], row["stage"]]
    return label if row["dataset"] is None else f"{label}, {row['dataset']}"
