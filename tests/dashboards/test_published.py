"""Published numbers: what they imply fits, and models count as the papers' only for certain."""

from typing import Any

import numpy as np
import pytest

from dashboards import published_norm, published_tracing
from dashboards.correlation_statistics import pearson, t_pvalue
from dashboards.published import NORM, TRACING, belongs_to, papers_models


def loaded(model: str, *repositories: str | None) -> list[dict[str, Any]]:
    return [{"suite": "s", "model": model, "repository": name} for name in repositories]


def test_the_printed_p_values_are_those_of_the_implied_numbers_of_checkpoints() -> None:
    for value in published_tracing.TABLE_9.values:
        assert value.n is not None
        assert value.pvalue is not None
        # r is printed to three digits.
        ends = [t_pvalue(value.value + d, value.n) for d in (-0.0005, 0.0005)]
        assert min(ends) * 0.99 <= value.pvalue <= max(ends) * 1.01


def test_the_norm_papers_table_2_is_consistent() -> None:
    table = published_norm.TABLE_2
    columns = {
        name: [v.value for v in table.values if v.column == name]
        for name in ("norm CV", "fine-tunability, none", "fine-tunability, equalize", "change, %")
    }
    none, equal, change = (np.array(columns[name]) for name in list(columns)[1:])
    # The printed fine-tunabilities have three digits.
    assert 100 * (equal - none) / none == pytest.approx(change, abs=0.4)
    r = pearson(np.array(columns["norm CV"]), none)
    assert r is not None
    assert round(r, 2) == -0.95


def test_suffix_shares_are_all_of_them() -> None:
    total = sum(value.value for value in published_tracing.TABLE_1.values)
    assert total == pytest.approx(100, abs=0.02)


def test_a_model_is_the_papers_only_by_its_repository() -> None:
    rows = [
        *loaded("named like it", None, None),
        *loaded("pythia-1b", "EleutherAI/pythia-1b"),
        *loaded("deduped", "EleutherAI/pythia-1b-deduped"),
        *loaded("mixed", "EleutherAI/pythia-1b", None),
        *loaded("two", "EleutherAI/pythia-1b", "EleutherAI/pythia-12b"),
        *loaded("olmo", "allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B-early-training"),
        *loaded("norm", "EleutherAI/pythia-410m-deduped"),
    ]
    found = papers_models(rows)
    assert {key[1]: model.name for key, model in found.items()} == {
        "pythia-1b": "Pythia-1B", "olmo": "OLMo-2-1B", "norm": "Pythia-410M",
    }  # fmt: skip
    assert belongs_to(found["s", "norm"]) == NORM
    assert belongs_to(found["s", "olmo"]) == TRACING


def test_a_number_is_found_by_model_row_and_column() -> None:
    table = published_tracing.TABLE_2
    found = table.find("Pythia-1B", "sciq", "retained 10")
    assert found is not None
    assert found.value == 0.225
    assert table.find("Pythia-1B", "sciq", "retained 5") is None
    assert table.find("Pythia-410M", "sciq", "none") is None
    anyone = published_norm.TABLE_3.find("whatever", "rank 8", "spread")
    assert anyone is not None
    assert anyone.value == 0.093
