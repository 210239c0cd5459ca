"""Geometry text by text."""

from pathlib import Path

from dashboards.tables import read
from dashboards.text_figures import text_figures
from tests.dashboards import synthetic


def test_each_text_has_figures_of_its_own(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    for place, dataset in enumerate(("wiki", "fineweb")):
        for step in (0, 8):
            cell = synthetic.cell_id(dataset, step)
            synthetic.geometry(
                results, "pico-64", step, 20.0 + place, dataset=dataset, cell_id=cell
            )
    drawn = {figure.key: figure for figure in text_figures(read(results))}
    assert list(drawn) == [
        "text-rankme-0", "text-alpha-req-0", "text-rankme-1", "text-alpha-req-1",
    ]  # fmt: skip
    assert drawn["text-rankme-0"].title == "RankMe on fineweb"
    assert {row["value"] for row in drawn["text-rankme-0"].rows} == {21.0}
    assert "wiki" not in drawn["text-rankme-0"].caption


def test_one_text_needs_no_comparison(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path)
    synthetic.geometry(results, "pico-64", 8, 20.0)
    assert text_figures(read(results)) == []
