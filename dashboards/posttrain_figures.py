"""Figures of post-training: geometry and training curves over the steps of each chain."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from dashboards.charts import Z95, plain
from dashboards.figures import Figure
from dashboards.finetune_words import size
from dashboards.passk_figures import passk_figures
from dashboards.posttrain_chains import METHODS, Chain, Point, Run
from dashboards.posttrain_read import Posttrained, Text
from dashboards.tables import Row, natural

START = "start"
"""Legend entry of the checkpoint that a chain began from."""

_BANDS = (
    "Band: ± 1.96 standard errors of the difference from the first point, paired by sequence where "
    "influences of both are known; the first point has none."
)
_EXACT = "Exact over the whole vocabulary, so there is no sampling error and no band."
_CURVES: dict[str, tuple[str, str]] = {
    "loss": ("training loss", "As the trainer defines it, so stages have a figure each."),
    "reward": ("mean reward", "Share of right completions."),
    "preferred": ("share preferred", "Share of pairs whose chosen answer has the higher reward."),
    "margin": ("reward margin", "Mean reward of chosen less rejected answers."),
    "entropy": ("entropy", "Mean entropy of the next token, in nats."),
}


def posttrain_figures(found: Posttrained) -> list[Figure]:
    """Draws what is known of each chain.

    Args:
        found: What is known.

    Returns:
        The figures that there are rows for; then those of pass@k.
    """
    drawn: list[Figure | None] = []
    for place, chain in enumerate(found.chains):
        points = [
            point
            for run in chain.runs
            for stage in run.stages
            for point in (stage.start, *stage.kept)
        ]
        texts = found.texts(points)
        for which, text in enumerate(texts):
            for metric, title in (("rankme", "RankMe"), ("alpha_req", "α-ReQ")):
                rows = _geometry(found, chain, text, metric)
                on = f", {found.named(text, texts)}"
                key = f"posttrain-{metric.replace('_', '-')}-{place}-{which}"
                drawn.append(_over_steps(key, f"{title}{on}", chain, rows, _BANDS, title))
        rows = _points(
            chain, lambda run, point: _exact(found.heads.get(point.key, {}).get("norm_cv"))
        )
        drawn.append(
            _over_steps(f"posttrain-norm-cv-{place}", "Norm CV", chain, rows, _EXACT, "norm CV")
        )
        drawn += _training(chain, place)
    return [figure for figure in drawn if figure is not None] + passk_figures(found)


def _geometry(found: Posttrained, chain: Chain, text: Text, metric: str) -> list[Row]:
    def value(run: Run, point: Point) -> Row | None:
        row = found.geometry.get(point.key, {}).get(text)
        if row is None or row[metric] is None or not math.isfinite(row[metric]):
            return None
        first = next(
            known
            for each in _every(run)
            if (known := found.geometry.get(each.key, {}).get(text)) is not None
            and known[metric] is not None
        )
        if row is first:
            return _exact(row[metric])
        error = found.change(first, row, metric).se
        margin = 0.0 if error is None else Z95 * error
        return {
            "value": row[metric], "low": row[metric] - margin, "high": row[metric] + margin,
            "se": error,
        }  # fmt: skip

    return _points(chain, value)


def _every(run: Run) -> list[Point]:
    """Returns a run's checkpoints in order, what it began from first."""
    points = [p for stage in run.stages for p in (stage.start, *stage.kept) if p is not None]
    return list(dict.fromkeys([*([run.base] if run.base else []), *points]))


def _exact(value: float | None) -> Row | None:
    if value is None or not math.isfinite(value):
        return None
    return {"value": value, "low": value, "high": value, "se": None}


def _points(chain: Chain, value: Callable[[Run, Point], Row | None]) -> list[Row]:
    """Places values on a chain's steps; each stage's line begins where the one before it ends."""
    rows: list[Row] = []
    for run in chain.runs:
        for place, stage in enumerate(run.stages):
            for point in (stage.start, *stage.kept):
                if point is None or (known := value(run, point)) is None:
                    continue
                shared = point == stage.start and not stage.partial
                line = METHODS[stage.method]
                at = {
                    "series": f"{run.model} {place}",
                    "model": run.model,
                    "step": point.step,
                    "checkpoint": f"{point.key[1]} {point.key[3]}",
                    **known,
                }
                rows.append({**at, "label": line, "own": not shared})
                if shared and place == 0:
                    rows.append({**at, "label": START, "own": True, "series": run.model})
    return rows


