"""Figures of the tractable model: planes, singular values, fractions and the phase diagram."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow.compute as pc

from dashboards import query
from dashboards.charts import plain
from dashboards.figures import Figure
from dashboards.phase_figures import PHASES
from dashboards.phases import name_phases
from dashboards.toy_phases import COMPRESSES, FIGURE_5, SETTING
from dashboards.turns import Array, find_swings
from jobs.place import Place

Row = dict[str, Any]

_PANEL = 230
_SHORT = {COMPRESSES: "expansion, then compression", FIGURE_5: "exactly Figure 5"}


def toy_figures(results: str | Path | Place) -> list[Figure]:
    """Draws what the results hold of the tractable model.

    Args:
        results: Folder or URL of the results.

    Returns:
        Planes and singular values of each sweep's first kept run, fractions of all sweeps of one
        setting, and a phase diagram for each sweep over several skews and widths.

    Raises:
        StoreError: The place cannot be read.
    """
    kept = _kept(results)
    rows = query.load("toy_phases", results).to_pylist()
    return [*_planes(kept), *_singular_values(kept), *_fractions(rows), *_diagrams(rows)]


def _kept(results: str | Path | Place) -> list[Row]:
    """Returns the first kept run of each sweep, with the phase of each of its steps."""
    table = query.load("toy", results)
    kept = table.filter(pc.is_valid(table.column("features")))
    first: dict[str, Row] = {}
    for place, model in enumerate(kept.column("model").to_pylist()):
        if model not in first:
            first[model] = kept.slice(place, 1).to_pylist()[0]
    for run in first.values():
        values = np.array(run["rankme"], dtype=np.float64)
        swings = find_swings(values, np.zeros((len(values), len(values))))
        names = name_phases([swing.sign for swing in swings], "rankme", True)
        run["phases"] = [
            next(n for n, s in zip(names, swings, strict=True) if place <= s.last)
            for place in range(len(values))
        ]
    return list(first.values())


def _planes(kept: Sequence[Row]) -> list[Figure]:
    """Draws the first two dimensions of features and of the classifier's columns."""
    drawn = []
    for name, title in (("features", "Features f(x)"), ("weights", "Classifier w")):
        points = [
            {
                "sweep": run["model"],
                "of": _owner(run, name, member),
                "path": member,
                "step": step,
                "phase": run["phases"][when],
                "x": float(vector[0]),
                "y": float(vector[1]) if len(vector) > 1 else 0.0,
            }
            for run in kept
            for when, step in enumerate(run["steps"])
            for member, vector in enumerate(_vectors(run, name)[when])
        ]
        if not points:
            continue
        base = alt.Chart().encode(
            x=alt.X("x:Q", title="dimension 1"),
            y=alt.Y("y:Q", title="dimension 2"),
            detail="path:N",
        )
        marks = alt.layer(
            base.mark_line(strokeWidth=0.8, opacity=0.35).encode(order="step:Q"),
            base.mark_point(size=14, filled=True, opacity=0.9).encode(
                color=alt.Color("phase:N", title=None, scale=alt.Scale(domain=list(PHASES))),
                tooltip=["of:N", alt.Tooltip("step:Q", format=","), "phase:N"],
            ),
            data=alt.NamedData("rows"),
        ).properties(width=_PANEL, height=_PANEL)
        runs = "; ".join(f"{r['model']}: seed {r['seed']}, {r['description']}" for r in kept)
        drawn.append(
            Figure(
                key=f"toy-{name}",
                title=f"Toy: {title} in the plane",
                caption=(
                    "The first two dimensions from the start to the end of one run, coloured by "
                    f"the phases of the run's RankMe. {runs}."
                ),
                alternative=f"Paths of {title} for {', '.join(r['model'] for r in kept)}.",
                rows=tuple(points),
                specs={"step": _panels(marks)},
            )
        )
    return drawn


def _singular_values(kept: Sequence[Row]) -> list[Figure]:
    points = []
    for run in kept:
        sigma = np.array(run["sigma_features"]).reshape(len(run["steps"]), -1)
        for when, step in enumerate(run["steps"]):
            values = {"RankMe": run["rankme"][when]} | {
                f"σ{place + 1}": float(value) for place, value in enumerate(sigma[when])
            }
            points += [
                {"sweep": run["model"], "quantity": name, "step": step, "value": value,
                 "phase": run["phases"][when]}
                for name, value in values.items()
            ]  # fmt: skip
    if not points:
        return []
    names = sorted({p["quantity"] for p in points})
    last = max(p["step"] for p in points)
    ticks = [0, *(10**power for power in range(len(str(last))) if 10**power <= last)]
    marks = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14, filled=True))
        .encode(
            x=alt.X(
                "step:Q",
                title="step (log scale; linear below 1)",
                scale=alt.Scale(type="symlog", constant=1),
                axis=alt.Axis(values=ticks, grid=False),
            ),
            y=alt.Y("value:Q", title="σ of the features, and RankMe"),
            color=alt.Color("quantity:N", title=None, scale=alt.Scale(domain=names)),
            tooltip=["quantity:N", alt.Tooltip("step:Q", format=","),
                     alt.Tooltip("value:Q", format=".4~g"), "phase:N"],
        )
        .properties(width=_PANEL, height=170)
    )  # fmt: skip
    ends = "; ".join(
        f"{run['model']}: RankMe {run['rankme'][0]:.3g} → {run['rankme'][-1]:.3g} "
        f"({', '.join(dict.fromkeys(run['phases']))})"
        for run in kept
    )
    return [
        Figure(
            key="toy-singular-values",
            title="Toy: singular values and RankMe",
            caption="The same runs. RankMe is exp of the entropy of σ²/Σσ² of the features.",
            alternative=f"Line charts against the step. {ends}.",
            rows=tuple(points),
            specs={"step": _panels(marks)},
        )
    ]


