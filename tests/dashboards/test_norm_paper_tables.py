"""The norm paper's tables: beside ours for its models and recipe, and for no others."""

from pathlib import Path
from typing import Any

import pytest

from dashboards.finetune_layout import Table
from dashboards.finetune_tables import read_finetuned
from dashboards.norm_paper_tables import norm_paper_tables
from dashboards.published import papers_models
from dashboards.report import render
from dashboards.tables import read
from tests.dashboards.paper_scenarios import norm_study

REPOSITORY = "EleutherAI/pythia-410m-deduped"


def made(results: Path) -> dict[str, Table]:
    measured = read(results)
    models = papers_models(measured.checkpoints)
    tables = norm_paper_tables(measured, read_finetuned(results), models)
    return {table.key: table for table in tables}


def lines(table: Table, what: str) -> list[dict[str, Any]]:
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    return [row for row in rows if row["What"] == what]


def test_the_papers_model_stands_beside_the_papers_numbers(tmp_path: Path) -> None:
    tables = made(norm_study(tmp_path, REPOSITORY))
    assert set(tables) == {"paper-norm-1", "paper-norm-2", "paper-norm-3", "paper-norm-text"}
    (row,) = lines(tables["paper-norm-1"], "r of norm_cv with fine-tunability")
    assert (row["Ours"], row["Published"]) == ("−1.000", "−0.8440 (n = 9)")
    assert (row["Difference"], row["n"]) == ("−0.156", "4 checkpoints")
    changes = lines(tables["paper-norm-2"], "change, %")
    assert [row["Published"] for row in changes] == ["2.100", "15.10", "24.40", "79.40"]
    assert changes[0]["Ours"] == "28.49"
    equal = lines(tables["paper-norm-2"], "fine-tunability, equalize")
    assert equal[0]["n"] == "3 seeds"
    assert equal[0]["95 % interval"].startswith("[0.4")
    spreads = lines(tables["paper-norm-3"], "spread")
    assert [row["Published"][:6] for row in spreads] == ["0.0870", "0.0930", "0.1000"]
    ranges = lines(tables["paper-norm-text"], "norm range")
    assert [row["Published"] for row in ranges] == ["1.800", "5.200", "–"]
    assert "names no model" not in tables["paper-norm-1"].note


@pytest.mark.parametrize(
    ("repository", "columns"),
    [
        (None, {}),
        ("EleutherAI/pythia-410m", {}),
        (REPOSITORY, {"task": "sums"}),
        (REPOSITORY, {"lr": 1e-3}),
        (REPOSITORY, {"targets": "attention+head"}),
    ],
)
def test_another_study_never_shows_the_papers_numbers(
    tmp_path: Path, repository: str | None, columns: dict[str, Any]
) -> None:
    tables = made(norm_study(tmp_path, repository, **columns))
    for key in ("paper-norm-1", "paper-norm-2", "paper-norm-3"):
        assert "Published" not in tables[key].headings
        assert "this study isn't the paper's" in tables[key].note
    if repository != REPOSITORY:
        page = Path(render(tmp_path, "other")).read_text(encoding="utf-8")
        body = page.partition('<script type="application/json"')[0]
        for number in ("0.844", "0.987", "79.4", "0.941", "0.437", "−0.84", "5.2×"):
            assert number not in body


def test_a_study_without_fine_tunes_still_has_norms(tmp_path: Path) -> None:
    norm_study(tmp_path, None)
    for path in (tmp_path / "finetunes").iterdir():
        path.unlink()
    assert set(made(tmp_path)) == {"paper-norm-text"}
