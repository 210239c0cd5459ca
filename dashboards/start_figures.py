"""What tuning makes of checkpoints, by the step that it began from: loss of answers, win rates.

Bands over seeds are standard deviations, as in the tracing paper's Figure 14: they say how far
seeds lie apart, not how well their mean is known.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboards.charts import plain, training_axis
from dashboards.figures import Figure
from dashboards.finetune_words import size
from dashboards.posttrain_read import Posttrained
from dashboards.tables import Measured, Row, checkpoint_key, last_layer, natural

_RATES = {"win_rate": "Win rate", "length_controlled": "Win rate at equal lengths"}
_COMPARED = {
    "pair": "of one chain against another from the same checkpoint",
    "last": "of each start against the last start",
}


def start_figures(measured: Measured, found: Posttrained) -> list[Figure]:
    """Draws loss of answers and win rates against the step of the checkpoint that was tuned.

    Args:
        measured: The rows of the results.
        found: What is known of chains.

    Returns:
        The figures that there are rows for.

    Raises:
        StoreError: The place cannot be read.
    """
    drawn = [_losses(measured, found)]
    for rate, title in _RATES.items():
        drawn += [_winrates(found, measured, comparison, rate, title) for comparison in _COMPARED]
    return [figure for figure in drawn if figure is not None]


def _losses(measured: Measured, found: Posttrained) -> Figure | None:
    """Draws the loss of answers at the end of each chain's first SFT stage."""
    known: dict[Any, list[Row]] = defaultdict(list)
    for row in measured.answer_loss:
        known[checkpoint_key(row)].append(row)
    started = _steps(measured, found)
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    trained, counts = set(), set()
    for chain in found.chains:
        for run in chain.runs:
            stage = run.stages[0]
            start = run.base or stage.start
            step = started.get(start.key) if start is not None else None
            if stage.method != "sft" or stage.end is None or step is None:
                continue
            trained |= {f"{run.suite}: {row['data']}" for row in stage.log}
            for row in known.get(stage.end.key, []):
                values[f"{run.suite}, loss on {row['task']}", step].append(row["value"])
                counts.add(f"{row['task']}: n = {row['n']:,} tokens")
    points = [
        {"label": label, "step": step, **_spread(found)} for (label, step), found in values.items()
    ]
    if not points:
        return None
    numbers = "; ".join(sorted(counts, key=natural))
    data = "; ".join(sorted(trained, key=natural)) or "not recorded"
    return _figure(
        "start-answer-loss",
        "Loss of answers after SFT, by the checkpoint that it began from",
        f"Mean cross-entropy of the answers in chats ({numbers}), at the end of SFT. Trained on: "
        f"{data}. On that data, or a part held out of it, a loss is in distribution; on other "
        "data, out of it. Band: ± one standard deviation over the seeds.",
        points,
        "nats per token",
    )


def _winrates(
    found: Posttrained, measured: Measured, comparison: str, rate: str, title: str
) -> Figure | None:
    rows = [
        row
        for row in found.winrates
        if row["comparison"] == comparison
        and row[rate] is not None
        and row["start_step"] is not None
    ]
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        against = f"{row['suite']} against {row['baseline_suite']}, {row['instructions']}"
        groups[against, row["start_step"]].append(row)
    ranks = _ranks(measured)
    points = []
    for (label, step), group in groups.items():
        spread = _spread([row[rate] for row in group])
        errors = [row["stderr"] for row in group if row["stderr"] is not None]
        if len(group) == 1 and errors and rate == "win_rate":
            value = spread["value"]
            spread |= {"low": value - errors[0], "high": value + errors[0]}
        models = {row["model"].partition("@")[0].partition("-seed")[0] for row in group}
        rank = ranks.get((next(iter(models)), step)) if len(models) == 1 else None
        points.append({"label": label, "step": step, "start_rankme": rank, **spread})
    if not points:
        return None
    numbers = sorted({row["n"] for row in rows if row["n"] is not None})
    judges = sorted({str(row["judge"]) for row in rows}, key=natural)
    told = "; ".join(
        f"step {p['step']:,}: {p['start_rankme']:.4g}" for p in points if p["start_rankme"]
    )
    ranked = f" RankMe of the checkpoint that was tuned: {told}." if told else ""
    return _figure(
        f"start-{rate.replace('_', '-')}-{comparison}",
        f"{title} {_COMPARED[comparison]}",
        f"{' or '.join(f'{n:,}' for n in numbers)} instructions, judged by {', '.join(judges)}. "
        "Band: ± one standard deviation over the seeds, of a single one ± one standard error over "
        f"the instructions where it is known. 50 %: no preference.{ranked}",
        points,
        "win rate, %",
    )


def _steps(measured: Measured, found: Posttrained) -> Mapping[Any, int]:
    rows = (*measured.checkpoints, *measured.geometry, *measured.head, *measured.loss)
    logged = [
        row for chain in found.chains for run in chain.runs for s in run.stages for row in s.log
    ]
    return {checkpoint_key(r): r["step"] for r in (*rows, *logged) if r["step"] is not None}


def _ranks(measured: Measured) -> dict[tuple[str, int], float]:
    """Returns RankMe by model and step of pretraining, of the first text."""
    found: dict[tuple[str, int], float] = {}
    for row in last_layer(measured):
        if row["stage"] == "pretrain" and row["step"] is not None and row["rankme"] is not None:
            found.setdefault((row["model"], row["step"]), row["rankme"])
    return found


def _spread(values: Sequence[float]) -> Row:
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    margin = deviation or 0.0
    return {
        "value": mean, "low": mean - margin, "high": mean + margin, "deviation": deviation,
        "n": len(values),
    }  # fmt: skip


def _figure(key: str, title: str, caption: str, points: Sequence[Row], axis: str) -> Figure:
    points = sorted(points, key=lambda point: (natural(point["label"]), point["step"]))
    labels = list(dict.fromkeys(point["label"] for point in points))
    scale = alt.Scale(zero=False, nice=True)
    legend = alt.Legend(symbolOpacity=1, symbolStrokeWidth=1.8)
    colour = alt.Color("label:N", title=None, scale=alt.Scale(domain=labels), legend=legend)
    base = alt.Chart(alt.NamedData("rows")).encode(x=training_axis(points, "step"), color=colour)
    y = alt.Y("value:Q", title=axis, scale=scale)
    tooltip = [
        alt.Tooltip("label:N"),
        alt.Tooltip("step:Q", title="begun from step", format=","),
        alt.Tooltip("value:Q", title=axis, format=".4~g"),
        alt.Tooltip("deviation:Q", title="standard deviation over seeds", format=".3~g"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    chart = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=axis, scale=scale), y2="high:Q"),
        base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", title=axis, scale=scale), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=y),
        base.mark_point(size=34, filled=True, opacity=1).encode(
            y=y,
            shape=alt.Shape("label:N", title=None, scale=alt.Scale(domain=labels)),
            tooltip=tooltip,
        ),
    ).properties(width="container", height=300)
    told = []
    for label in labels:
        line = [point for point in points if point["label"] == label]
        course = " → ".join(f"{size(p['value'])} from step {p['step']:,}" for p in line)
        told.append(f"{label}: {course}")
    return Figure(
        key=key,
        title=title,
        caption=caption,
        alternative=f"Line chart of {axis} by the step that tuning began from. {'; '.join(told)}.",
        rows=tuple(points),
        specs={"step": plain(chart)},
    )
