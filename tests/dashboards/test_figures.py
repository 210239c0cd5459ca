"""Figures: what is drawn, and what their captions say."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from dashboards import figures
from dashboards.charts import AXES, TRAJECTORIES
from dashboards.tables import read
from jobs.errors import StoreError
from tests.dashboards import synthetic

STEPS = (0, 1, 8, 64, 512)


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.pico_like(tmp_path_factory.mktemp("results"), steps=STEPS)


def by_key(results: Path) -> dict[str, figures.Figure]:
    return {figure.key: figure for figure in figures.figures(read(results))}


def encodings(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [layer["encoding"] for layer in spec.get("layer", [spec])]


def test_every_quantity_is_drawn_against_step_and_tokens(pico: Path) -> None:
    drawn = by_key(pico)
    assert list(drawn) == [quantity.key for quantity in TRAJECTORIES]
    for figure in drawn.values():
        assert list(figure.specs) == list(AXES)


def test_specifications_compile(pico: Path) -> None:
    for figure in figures.figures(read(pico)):
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            svg = vl_convert.vegalite_to_svg(json.dumps(shown))
            assert ET.fromstring(svg).tag.endswith("svg")
            assert "NaN" not in svg


def test_rankme_band_is_the_stored_standard_error(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.geometry(results, "pico-64", 4, 20.0, rankme_se=0.5)
    (row,) = by_key(results)["rankme"].rows
    assert (row["low"], row["high"]) == (20.0 - 1.96 * 0.5, 20.0 + 1.96 * 0.5)
    assert (row["checkpoint"], row["n"], row["se"]) == ("pico-64 step4", 1500, 0.5)


def test_exact_quantities_have_no_band(pico: Path) -> None:
    drawn = by_key(pico)
    for key in ("norm-cv", "overlap"):
        assert all("y2" not in part for part in encodings(drawn[key].specs["step"]))
        assert "no sampling error" in drawn[key].caption
    assert any("y2" in part for part in encodings(drawn["rankme"].specs["step"]))


def test_random_overlap_is_drawn_as_a_rule(pico: Path) -> None:
    layers = by_key(pico)["overlap"].specs["step"]["layer"]
    rule = next(layer for layer in layers if layer["mark"]["type"] == "rule")
    assert rule["data"]["values"][0]["at"] == pytest.approx(math.sqrt(2 / math.pi))


def test_axis_shows_step_zero_and_says_how(pico: Path) -> None:
    for axis, first in (("step", 1), ("tokens", 1024)):
        x = encodings(by_key(pico)["rankme"].specs[axis])[-1]["x"]
        assert x["scale"]["type"] == "symlog"
        assert x["scale"]["constant"] == first
        assert x["scale"]["domain"][0] == 0
        assert x["axis"]["values"][0] == 0
        assert f"linear below {first:,}" in x["title"]


def test_axis_without_step_zero_is_logarithmic(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.trajectory(results, [20.0, 30.0], steps=(1000, 143000))
    x = encodings(by_key(results)["rankme"].specs["step"])[-1]["x"]
    assert x["scale"]["type"] == "log"
    assert x["title"] == "optimizer step (log scale)"


def test_captions_say_what_was_measured_on_what(pico: Path) -> None:
    drawn = by_key(pico)
    for part in ("heldout", "M = 1,500", "L = 64", "float32", "layer −1"):
        assert part in drawn["rankme"].caption
    assert "pico-128: 2,048 × 128" in drawn["norm-cv"].caption
    assert "heldout (n = 94,500)" in drawn["loss"].caption


def test_several_texts_become_several_series_of_one_colour(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    for dataset in ("wiki", "tales"):
        for step in (0, 1):
            cell = synthetic.cell_id(dataset, step)
            synthetic.geometry(results, "pico-64", step, 20.0, dataset=dataset, cell_id=cell)
    figure = by_key(results)["rankme"]
    assert {row["series"] for row in figure.rows} == {"pico-64, wiki", "pico-64, tales"}
    assert {row["label"] for row in figure.rows} == {"pico-64"}
    shapes = [part["shape"] for part in encodings(figure.specs["step"]) if "shape" in part]
    assert shapes[0]["field"] == "variant"


def test_two_draws_of_one_text_are_not_joined(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    for draw in ("a" * 64, "b" * 64):
        synthetic.geometry(
            results, "pico-64", 0, 20.0, sequences_fingerprint=draw, cell_id=synthetic.cell_id(draw)
        )
    assert {row["series"] for row in by_key(results)["rankme"].rows} == {
        "pico-64, draw aaaaaaaa",
        "pico-64, draw bbbbbbbb",
    }


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.trajectory(results, [20.0, float("nan")], steps=(0, 1))
    synthetic.geometry(results, "pico-64", None, 30.0)
    figure = by_key(results)["rankme"]
    assert "1 of 3 values are not finite" in figure.caption
    assert "1 of 2 checkpoints have no known step" in figure.caption


def test_without_any_step_there_is_no_figure(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.geometry(results, "llama", None, 30.0)
    assert by_key(results) == {}


def test_alternative_text_holds_the_numbers(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.trajectory(results, [43.0, 10.0, 44.0], steps=(0, 32, 512))
    words = by_key(results)["rankme"].alternative
    assert "43 at step 0, lowest 10 at step 32, highest 44 at step 512" in words


def test_picture_is_one_svg_with_both_models(pico: Path, tmp_path: Path) -> None:
    out = figures.picture(pico, tmp_path / "docs" / "headline.svg")
    text = out.read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    for word in ("pico-64", "pico-128", "RankMe", "Norm CV"):
        assert word in text
    assert len(text) < 200_000
    assert list(out.parent.iterdir()) == [out]


def test_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    with pytest.raises(StoreError, match="no RankMe and no norm CV"):
        figures.picture(results, tmp_path / "headline.svg")
    assert not (tmp_path / "headline.svg").exists()
