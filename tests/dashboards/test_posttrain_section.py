"""Figures, tables and the page's section on post-training."""

import html
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import vl_convert

from dashboards.charts import Z95
from dashboards.figures import Figure
from dashboards.finetune_section import Section
from dashboards.posttrain_figures import posttrain_figures
from dashboards.posttrain_read import Posttrained, read_posttrained
from dashboards.posttrain_section import posttrain_section
from dashboards.report import render
from dashboards.tables import read
from tests.dashboards import posttrain_scenarios as scenarios
from tests.dashboards import synthetic

CHANGES = {"sft": 5.0, "dpo": 3.0, "rlvr": -4.0}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = synthetic.start(tmp_path_factory.mktemp("posttrain") / "results")
    scenarios.write_chain(results, CHANGES, passk=scenarios.RISE_AND_CROSS)
    return results


def known(results: Path) -> Posttrained:
    found = read_posttrained(read(results))
    assert found is not None
    return found


def drawn(results: Path) -> dict[str, Figure]:
    return {figure.key: figure for figure in posttrain_figures(known(results))}


def cells(section: Section, key: str) -> list[tuple[str, ...]]:
    return [
        row for table in section.tables if table.key == f"posttrain-{key}" for row in table.rows
    ]


def test_every_figure_can_be_drawn_and_has_words(whole: Path) -> None:
    figures = drawn(whole)
    assert list(figures) == [
        "posttrain-rankme-0-0", "posttrain-alpha-req-0-0", "posttrain-norm-cv-0",
        "posttrain-loss-sft-0", "posttrain-loss-dpo-0", "posttrain-loss-rlvr-0",
        "posttrain-reward-0", "posttrain-preferred-0", "posttrain-margin-0",
        "posttrain-entropy-0", "passk-0-0",
    ]  # fmt: skip
    for figure in figures.values():
        assert len(figure.alternative) > 60
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown, allow_nan=False))


def test_rankme_begins_where_the_chain_does(whole: Path) -> None:
    figure = drawn(whole)["posttrain-rankme-0-0"]
    own = sorted((row for row in figure.rows if row["own"]), key=lambda row: row["step"])
    assert [(row["label"], row["step"]) for row in own] == [
        ("start", 0), ("SFT", 5), ("SFT", 10), ("DPO", 15), ("DPO", 20), ("RLVR", 25), ("RLVR", 30),
    ]  # fmt: skip
    assert [row["value"] for row in own] == [40.0, 42.5, 45.0, 46.5, 48.0, 46.0, 44.0]
    # Each stage's line begins at the end of the one before.
    joined = [(row["label"], row["step"]) for row in figure.rows if not row["own"]]
    assert joined == [("SFT", 0), ("DPO", 10), ("RLVR", 20)]
    layers = figure.specs["step"]["layer"]
    assert [point["at"] for point in layers[0]["data"]["values"]] == [0, 10, 20]
    assert layers[0]["mark"]["strokeDash"]


def test_bands_are_paired_with_the_first_point(whole: Path) -> None:
    rows = [row for row in drawn(whole)["posttrain-rankme-0-0"].rows if row["own"]]
    first = next(row for row in rows if row["step"] == 0)
    assert first["low"] == first["value"] == first["high"]
    for row in rows:
        if row is not first:
            # Each value's own error is 1: pairing leaves a fraction.
            assert row["se"] == pytest.approx(0.05 * 2**0.5, rel=0.1)
            assert row["high"] - row["value"] == pytest.approx(Z95 * row["se"])


def test_curves_go_on_through_the_stages(whole: Path) -> None:
    figures = drawn(whole)
    assert [row["step"] for row in figures["posttrain-entropy-0"].rows] == list(range(1, 31))
    assert [row["step"] for row in figures["posttrain-reward-0"].rows] == list(range(21, 31))
    assert {row["label"] for row in figures["posttrain-loss-dpo-0"].rows} == {"DPO"}