def _over_steps(
    key: str, title: str, chain: Chain, rows: Sequence[Row], note: str, axis: str
) -> Figure | None:
    if not any(row["own"] for row in rows):
        return None
    begun = sorted(
        {
            stage.start.step
            for run in chain.runs
            for stage in run.stages
            if stage.start is not None and not stage.partial
        }
    )
    own = [row for row in rows if row["own"]]
    shown = f"{len(chain.runs)} seeds" if len(chain.runs) > 1 else "1 seed"
    rules = " Dashed rules: a stage begins." if begun else ""
    return Figure(
        key=key,
        title=f"{title} over post-training: {chain.label}",
        caption=f"{shown}. {note}{rules}",
        alternative=f"Line chart of {axis} against the steps of post-training. {_told(own)}",
        rows=tuple(rows),
        specs={"step": _lines(rows, axis, begun)},
    )


def _training(chain: Chain, place: int) -> list[Figure | None]:
    """Draws training curves: the loss of each method, and other quantities over all of them."""
    drawn: list[Figure | None] = []
    for column, (title, note) in _CURVES.items():
        rows: list[Row] = [
            {
                "series": f"{run.model} {at}",
                "model": run.model,
                "label": METHODS[stage.method],
                "step": row["at"],
                "checkpoint": f"{METHODS[stage.method]} step {row['training_step']}",
                "own": True,
                **known,
            }
            for run in chain.runs
            for at, stage in enumerate(run.stages)
            for row in stage.log
            if (known := _exact(row[column])) is not None
        ]
        groups: Mapping[str, list[Row]] = (
            {label: [row for row in rows if row["label"] == label] for label in METHODS.values()}
            if column == "loss"
            else {"": rows}
        )
        for label, group in groups.items():
            suffix = f"-{label.lower()}" if label else ""
            drawn.append(
                _over_steps(
                    f"posttrain-{column}{suffix}-{place}",
                    f"{title.capitalize()}{f' of {label}' if label else ''}",
                    chain,
                    group,
                    note,
                    title,
                )
            )
    return drawn


def _lines(rows: Sequence[Row], title: str, begun: Sequence[int]) -> dict[str, Any]:
    used = {row["label"] for row in rows}
    labels = [label for label in (START, *METHODS.values()) if label in used]
    steps = [row["step"] for row in rows]
    x = alt.X("step:Q", title="step of post-training", scale=alt.Scale(nice=False, zero=False))
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("value:Q", title=title, scale=scale)
    legend = alt.Legend(symbolOpacity=1, symbolStrokeWidth=1.8)
    colour = alt.Color("label:N", title=None, scale=alt.Scale(domain=labels), legend=legend)
    base = alt.Chart(alt.NamedData("rows")).encode(x=x, detail="series:N")
    ends = {"y": alt.Y("low:Q", title=title, scale=scale), "y2": "high:Q", "color": colour}
    marks: list[alt.Chart] = []
    inside = [step for step in begun if min(steps) <= step <= max(steps)]
    if inside:
        rule = alt.Chart(alt.InlineData([{"at": step} for step in inside]))
        marks.append(rule.mark_rule(strokeDash=[6, 4], opacity=0.7).encode(x="at:Q"))
    if any(row["low"] < row["high"] for row in rows):
        marks.append(base.mark_area(opacity=0.25).encode(**ends))
    marks.append(base.mark_line(strokeWidth=1.8).encode(y=y, color=colour))
    marks.append(
        base.transform_filter("datum.own")
        .mark_point(size=30, filled=True, opacity=1)
        .encode(
            y=y,
            color=colour,
            shape=alt.Shape("label:N", title=None, scale=alt.Scale(domain=labels)),
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("model:N"),
                alt.Tooltip("step:Q", format=","),
                alt.Tooltip("value:Q", title=title, format=".5~g"),
                alt.Tooltip("se:Q", title="paired standard error", format=".3~g"),
            ],
        )
    )
    return plain(alt.layer(*marks).properties(width="container", height=300))


def _told(rows: Sequence[Row]) -> str:
    """Gives each stage's first and last value in words."""
    words = []
    for model in sorted({row["model"] for row in rows}, key=natural):
        for label in (START, *METHODS.values()):
            line = [row for row in rows if row["model"] == model and row["label"] == label]
            if line:
                line.sort(key=lambda row: row["step"])
                ends = " → ".join(
                    dict.fromkeys(
                        f"{size(row['value'])} at step {row['step']:,}"
                        for row in (line[0], line[-1])
                    )
                )
                words.append(f"{model}, {label}: {ends}")
    return f"{'; '.join(words)}."
