"""Geometry on fewer and on shorter sequences, for the report: do phases depend on M and L?"""

from collections import defaultdict
from collections.abc import Sequence

from dashboards.charts import Trajectory
from dashboards.figures import Figure, draw
from dashboards.numbers import count
from dashboards.tables import Measured, Row, last_layer, natural

_METRICS = {"rankme": "RankMe", "alpha_req": "α-ReQ"}
_SWEEPS = {"samples": ("n_sequences", "M"), "length": ("seq_len", "L")}


def sweep_figures(measured: Measured) -> list[Figure]:
    """Draws RankMe and α-ReQ over training at every point of each sweep, beside the whole.

    Args:
        measured: The rows of the results.
    """
    wholes = {(row["cell_id"], row["dataset"]): row for row in last_layer(measured)}
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in measured.sweeps:
        groups[row["dataset"], row["sweep"]].append(row)
    drawn = []
    for number, (dataset, sweep) in enumerate(sorted(groups, key=lambda key: natural(str(key)))):
        points = groups[dataset, sweep]
        keys = dict.fromkeys((row["cell_id"], row["dataset"]) for row in points)
        whole = [wholes[key] for key in keys if key in wholes]
        drawn += [
            _figure(number, dataset, sweep, [*points, *whole], metric)
            for metric in _METRICS
            if any(row[metric] is not None for row in points)
        ]
    return [figure for figure in drawn if figure is not None]


def _figure(
    number: int, dataset: str, sweep: str, rows: Sequence[Row], metric: str
) -> Figure | None:
    column, letter = _SWEEPS[sweep]
    quantity = Trajectory(
        f"sweep-{metric.replace('_', '-')}-{number}",
        "geometry",
        metric,
        f"{_METRICS[metric]} by {letter} on {dataset}",
        "Band: ± 1.96 standard errors over the sequences (infinitesimal jackknife), where M ≥ 10 d "
        "sound ones. Every point reads the same forward pass.",
        se=f"{metric}_se",
    )
    values = sorted({row[column] for row in rows})
    other = "seq_len" if sweep == "samples" else "n_sequences"
    fixed = " or ".join(count(value) for value in sorted({row[other] for row in rows}))
    described = (
        f"Last-token features after the final norm (layer −1), on {dataset} with "
        f"{letter} = {', '.join(map(count, values))} and "
        f"{'L' if letter == 'M' else 'M'} = {fixed}."
    )
    named = []
    for row in rows:
        variant = f"{letter} = {count(row[column])}"
        series = f"{row['label']}, {variant}"
        named.append({**row, "variant": variant, "series": series})
    return draw(named, quantity, described)
