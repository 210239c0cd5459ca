"""Phases behind figures: of one model, in figures over training."""

import json
from pathlib import Path
from typing import Any

import vl_convert

from dashboards.figures import Figure, figures
from dashboards.phase_figures import phase_strip
from dashboards.query import load
from dashboards.shading import shaded
from dashboards.tables import read
from tests.dashboards import synthetic

STEPS = (0, 1, 8, 32, 128, 512)
FALL_AND_RISE = (43.0, 42.0, 30.0, 10.0, 25.0, 44.0)


def drawn(results: Path) -> dict[str, Figure]:
    measured, phases = read(results), load("phases", results).to_pylist()
    return {figure.key: figure for figure in shaded(figures(measured), measured, phases)}


def bands(figure: Figure, axis: str = "step") -> list[dict[str, Any]]:
    first = figure.specs[axis]["layer"][0]
    found: list[dict[str, Any]] = first["data"]["values"] if "fill" in first["encoding"] else []
    return found


def test_the_phases_of_one_model_are_shaded_on_both_axes(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.trajectory(results, FALL_AND_RISE, steps=STEPS)
    synthetic.head(results, "pico-64", 0, 0.1)
    synthetic.head(results, "pico-64", 512, 0.2)
    found = drawn(results)
    for key in ("rankme", "alpha-req", "norm-cv"):
        assert [(b["phase"], b["from"], b["to"]) for b in bands(found[key])] == [
            ("warmup", 0, 32), ("entropy_seeking", 32, 512),
        ]  # fmt: skip
        assert [b["to"] for b in bands(found[key], "tokens")] == [32 * 1024, 512 * 1024]
        assert "Shaded: phases of RankMe on heldout" in found[key].caption
    for spec in found["rankme"].specs.values():
        shown = {**spec, "width": 300, "datasets": {"rows": list(found["rankme"].rows)}}
        assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown))


def test_figures_of_several_models_are_not_shaded_and_the_strip_has_both_axes(
    tmp_path: Path,
) -> None:
    results = synthetic.start(tmp_path)
    for model in ("pico-64", "pico-128"):
        synthetic.trajectory(results, FALL_AND_RISE, model=model, steps=STEPS)
    figure = drawn(results)["rankme"]
    assert bands(figure) == []
    assert "Shaded" not in figure.caption
    strip = phase_strip(read(results), load("phases", results).to_pylist())
    assert strip is not None
    assert list(strip.specs) == ["step", "tokens"]


def test_one_checkpoint_has_no_phases(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.geometry(results, "pico-64", 4, 20.0)
    assert bands(drawn(results)["rankme"]) == []
