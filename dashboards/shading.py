"""Phases behind the figures of one model: where RankMe falls and rises, shaded."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dashboards.charts import AXES
from dashboards.figures import Figure
from dashboards.phase_figures import IN_WORDS, PHASES
from dashboards.tables import LAST_LAYER, Measured, Row, model_labels


def shaded(figures: Iterable[Figure], measured: Measured, phases: Sequence[Row]) -> list[Figure]:
    """Shades the phases of RankMe in figures over training that show one model.

    Args:
        figures: Any figures.
        measured: The rows of the results, for the names of the models.
        phases: Rows of `phases`.

    Returns:
        All figures in their order; those over training that show several models as they are.
    """
    labels = model_labels(measured)
    known: dict[str, list[Row]] = {}
    for row in phases:
        if row["metric"] == "rankme" and row["layer"] == LAST_LAYER and row["n_checkpoints"] > 1:
            label = labels.get((row["suite"], row["model"], row["stage"]), "")
            of = known.setdefault(label, [])
            if not of or _text(of[0]) == _text(row):
                of.append(row)
    return [_shaded(figure, known) for figure in figures]


def _text(row: Row) -> tuple[Any, ...]:
    names = ("dataset", "sequences_fingerprint", "n_sequences", "seq_len", "forward_dtype")
    return tuple(row[name] for name in names)


def _shaded(figure: Figure, known: Mapping[str, list[Row]]) -> Figure:
    shown = {row.get("label") for row in figure.rows}
    if len(shown) != 1 or not (bands := known.get(str(next(iter(shown))))):
        return figure
    specs = {axis: _behind(spec, axis, bands) for axis, spec in figure.specs.items()}
    if all(specs[axis] is figure.specs[axis] for axis in specs):
        return figure
    told = f" Shaded: phases of RankMe on {bands[0]['dataset']}, layer −1: {bands[0]['verdict']}."
    return replace(figure, caption=figure.caption + told, specs=specs)


def _behind(spec: dict[str, Any], axis: str, bands: Sequence[Row]) -> dict[str, Any]:
    """Puts bands behind the layers of a specification, on the same axis."""
    layers = spec.get("layer", [])
    x = next(
        (
            layer["encoding"]["x"]
            for layer in layers
            if layer.get("encoding", {}).get("x", {}).get("field") == axis and axis in AXES
        ),
        None,
    )
    if x is None:
        return spec
    low, high = x.get("scale", {}).get("domain", (None, None))
    if low is None or high is None:
        return spec
    values = []
    for row in bands:
        start, end = row[f"start_{axis}"] or 0, row[f"end_{axis}"]
        if end is None or min(end, high) <= max(start, low):
            continue
        values.append({"phase": row["phase"], "from": max(start, low), "to": min(end, high)})
    if not values:
        return spec
    place = {**copy.deepcopy(x), "field": "from"}
    band = {
        "data": {"values": values},
        "mark": {"type": "rect", "opacity": 0.13},
        "encoding": {
            "x": place,
            "x2": {"field": "to"},
            # Not `color`, whose scale belongs to the lines.
            "fill": {
                "field": "phase",
                "type": "nominal",
                "title": None,
                "scale": {"domain": list(PHASES)},
                "legend": {"values": list(dict.fromkeys(v["phase"] for v in values)),
                           "labelExpr": IN_WORDS, "symbolType": "square", "symbolOpacity": 0.45},
            },
        },
    }  # fmt: skip
    return {**spec, "layer": [band, *layers]}
