"""Sweeps over M and L, drawn beside the whole that they are parts of."""

import json
from pathlib import Path

import vl_convert

from dashboards.sweep_figures import sweep_figures
from dashboards.tables import read
from tests.dashboards import synthetic

STEPS = (0, 8, 64)


def test_every_point_is_a_line_beside_the_whole(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    for step in STEPS:
        whole = synthetic.geometry(results, "pico-64", step, 20.0 + step, rankme_se=0.5)
        base = {name: whole[name] for name in (*synthetic.keys("", "m", 0), "dataset")}
        points = [
            {**base, "row": 0, "sweep": "samples", "n_sequences": 100, "seq_len": 64},
            {**base, "row": 1, "sweep": "samples", "n_sequences": 500, "seq_len": 64},
            {**base, "row": 2, "sweep": "length", "n_sequences": 1500, "seq_len": 8},
        ]
        rows = [{**p, "rankme": 10.0 + p["row"], "rankme_se": 0.1} for p in points]
        synthetic.write(results, "sweeps", rows)
    length, samples = sweep_figures(read(results))
    assert length.title == "RankMe by L on heldout over training"
    assert {row["variant"] for row in length.rows} == {"L = 8", "L = 64"}
    assert {row["variant"] for row in samples.rows} == {"M = 100", "M = 500", "M = 1,500"}
    by_variant = {row["variant"]: row["value"] for row in samples.rows if row["step"] == 8}
    assert by_variant == {"M = 100": 10.0, "M = 500": 11.0, "M = 1,500": 28.0}
    assert "M = 100, 500, 1,500 and L = 64" in samples.caption
    for figure in (length, samples):
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown))


def test_without_sweeps_nothing_is_drawn(tmp_path: Path) -> None:
    assert sweep_figures(read(synthetic.pico_like(tmp_path, steps=STEPS))) == []
