"""Heat maps of geometry by layer and training."""

import math
from collections.abc import Sequence
from typing import Any

from dashboards.charts import AXES, layer_spec
from dashboards.figures import Figure, place_of, text_described
from dashboards.tables import LAST_LAYER, Measured, Row, by_series, natural

_COLUMNS = 250
"""Checkpoints that one map shows: more would be narrower than its pixels."""

_METRICS = {"rankme": "RankMe", "alpha_req": "α-ReQ"}


def layer_figures(measured: Measured) -> list[Figure]:
    """Draws RankMe and α-ReQ by layer, for each series with layers besides the last.

    Args:
        measured: The rows of the results.
    """
    drawn = []
    for metric, title in _METRICS.items():
        rows = [row for row in measured.geometry if _finite(row[metric])]
        for number, (name, group) in enumerate(by_series(rows).items()):
            if len({row["layer"] for row in group}) > 1:
                figure = _figure(
                    f"layers-{metric.replace('_', '-')}-{number}", name, group, metric, title
                )
                drawn += [figure] if figure.specs else []
    return drawn


def _figure(key: str, name: str, group: Sequence[Row], metric: str, title: str) -> Figure:
    revisions = list(dict.fromkeys(row["revision"] for row in group))
    kept = set(_spread(revisions))
    shown = [row for row in group if row["revision"] in kept]
    points = tuple(
        {
            "checkpoint": f"{row['label']} {row['revision']}",
            "revision": row["revision"],
            "layer": "final" if row["layer"] == LAST_LAYER else str(row["layer"]),
            **{key: row[key] for key in ("step", "tokens")},
            "value": row[metric],
        }
        for row in shown
    )
    layers = sorted({row["layer"] for row in group})
    order = [str(layer) for layer in layers if layer != LAST_LAYER]
    order += ["final"] if LAST_LAYER in layers else []
    specs = {
        axis: layer_spec(axis, order, title)
        for axis in AXES
        if all(point[axis] is not None for point in points)
    }
    low, high = (pick(points, key=lambda point: point["value"]) for pick in (min, max))
    texts = sorted({text_described(row) for row in group}, key=natural)
    thinned = (
        f" {len(kept)} of {len(revisions)} checkpoints are drawn, evenly spread."
        if len(kept) < len(revisions)
        else ""
    )
    return Figure(
        key=key,
        title=f"{title} by layer, {name}",
        caption=(
            f"Last-token features of {'; '.join(texts)}. Layer 0 is the embedding's output, "
            "layer i the residual stream after block i, final the features after the final "
            f"norm. Layers before the last have no standard error.{thinned}"
        ),
        alternative=(
            f"Heat map of {title} by layer and training for {name}: lowest {low['value']:.4g} "
            f"in layer {low['layer']} at {place_of(low)}, highest {high['value']:.4g} in layer "
            f"{high['layer']} at {place_of(high)}."
        ),
        rows=points,
        specs=specs,
    )


def _spread(revisions: Sequence[str]) -> list[str]:
    """Returns the first and last revision and others evenly between, at most `_COLUMNS`."""
    if len(revisions) <= _COLUMNS:
        return list(revisions)
    last = len(revisions) - 1
    return [revisions[round(place * last / (_COLUMNS - 1))] for place in range(_COLUMNS)]


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
