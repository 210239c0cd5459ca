"""Figures as files: the asked width on paper, every figure, nothing half written."""

import re
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dashboards.all_figures import read_figures
from dashboards.figure_files import PAGE_WIDTH, drawn, save_figures
from jobs.errors import StoreError, UsageError
from jobs.place import Place
from tests.dashboards import synthetic
from tests.dashboards.edge_results import STEPS
from tests.dashboards.finetune_scenarios import write_everything


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic.start(tmp_path_factory.mktemp("figures") / "results")
    synthetic.pico_like(folder, steps=STEPS)
    write_everything(folder)
    kept: dict[str, Any] = {
        "features": [0.1 * n for n in range(4 * 7 * 2)],
        "weights": [0.2] * (4 * 2 * 3),
    }
    for sweep in ("figure-5", "figure-12a"):
        synthetic.toy(folder, sweep, [[1.0, 1.6, 1.2, 1.7]] * 3, **kept)
    return folder


def test_every_figure_is_a_file_of_the_asked_width(results: Path, tmp_path: Path) -> None:
    keys = {figure.key for figure in read_figures(results)}
    assert {"rankme", "phases", "layers-rankme-0", "toy-features"} < keys
    for width in (8.4, PAGE_WIDTH):
        saved = save_figures(results, "svg", Place(tmp_path / str(width)), width=width)
        assert {Path(path).stem for path in saved} == keys
        for path in map(Path, saved):
            svg = path.read_text(encoding="utf-8")
            root = ET.fromstring(svg)
            millimetres = float(root.attrib["width"].removesuffix("mm"))
            assert millimetres / 10 == pytest.approx(width, abs=0.1), path.stem
            assert len(root.attrib["aria-label"]) > 20
            assert "NaN" not in svg
            assert 'fill="white"' in svg
    assert not list(tmp_path.rglob("*.tmp"))


def test_formats_have_their_resolution_and_size(results: Path, tmp_path: Path) -> None:
    out = Place(tmp_path)
    (pdf,) = save_figures(results, "pdf", out, ["rankme"])
    box = re.search(rb"/MediaBox ?\[0 0 ([\d.]+)", Path(pdf).read_bytes())
    assert box is not None
    assert float(box[1]) == pytest.approx(8.4 / 2.54 * 72, abs=1)
    (png,) = save_figures(results, "png", out, ["rankme", "rankme"])
    wide, _ = struct.unpack(">II", Path(png).read_bytes()[16:24])
    assert wide == pytest.approx(8.4 / 2.54 * 300, abs=5)
    assert {path.name for path in tmp_path.iterdir()} == {"rankme.pdf", "rankme.png"}


def test_an_unknown_figure_is_refused_before_anything_is_written(
    results: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no figure 'rankm' \\(did you mean 'rankme'") as caught:
        save_figures(results, "svg", Place(tmp_path / "out"), ["norm-cv", "rankm"])
    assert "alpha-req" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_results_without_a_figure_and_places_that_cannot_be_written(
    results: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="nothing that can be drawn"):
        save_figures(synthetic.start(tmp_path / "empty"), "svg", Place(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        save_figures(results, "svg", Place(tmp_path / "file"), ["rankme"])


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    synthetic.trajectory(results, (3.0, 2.0, 4.0), model='<b>"&', steps=(0, 1, 8))
    (figure,) = (f for f in read_figures(results) if f.key == "rankme")
    svg = drawn(figure, "svg").decode()
    assert '<b>"&' in ET.fromstring(svg).attrib["aria-label"]
    assert "<b>" not in svg
