"""Heat maps by layer: both metrics, and not more columns than can be seen."""

import json
from pathlib import Path

import vl_convert

from dashboards.layer_figures import layer_figures
from dashboards.tables import read
from tests.dashboards import synthetic


def test_both_metrics_are_drawn_by_layer(tmp_path: Path) -> None:
    drawn = layer_figures(read(synthetic.pico_like(tmp_path, steps=(0, 8, 64))))
    assert [figure.key for figure in drawn] == [
        "layers-rankme-0", "layers-rankme-1", "layers-alpha-req-0", "layers-alpha-req-1",
    ]  # fmt: skip
    for figure in drawn:
        assert {row["layer"] for row in figure.rows} == {"0", "1", "2", "3", "4", "final"}
        assert "M = 1,500" in figure.caption
        assert "are drawn" not in figure.caption
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown))


def test_of_many_checkpoints_some_are_drawn_the_ends_included(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    rows = []
    for step in range(601):
        base = {**synthetic.keys("geometry", "m", step), "dataset": "heldout", "n_sequences": 10,
                "seq_len": 8, "forward_dtype": "float32", "alpha_req": None}  # fmt: skip
        rows += [{**base, "row": n, "layer": layer, "rankme": 1.0 + step}
                 for n, layer in enumerate((-1, 0))]  # fmt: skip
    synthetic.write(results, "geometry", rows, name="merged.parquet")
    (figure,) = layer_figures(read(results))
    steps = sorted({row["step"] for row in figure.rows})
    assert (steps[0], steps[-1], len(steps)) == (0, 600, 250)
    assert len(figure.rows) == 2 * 250
    assert "250 of 601 checkpoints are drawn" in figure.caption


def test_one_layer_is_not_drawn_by_layer(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.geometry(results, "pico-64", 4, 20.0)
    assert layer_figures(read(results)) == []


def test_a_checkpoint_that_is_on_no_axis_is_not_drawn(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    base = {**synthetic.keys("geometry", "m", 0), "step": None, "tokens": None,
            "revision": "main", "dataset": "heldout", "n_sequences": 10, "seq_len": 8,
            "forward_dtype": "float32", "alpha_req": None}  # fmt: skip
    rows = [
        {**base, "row": n, "layer": layer, "rankme": 1.0 + n} for n, layer in enumerate((-1, 0))
    ]
    synthetic.write(results, "geometry", rows, name="merged.parquet")
    assert layer_figures(read(results)) == []