def test_passk_is_drawn_with_its_guessing_curve(whole: Path) -> None:
    figure = drawn(whole)["passk-0-0"]
    labels = ["start", "SFT, step 10", "DPO, step 20", "RLVR, step 30"]
    assert list(dict.fromkeys(row["label"] for row in figure.rows)) == labels
    assert [row["k"] for row in figure.rows][:4] == list(scenarios.K)
    layers = figure.specs["step"]["layer"]
    (dashed,) = [layer for layer in layers if "guessing" in str(layer["encoding"].get("y"))]
    assert dashed["mark"]["strokeDash"]
    assert dashed["encoding"]["color"] == layers[-1]["encoding"]["color"]
    assert dashed["encoding"]["x"]["scale"]["type"] == "log"


def test_passk_without_a_chain_is_drawn(results: Path) -> None:
    scenarios.write_passk(results, scenarios.begin(), (0.1, 0.2, 0.3, 0.4), guessing=None)
    (figure,) = drawn(results).values()
    assert figure.title == "pass@k on sums: other checkpoints"
    assert {row["label"] for row in figure.rows} == {"pico-64 step100"}
    section = posttrain_section(known(results))
    assert (section.verdicts, section.tables) == ([], [])
    assert "No chain of post-training" in Path(render(results, "test")).read_text(encoding="utf-8")


def test_stages_are_told_with_their_paired_difference(whole: Path) -> None:
    section = posttrain_section(known(whole))
    rows = cells(section, "stages")
    assert [row[2] for row in rows] == ["SFT", "DPO", "RLVR"]
    assert [row[3] for row in rows] == ["0 → 10", "10 → 20", "20 → 30"]
    assert rows[0][5:7] == ("40.0 ± 1.0", "45.0 ± 1.0")
    assert [row[7].split(" ±")[0] for row in rows] == ["+5.000", "+3.000", "−4.000"]
    assert rows[0][7].startswith("+5.000 ± 0.0")
    assert rows[2][10] == "0.1200 → 0.1300"
    answers = cells(section, "answers")
    assert answers[2][5] == "0.2000 → 0.5000"
    assert answers[2][7] == "0.8000 → 0.6000 (k = 64)"
    assert answers[2][9] == "0.9900 → 0.9900"


def test_every_stage_and_the_base_are_compared_at_every_k(whole: Path) -> None:
    section = posttrain_section(known(whole))
    rows = cells(section, "passk")
    names = list(dict.fromkeys(row[0] for row in rows))
    assert names == [
        "SFT: end less start", "DPO: end less start", "RLVR: end less start",
        "RLVR: end less the chain's base",
    ]  # fmt: skip
    assert [row[3] for row in rows] == ["1", "4", "16", "64"] * 4
    assert [row[6][:5] for row in rows[8:12]] == ["+0.3 ", "+0.15", "−0.02", "−0.2 "]
    crossings = cells(section, "crossovers")
    assert [row[4] for row in crossings] == ["none", "none", "13.6", "13.6"]
    assert [row[6] for row in crossings] == ["0.0%", "0.0%", "100.0%", "100.0%"]


def test_what_is_not_compared_is_listed(whole: Path, results: Path) -> None:
    scenarios.write_chain(results, CHANGES, passk=scenarios.RISE_AND_CROSS)
    rlvr = scenarios.checkpoint("rlvr", 10, taken=20)
    (old,) = [path for path in (results / "passk").iterdir() if revision(path) == rlvr["revision"]]
    old.unlink()
    scenarios.write_passk(results, rlvr, scenarios.RISE_AND_CROSS["rlvr"], temperature=0.6)
    rows = cells(posttrain_section(known(results)), "refused")
    assert [(row[0], row[3]) for row in rows] == [
        ("RLVR: end less start", "other temperatures"),
        ("RLVR: end less the chain's base", "other temperatures"),
    ]
    assert cells(posttrain_section(known(whole)), "refused") == []