def _fractions(rows: Sequence[Row]) -> list[Figure]:
    """Draws the fractions of sweeps that have one setting, with their intervals."""
    settings: dict[str, set[str]] = {}
    for row in rows:
        settings.setdefault(row["model"], set()).add(str([row[name] for name in SETTING]))
    single = [row for row in rows if len(settings[row["model"]]) == 1 and row["verdict"] in _SHORT]
    if not single:
        return []
    points = tuple(
        {
            "sweep": row["model"],
            "description": row["description"],
            "what": _SHORT[row["verdict"]],
            "fraction": row["fraction"],
            "low": row["fraction_low"],
            "high": row["fraction_high"],
            "n": row["n"],
        }
        for row in single
    )
    order = sorted(
        {p["sweep"] for p in points}, key=lambda name: (not name.startswith("best"), name)
    )
    y = alt.Y("sweep:N", title=None, sort=order)
    colour = alt.Color("what:N", title=None, scale=alt.Scale(domain=list(_SHORT.values())))
    base = alt.Chart(alt.NamedData("rows")).encode(y=y, color=colour, yOffset="what:N")
    chart = alt.layer(
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X(
                "low:Q",
                title="fraction of the seeds",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(tickCount=5),
            ),
            x2="high:Q",
        ),
        base.mark_point(filled=True, size=50).encode(
            x="fraction:Q",
            tooltip=["sweep:N", "description:N", "what:N", alt.Tooltip("fraction:Q", format=".3f"),
                     alt.Tooltip("n:Q", format=",")],
        ),
    ).properties(width="container", height=22 * len({p["sweep"] for p in points}))  # fmt: skip
    told = "; ".join(f"{p['sweep']}, {p['what']}: {p['fraction']:.3f}" for p in points)
    kinds = "; ".join(dict.fromkeys(f"{p['sweep']}: {p['description']}" for p in points))
    return [
        Figure(
            key="toy-fractions",
            title="Toy: how many seeds show Figure 5, and how many its controls",
            caption=(
                f"Rules: 95 % Wilson intervals. A change counts from 1 % of RankMe on. {kinds}."
            ),
            alternative=f"Fractions of the seeds. {told}.",
            rows=points,
            specs={"step": plain(chart)},
        )
    ]


def _diagrams(rows: Sequence[Row]) -> list[Figure]:
    drawn: list[Figure] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        points = tuple(
            {
                "skew": round(row["skew"], 2),
                "ratio": round(row["d"] / row["classes"], 3),
                "counts": "-".join(map(str, row["counts"])),
                "d": row["d"],
                "fraction": row["fraction"],
                "n": row["n"],
            }
            for row in rows
            if row["model"] == model and row["verdict"] == COMPRESSES
        )
        axes = [{p[name] for p in points} for name in ("skew", "ratio")]
        if min(map(len, axes)) < 2 or len(points) != len(axes[0]) * len(axes[1]):
            continue
        base = alt.Chart(alt.NamedData("rows")).encode(
            x=alt.X("ratio:O", title="d / |V|", scale=alt.Scale(round=True)),
            y=alt.Y("skew:O", title="skew of the classes", sort="descending"),
        )
        chart = alt.layer(
            base.mark_rect().encode(
                color=alt.Color(
                    "fraction:Q",
                    title="fraction",
                    scale=alt.Scale(scheme="viridis", domain=[0, 1]),
                ),
                tooltip=["counts:N", "d:Q", alt.Tooltip("fraction:Q", format=".3f"), "n:Q"],
            ),
            base.mark_text(fontSize=12).encode(
                text=alt.Text("fraction:Q", format=".2f"),
                color=alt.condition("datum.fraction > 0.6", alt.value("#111"), alt.value("#fff")),
            ),
        ).properties(width="container", height=36 * len(axes[0]))
        low, high = (pick(points, key=lambda p: p["fraction"]) for pick in (min, max))
        drawn.append(
            Figure(
                key=f"toy-diagram-{len(drawn)}",
                title=f"Toy: phase diagram, {model}",
                caption=(
                    f"Fraction of {points[0]['n']} seeds whose RankMe expands and then compresses. "
                    "Skew: minus the slope of ln count on ln rank."
                ),
                alternative=(
                    f"Heat map; lowest {low['fraction']:.2f} at skew {low['skew']} and d/|V| "
                    f"{low['ratio']}, highest {high['fraction']:.2f} at skew {high['skew']} and "
                    f"d/|V| {high['ratio']}."
                ),
                rows=points,
                specs={"step": plain(chart)},
            )
        )
    return drawn


def _panels(marks: Any) -> dict[str, Any]:
    chart = marks.facet(facet=alt.Facet("sweep:N", title=None), columns=3)
    return plain(chart.resolve_scale(x="independent", y="independent"))


def _vectors(run: Row, name: str) -> Array:
    """Returns paths, shape (steps, members, d): one per example, or one per class."""
    values = np.array(run[name], dtype=np.float64)
    if name == "features":
        return values.reshape(len(run["steps"]), sum(run["counts"]), run["d"])
    return values.reshape(len(run["steps"]), run["d"], run["classes"]).swapaxes(1, 2)


def _owner(run: Row, name: str, member: int) -> str:
    if name == "weights":
        return f"class {member + 1}"
    labels = np.repeat(np.arange(run["classes"]), run["counts"])
    return f"an example of class {labels[member] + 1}"
