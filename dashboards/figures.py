"""The figures: rows, captions and words for each chart, all computed from the results."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from dashboards.charts import AXES, TRAJECTORIES, Z95, Trajectory, trajectory_spec
from dashboards.numbers import count
from dashboards.tables import Measured, Row, by_series, last_layer, natural, read
from jobs.errors import StoreError
from jobs.place import Place

_COUNTS = ("n_sequences", "n_tokens", "n_examples", "n")
_NAMED = 8
"""As many models are named in a caption."""
_PAPER_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#b0588f", "#8a6d00", "#2b7fb8"]


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        key: Name of its element in the page.
        title: Heading.
        caption: What was measured on what, and what the marks mean.
        alternative: The same in words, for those who don't see it.
        rows: The data set `rows` that the specifications name.
        specs: A Vega-Lite specification for each axis of `AXES` that the data has.
    """

    key: str
    title: str
    caption: str
    alternative: str
    rows: tuple[Row, ...]
    specs: dict[str, dict[str, Any]]


def figures(measured: Measured) -> list[Figure]:
    """Draws every figure that the results have rows for.

    Args:
        measured: The rows of the results.

    Returns:
        The main figures.
    """
    drawn = [trajectory(measured, quantity) for quantity in TRAJECTORIES]
    return [figure for figure in drawn if figure is not None]


def trajectory(measured: Measured, quantity: Trajectory) -> Figure | None:
    """Draws one quantity against step and against tokens.

    Args:
        measured: The rows of the results.
        quantity: What to draw.

    Returns:
        The figure, or None where no checkpoint with a known step or token count has a finite value.
    """
    source = _source(measured, quantity)
    return draw(source, quantity, _described(source, quantity))


def draw(
    source: Sequence[Row],
    quantity: Trajectory,
    described: str,
    key: str | None = None,
    title: str | None = None,
) -> Figure | None:
    """Draws a quantity of some rows against step and against tokens.

    Args:
        source: Rows with labels, step, tokens and the quantity's columns.
        quantity: What to draw.
        described: What was measured on what, in whole sentences.
        key: The figure's; the quantity's where it is left out.
        title: The figure's; the quantity's over training where it is left out.

    Returns:
        The figure, or None where no checkpoint with a known step or token count has a finite value.
    """
    rows = [point for row in source if (point := _point(row, quantity)) is not None]
    specs = {
        axis: trajectory_spec(placed, quantity, axis)
        for axis in AXES
        if (placed := [row for row in rows if row[axis] is not None])
    }
    if not specs:
        return None
    caption = f"{_named(rows)}. {described} {quantity.note}{_left_out(source, rows)}"
    words = "; ".join(_in_words(name, group) for name, group in by_series(rows).items())
    return Figure(
        key=key or quantity.key,
        title=title or f"{quantity.title} over training",
        caption=caption,
        alternative=f"Line chart of {quantity.title} against training. {words}.",
        rows=tuple(rows),
        specs=specs,
    )


def picture(results: str | Path | Place, out: Path) -> Path:
    """Saves RankMe and norm CV against step as one small SVG, without a browser.

    Args:
        results: Folder or URL of the results.
        out: The SVG file; replaced at once, never half written.

    Returns:
        `out`.

    Raises:
        StoreError: The place cannot be read, or holds nothing to draw.
    """
    import vl_convert

    measured = read(results)
    drawn = [trajectory(measured, quantity) for quantity in (TRAJECTORIES[0], TRAJECTORIES[2])]
    parts = [
        {
            **figure.specs["step"],
            "data": {"values": list(figure.rows)},
            "width": 320,
            "height": 200,
        }
        for figure in drawn
        if figure is not None and "step" in figure.specs
    ]
    if not parts:
        raise StoreError(
            f"{results} holds no RankMe and no norm CV of a checkpoint with a known step",
            "measure geometry or head first",
        )
    spec: dict[str, Any] = {
        "hconcat": parts,
        "background": "white",
        "config": {
            "range": {"category": _PAPER_COLOURS},
            "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
            "legend": {"labelFontSize": 12},
            "view": {"stroke": None},
        },
    }
    Place(out.parent).write(out.name, vl_convert.vegalite_to_svg(json.dumps(spec)).encode())
    return out