def revision(path: Path) -> str:
    return str(pq.read_table(path, columns=["revision"]).column("revision")[0].as_py())


def test_every_row_of_a_table_has_a_cell_for_each_heading(whole: Path) -> None:
    tables = posttrain_section(known(whole)).tables
    assert len({table.key for table in tables}) == len(tables) == 4
    for table in tables:
        assert table.note
        assert {len(row) for row in table.rows} == {len(table.headings)}


def test_poor_data_give_what_they_can(results: Path) -> None:
    scenarios.write_log(results, scenarios.begin(), "dpo", loss=None, margin=float("nan"))
    assert list(drawn(results)) == ["posttrain-preferred-0", "posttrain-entropy-0"]
    (row,) = cells(posttrain_section(known(results)), "stages")
    assert row[2:8] == ("DPO", "0", "–", "–", "–", "–")
    scenarios.write_geometry(results, scenarios.begin(), float("nan"))
    scenarios.write_geometry(results, scenarios.checkpoint("dpo", 10), 40.0, alpha_req=None)
    figures = drawn(results)
    assert [row["step"] for row in figures["posttrain-rankme-0-0"].rows] == [10]
    assert "posttrain-alpha-req-0-0" not in figures
    render(results, "test")


def test_several_seeds_are_drawn_apart(results: Path) -> None:
    scenarios.write_chain(
        results, CHANGES, seeds=(0, 7), spread=1.0, passk=scenarios.RISE_AND_CROSS
    )
    figure = drawn(results)["posttrain-rankme-0-0"]
    assert figure.caption.startswith("2 seeds.")
    assert {row["model"] for row in figure.rows} == {"pico-64-seed0", "pico-64-seed7"}
    section = posttrain_section(known(results))
    assert [row[1] for row in cells(section, "stages")] == ["0"] * 3 + ["7"] * 3
    assert all("2 seeds" in row[7] for row in cells(section, "passk"))


def test_the_page_shows_the_section_and_is_the_same_twice(whole: Path, tmp_path: Path) -> None:
    pages = [
        Path(render(whole, "test", tmp_path / f"{name}.html")).read_text(encoding="utf-8")
        for name in ("one", "two")
    ]
    assert pages[0] == pages[1]
    page = html.unescape(pages[0])
    for part in (
        'href="#posttraining"', "SFT expands the representation: RankMe rises: <strong>holds",
        "RLVR raises pass@1: <strong>holds", "Crossovers of pass@k", "ends below 1% of its start",
    ):  # fmt: skip
        assert part in page, part
    assert "None" not in page[page.index('id="posttraining"') : page.index('id="checkpoints"')]


def test_without_rows_the_page_has_no_section(results: Path) -> None:
    synthetic.trajectory(results, (43.0, 10.0, 44.0), steps=(0, 32, 512))
    assert "posttraining" not in Path(render(results, "test")).read_text(encoding="utf-8")


def test_win_rates_are_told_with_their_judge(results: Path) -> None:
    at = scenarios.checkpoint("sft", 8)
    row = {
        **at,
        **{"cell_id": "w" * 64, "row": 0, "comparison": "pair", "instructions": "asked"},
        **{"start_step": 10, "baseline_suite": "base", "baseline_model": "m"},
        **{"baseline_revision": "sft-step8", "baseline_start_step": None, "judge": "somebody"},
        **{"judge_kind": "endpoint", "win_rate": 61.25, "stderr": 2.5, "n": 80, "n_null": 3},
        **{"first_rate": 55.0, "length_controlled_reason": "no difficulties"},
    }
    synthetic.write(results, "winrates", [row])
    ((*told,),) = cells(posttrain_section(known(results)), "winrates")
    assert told[0] == f"{at['suite']}/{at['model']}, from step 10"
    assert told[2] == "base/m"
    assert told[4:7] == ["somebody", "80", "3"]
    assert told[7].startswith("61.")
    assert told[8] == "none: no difficulties"
