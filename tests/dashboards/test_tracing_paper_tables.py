"""The tracing paper's tables: beside ours for its models and settings, and for no others."""

from pathlib import Path
from typing import Any

import pytest

from dashboards.finetune_layout import Table
from dashboards.published import papers_models
from dashboards.report import render
from dashboards.tables import read
from dashboards.tracing_paper_tables import tracing_paper_tables
from tests.dashboards import synthetic
from tests.dashboards.paper_scenarios import TRACING_STEPS, checkpoints, tracing_study

REPOSITORY = "EleutherAI/pythia-1b"


def made(results: Path) -> dict[str, Table]:
    measured = read(results)
    tables = tracing_paper_tables(measured, papers_models(measured.checkpoints))
    return {table.key: table for table in tables}


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows]


def test_the_papers_model_stands_beside_the_papers_numbers(tmp_path: Path) -> None:
    tables = made(tracing_study(tmp_path, REPOSITORY))
    suffixes = rows(tables["paper-tracing-1"])
    assert [row["Ours"] for row in suffixes] == [
        "30.00", "40.00", "0.000", "0.000", "0.000", "0.000", "30.00",
    ]  # fmt: skip
    assert [row["Published"] for row in suffixes][:2] == ["25.41", "46.61"]
    assert suffixes[0]["n"] == "100 tokens of 40 answers"
    ablated = rows(tables["paper-tracing-2"])
    assert [(row["What"], row["Published"]) for row in ablated] == [
        ("none", "0.8380"), ("retained 10", "0.2250"),
    ]  # fmt: skip
    assert ablated[1]["Difference"] == "−0.005"
    found = {row["Predictor"]: row for row in rows(tables["paper-tracing-9"])}
    assert found["rankme"]["Published"] == "−0.759, p < 0.001, n = 20"
    assert (found["rankme"]["r"], found["rankme"]["n"]) == ("−1.000", "5")
    assert found["alpha_req"]["Difference"] == "+0.190"
    assert found["rankme"]["Log step alone"] not in ("–", "")


@pytest.mark.parametrize(
    ("repository", "columns", "kept"),
    [
        (None, {}, set()),
        ("EleutherAI/pythia-1b-deduped", {}, set()),
        (REPOSITORY, {"n_sequences": 1500}, {"paper-tracing-1", "paper-tracing-2"}),
        (REPOSITORY, {"dataset": "wikitext"}, {"paper-tracing-1", "paper-tracing-2"}),
    ],
)
def test_another_study_never_shows_the_papers_numbers(
    tmp_path: Path, repository: str | None, columns: dict[str, Any], kept: set[str]
) -> None:
    tables = made(tracing_study(tmp_path, repository, **columns))
    assert {key for key, table in tables.items() if "Published" in table.headings} == kept
    assert "this study isn't the paper's" in tables["paper-tracing-9"].note
    if not kept:
        page = Path(render(tmp_path, "other")).read_text(encoding="utf-8")
        body = page.partition('<script type="application/json"')[0]
        for number in ("0.838", "25.41", "46.61", "0.759", "0.810"):
            assert number not in body


def test_an_index_that_was_built_here_is_not_the_papers(tmp_path: Path) -> None:
    tracing_study(tmp_path, REPOSITORY)
    key = {**synthetic.keys("indexes", "", None), "revision": None, "stage": None}
    synthetic.write(tmp_path, "indexes", [{**key, "documents": 10, "corpus_tokens": 1000}])
    assert "Published" not in made(tmp_path)["paper-tracing-1"].headings


def test_an_earlier_checkpoint_is_not_the_papers_last(tmp_path: Path) -> None:
    checkpoints(synthetic.start(tmp_path), "pythia-1b", TRACING_STEPS[:2], REPOSITORY)
    key = synthetic.keys("ablation", "pythia-1b", TRACING_STEPS[1])
    row = {"task": "sciq", "mode": "none", "acc": 0.5, "acc_tie": 0.5, "chance": 0.25, "n": 10}
    synthetic.write(tmp_path, "ablation", [{**key, **row}])
    table = made(tmp_path)["paper-tracing-2"]
    assert "Published" not in table.headings
    assert rows(table)[0]["95 % interval"] == "–"
