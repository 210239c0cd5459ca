"""Tables, figures and the section on fine-tunability: numbers, intervals, words, and poor data."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from scipy import stats

from dashboards.finetune_comparisons import causal_rows, rank_rows, rate_rows, remedy_rows
from dashboards.finetune_figures import finetune_figures
from dashboards.finetune_mechanism import beta_rows, semantics_rows, sensitivity_rows, update_rows
from dashboards.finetune_section import section
from dashboards.finetune_tables import (
    Finetuned,
    Setting,
    correlation_rows,
    read_finetuned,
    task_rows,
)
from dashboards.report import render
from tests.dashboards import finetune_scenarios as scenarios
from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import SEEDS, STEPS, falling, finetune


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenarios.write_everything(tmp_path_factory.mktemp("all") / "results")


def read(results: Path) -> Finetuned:
    found = read_finetuned(results)
    assert found is not None
    return found


def setting(results: Path) -> Setting:
    return read(results).settings[0]


def one(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return row


def test_interventions_are_compared_in_pairs_of_seeds(results: Path) -> None:
    synthetic.head(results, "pico-64", 256, 0.1)
    plain, equal = (0.30, 0.34, 0.29), (0.33, 0.36, 0.33)
    for seed in SEEDS:
        finetune(results, 256, seed, plain[seed], finetunability=0.5)
        finetune(
            results, 256, seed, equal[seed], finetunability=0.6, intervention="equalize", damage=0.2
        )
    finetune(results, 256, 7, 0.9, intervention="equalize")
    row = one(causal_rows(setting(results)), intervention="equalize")
    expected = stats.ttest_rel(equal, plain)
    assert row["net_gain_difference"] == pytest.approx(np.mean(equal) - np.mean(plain))
    assert row["net_gain_difference_pvalue"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert row["net_gain_difference_low"] == pytest.approx(interval.low)
    assert row["net_gain_difference_n"] == 3
    assert row["net_gain_n"] == 4
    assert row["change_percent"] == pytest.approx(20)
    assert row["norm_cv"] == 0.1
    base = one(causal_rows(setting(results)), intervention="none")
    assert base["change_percent"] is None
    assert base["net_gain_difference"] is None


def test_arms_at_different_fixed_rates_are_not_compared(results: Path) -> None:
    finetune(results, 256, 0, 0.3)
    finetune(results, 256, 0, 0.4, intervention="equalize", lr=5e-3)
    assert causal_rows(setting(results)) == []


def test_a_single_seed_has_no_interval(results: Path) -> None:
    for name in ("none", "shuffle"):
        finetune(results, 256, 0, 0.3, intervention=name)
    row = one(causal_rows(setting(results)), intervention="shuffle")
    assert row["net_gain_difference"] == 0
    assert row["net_gain_difference_low"] is None
    assert row["net_gain_difference_pvalue"] is None
    assert row["norm_cv"] is None


def test_ranks_have_spread_slope_and_paired_differences(results: Path) -> None:
    scenarios.write_heads(results)
    scenarios.write_trials(results, falling, rank=4, noise=0)
    scenarios.write_trials(results, lambda cv, place: 0.7 - cv, rank=16, noise=0)
    found = read(results)
    rows = rank_rows(found, found.settings[0])
    row = one(rows, rank=16, outcome="net_gain")
    assert row["spread"] == pytest.approx(0.3)
    assert row["slope"] == pytest.approx(-1)
    assert row["difference"] == pytest.approx(0.1)
    assert row["difference_n"] == len(STEPS) * len(SEEDS)
    assert row["pearson"] == pytest.approx(-1)
    assert one(rows, rank=4, outcome="net_gain")["difference"] is None


def test_remedies_are_compared_with_lora_on_the_same_targets(results: Path) -> None:
    scenarios.write_trials(results, falling, noise=0)
    scenarios.write_trials(results, lambda cv, place: 0.5, targets="attention+head", noise=0)
    scenarios.write_trials(
        results, lambda cv, place: 0.55, targets="attention+head", method="norm_lr", noise=0
    )
    scenarios.write_trials(results, lambda cv, place: 0.61 - cv, method="dora", noise=0)
    rows = remedy_rows(setting(results))
    assert one(rows, method="norm_lr", step=None)["difference"] == pytest.approx(0.05)
    assert one(rows, method="norm_lr", step=256)["plain"] == pytest.approx(0.5)
    assert one(rows, method="dora", step=None)["difference"] == pytest.approx(0.01)
    assert one(rows, method="dora", step=None)["difference_n"] == len(SEEDS)


def test_rates_say_what_was_best_and_whether_it_lies_at_the_edge(results: Path) -> None:
    finetune(results, 256, 0, 0.3)
    finetune(results, 256, 0, 0.5, lr=5e-3, searched=True)
    finetune(results, 256, 0, 0.9, lr=1e-3, searched=True, epochs_run=1)
    finetune(results, 512, 0, 0.3)
    finetune(results, 512, 0, 0.2, lr=5e-3, searched=True)
    finetune(results, 512, 0, 0.1, lr=1e-3, searched=True)
    finetune(results, 512, 0, None, lr=2e-2, searched=True)
    rows = rate_rows(setting(results))
    first, second = one(rows, step=256), one(rows, step=512)
    assert (first["lrs"], first["edge"], first["n_stopped"]) == ([5e-3], "highest", 1)
    assert first["difference"] == pytest.approx(0.2)
    assert (second["lrs"], second["edge"], second["n_diverged"]) == ([2e-3], None, 1)
    assert second["tried"] == [1e-3, 2e-3, 5e-3, 2e-2]


def test_updates_and_slopes_are_means_over_seeds(results: Path) -> None:
    scenarios.write_updates(results, 0.5)
    found = read(results)
    (first, *_, last) = update_rows(found, found.settings[0])
    assert (first["decile"], last["decile"], last["step"]) == (1, 10, STEPS[-1])
    assert last["update_mean"] == pytest.approx(0.1 * np.mean([10**0.49, 10**0.5, 10**0.51]))
    assert last["update_mean_n"] == 3
    # Half as many tokens of each side of the middle, at which what is expected is what is found.
    assert first["expected_relative"] > first["relative_update_mean"]
    assert last["expected_relative"] < last["relative_update_mean"]
    row = one(beta_rows(found.settings[0]), step=STEPS[-1])
    assert (row["beta"], row["beta_se"], row["beta_n"]) == pytest.approx((0.5, 0.01, 3))


def test_semantics_tell_the_last_head_and_the_course_of_the_range(results: Path) -> None:
    scenarios.write_heads(results)
    finetune(results, STEPS[-1], 0, 0.3)
    (row,) = semantics_rows(read(results))
    assert row["step"] == STEPS[-1]
    assert (row["first_norm_range"], row["largest_norm_range"]) == (1.8, 1.9)
    half = 1.96 / math.sqrt(2048 - 3)
    assert row["pearson_norm_token_id_high"] == pytest.approx(
        math.tanh(math.atanh(0.04) + half), abs=1e-4
    )
    assert row["highest_norm_tokens"] == ["\\alpha", "<b>"]


def test_tasks_and_noise_have_rows(everything: Path) -> None:
    found = read(everything)
    rows = task_rows(found)
    assert {row["setting"] for row in rows} == {"pico-64, facts", "pico-64, sums"}
    row = one(rows, setting="pico-64, sums", outcome="net_gain")
    assert row["pearson"] == pytest.approx(-1, abs=0.001)
    assert row["highest"] - row["lowest"] == pytest.approx(0.3, abs=0.01)
    first, *_ = sensitivity_rows(found)
    assert (first["step"], first["loss_increase_n"]) == (STEPS[0], 3)
    assert first["loss_increase"] == pytest.approx(0.11)


def test_the_reference_is_what_the_paper_does(everything: Path) -> None:
    reference = setting(everything).reference
    assert reference is not None
    assert (reference.labels["rank"], reference.labels["targets"]) == (8, "attention")
    rows = correlation_rows(read(everything))
    assert {row["rank"] for row in rows} == {8}
    assert not rows[0]["is_null_model"]
    assert [row["is_null_model"] for row in rows if row["rate"] == "fixed"][-1]


def test_settings_that_differ_in_more_than_the_task_are_told_apart(results: Path) -> None:
    finetune(results, 256, 0, 0.3)
    finetune(results, 512, 0, 0.3, epochs=5, epochs_run=5)
    labels = [setting.label for setting in read(results).settings]
    assert labels == ["pico-64, facts, epochs 3", "pico-64, facts, epochs 5"]


def test_every_figure_can_be_drawn_and_has_words(everything: Path) -> None:
    figures = {figure.key: figure for figure in finetune_figures(read(everything))}
    assert set(figures) == {
        "finetune-norm-cv", "finetune-overlap-std", "finetune-step", "causal-change",
        "causal-net_gain-0", "causal-finetunability-0", "updates-absolute-0", "updates-relative-0",
        "rates-0-0",
    }  # fmt: skip
    for figure in figures.values():
        assert len(figure.alternative) > 60
        for spec in figure.specs.values():
            shown = {**spec, "width": 300, "datasets": {"rows": list(figure.rows)}}
            assert "NaN" not in vl_convert.vegalite_to_svg(json.dumps(shown, allow_nan=False))
    assert "log step alone r = " in figures["finetune-norm-cv"].caption
    assert "2 stopped and 1 diverged" in figures["rates-0-0"].caption
    kinds = {row["kind"] for row in figures["causal-net_gain-0"].rows}
    assert kinds == {"none", "equalize", "shuffle", "clip 0.05"}
    (expected,) = {
        round(row["value"] * row["norm"], 6)
        for row in figures["updates-relative-0"].rows
        if row["kind"] == "equally far"
    }
    assert expected > 0


def test_poor_data_give_no_figure_and_no_error(results: Path) -> None:
    finetune(results, 0, 0, None)
    found = read(results)
    assert finetune_figures(found) == []
    assert section(found).tables == []
    finetune(results, 0, 1, 0.2)
    found = read(results)
    (figure,) = finetune_figures(found)
    assert figure.key == "finetune-step"
    assert "fewer than three checkpoints" in figure.caption
    assert section(found).tables == []


def test_the_page_shows_the_section_only_where_something_was_fine_tuned(
    everything: Path, results: Path, tmp_path: Path
) -> None:
    page = Path(render(everything, "test", tmp_path / "page.html")).read_text(encoding="utf-8")
    for part in (
        'href="#finetunability"', "Across tasks", "Best learning rates",
        "at the highest rate tried", "within ±0.5", "below 5% of the plain",
        "(null model)", "&lt;b&gt;",
        "Equalizing the norms improves fine-tuning: <strong>holds",
        "Slope β", "Loss under noise", "clip 0.05", "dora of rank 8", "Table 3",
    ):  # fmt: skip
        assert part in page, part
    assert "None" not in page[page.index('id="finetunability"') : page.index('id="checkpoints"')]
    assert 'id="finetunability"' not in Path(render(results, "test")).read_text(encoding="utf-8")


def test_every_row_of_a_table_has_a_cell_for_each_heading(everything: Path) -> None:
    tables = section(read(everything)).tables
    assert len(tables) == 10
    for table in tables:
        assert table.note
        assert {len(row) for row in table.rows} == {len(table.headings)}
    assert len({table.key for table in tables}) == 10