def text_described(row: Row) -> str:
    """Says which text a row of `geometry` was measured on: name, M, L and precision."""
    return (
        f"{row['dataset']} (M = {count(row['n_sequences'])} sequences of at most "
        f"L = {count(row['seq_len'])} tokens, {row['forward_dtype']} forward pass)"
    )


def _source(measured: Measured, quantity: Trajectory) -> list[Row]:
    match quantity.table:
        case "geometry":
            return last_layer(measured)
        case "head":
            return list(measured.head)
        case "loss":
            return list(measured.loss)
        case _:
            raise ValueError(f"no figure of its own is drawn from {quantity.table}")


def _described(source: Sequence[Row], quantity: Trajectory) -> str:
    match quantity.table:
        case "geometry":
            texts = sorted({text_described(row) for row in source}, key=natural)
            return f"Last-token features after the final norm (layer −1), on {'; '.join(texts)}."
        case "head":
            sizes = sorted(
                {f"{row['label']}: {count(row['n_tokens'])} × {count(row['d'])}" for row in source},
                key=natural,
            )
            return f"Rows of the LM head, tokens × width ({'; '.join(sizes)})."
        case "loss":
            tasks = sorted(
                {f"{row['task']} (n = {count(row['n'])})" for row in source}, key=natural
            )
            return f"Mean cross-entropy on {'; '.join(tasks)}."
        case _:
            raise ValueError(f"no figure of its own is drawn from {quantity.table}")


def _left_out(source: Sequence[Row], rows: Sequence[Row]) -> str:
    notes = []
    if missing := len(source) - len(rows):
        notes.append(f" {missing} of {len(source)} values are not finite and not drawn.")
    for axis, name in (("step", "step"), ("tokens", "token count")):
        unknown = sum(row[axis] is None for row in rows)
        if unknown:
            notes.append(f" {unknown} of {len(rows)} checkpoints have no known {name}.")
    return "".join(notes)


def _in_words(name: str, group: Sequence[Row]) -> str:
    low, high = (pick(group, key=lambda row: row["value"]) for pick in (min, max))
    first, last = group[0], group[-1]
    return (
        f"{name}: {first['value']:.4g} at {place_of(first)}, lowest {low['value']:.4g} at "
        f"{place_of(low)}, highest {high['value']:.4g} at {place_of(high)}, {last['value']:.4g} at "
        f"{place_of(last)}"
    )


def _named(rows: Sequence[Row]) -> str:
    """Names the models of some rows, or says how many they are."""
    labels = sorted({row["label"] for row in rows}, key=natural)
    return ", ".join(labels) if len(labels) <= _NAMED else f"{len(labels)} models"


def place_of(row: Row) -> str:
    """Names a checkpoint by its step, or by its revision where none is known."""
    return row["revision"] if row["step"] is None else f"step {row['step']:,}"


def _point(row: Row, quantity: Trajectory) -> Row | None:
    value = row[quantity.column]
    if not _finite(value):
        return None
    error = row[quantity.se] if quantity.se else None
    margin = Z95 * error if _finite(error) else 0.0
    names = ("series", "label", "variant", "revision", "step", "tokens")
    return {
        **{name: row[name] for name in names},
        "checkpoint": f"{row['label']} {row['revision']}",
        "value": value,
        "se": error if _finite(error) else None,
        "spread": row[quantity.spread] if quantity.spread else None,
        "low": value - margin,
        "high": value + margin,
        "n": next((row[name] for name in _COUNTS if row.get(name) is not None), None),
    }


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
