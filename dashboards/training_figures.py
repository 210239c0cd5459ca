"""Pretraining's own log: loss, gradient norm and learning rate, where a suite has them."""

from collections import defaultdict

import numpy as np

from dashboards import query
from dashboards.charts import Trajectory
from dashboards.figures import Figure, draw
from dashboards.tables import Measured, Row, model_labels

_POINTS = 300
"""Steps of each model that are drawn, evenly spread on a logarithmic axis."""

_QUANTITIES = (
    Trajectory(
        "training-loss", "log", "loss", "Training loss", "Of single batches.", "nats per token"
    ),
    Trajectory("gradient-norm", "log", "gradient_norm", "Gradient norm", "Before clipping."),
    Trajectory("learning-rate", "log", "learning_rate", "Learning rate", "As scheduled."),
)


def training_figures(measured: Measured) -> list[Figure]:
    """Draws the training log of each model.

    Args:
        measured: The rows of the results.

    Returns:
        A figure for each quantity that some model has logged.

    Raises:
        StoreError: The place cannot be read.
    """
    rows, logged = _thinned(measured)
    drawn = []
    for quantity in _QUANTITIES:
        known = [row for row in rows if row[quantity.column] is not None]
        shown = f"{len(known):,} of {logged:,} logged steps are drawn."
        described = f"The log of pretraining. {shown}"
        drawn.append(draw(known, quantity, described, title=quantity.title))
    return [figure for figure in drawn if figure is not None]


def _thinned(measured: Measured) -> tuple[list[Row], int]:
    """Returns some rows of the log with labels, and how many there are in all."""
    columns = ("suite", "model", "stage", "step", "tokens", *(q.column for q in _QUANTITIES))
    table = query.load("training_log", measured.results, columns=columns)
    labels = model_labels(measured)
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    keys = [table.column(name).to_pylist() for name in ("suite", "model", "stage")]
    steps = table.column("step").to_pylist()
    for place, key in enumerate(zip(*keys, strict=True)):
        if steps[place] is not None:
            groups[key].append(place)
    rows: list[Row] = []
    for key, places in groups.items():
        taken = table.take(_spread([steps[place] for place in places], places)).to_pylist()
        alone = [model for _, model, _ in groups].count(key[1]) == 1
        label = labels.get(key, key[1] if alone else f"{key[0]}/{key[1]}")
        named = {"label": label, "variant": "", "series": label}
        rows += [{**row, **named, "revision": f"step {row['step']:,}"} for row in taken]
    return rows, table.num_rows


def _spread(steps: list[int], places: list[int]) -> list[int]:
    """Chooses places whose steps lie evenly on a logarithmic axis, the first and last included."""
    order = np.argsort(steps, kind="stable")
    scale = np.log1p(np.array(steps, dtype=np.float64)[order])
    wanted = np.linspace(scale[0], scale[-1], _POINTS)
    chosen = np.unique(np.minimum(np.searchsorted(scale, wanted), len(scale) - 1))
    return [places[order[place]] for place in chosen]
