"""Advice on which checkpoint to fine-tune: what counts, what is said, and when nothing is."""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest

import dashboards
from dashboards.advisor import advise
from dashboards.advisor_table import NO_MORE, NO_SKILL, NOT_SHOWN, SCHEMA, SKILL, TOO_FEW, Advice
from dashboards.advisor_words import advisor_section, candidates_table, sentence
from dashboards.query import load
from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import (
    CVS,
    STEPS,
    TREND,
    falling,
    finetune,
    level,
    write_heads,
    write_trials,
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def one(results: Path) -> Advice:
    (found,) = advise(results)
    return found


def untried(results: Path, step: int, cv: float) -> None:
    synthetic.head(results, "pico-64", step, cv, overlap_std=0.05)


def test_a_metric_that_predicts_recommends_even_what_was_not_tried(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling)
    untried(results, 100, 0.10)
    untried(results, 200, 0.22)
    untried(results, 300, 0.01)
    found = one(results)
    judgement = found.judgement
    assert (judgement.verdict, judgement.predictor, judgement.n) == (SKILL, "norm_cv", 7)
    assert judgement.skill is not None
    assert judgement.skill > 0.99
    assert judgement.skill_pvalue is not None
    assert judgement.skill_pvalue < 0.001
    assert (judgement.skill_low, judgement.independent) == (None, True)
    assert judgement.skill_log_step is not None
    assert judgement.skill_log_step < 0
    assert judgement.regret == 0
    assert judgement.regret_last == pytest.approx(0.25, abs=0.01)
    by_step = {candidate.step: candidate for candidate in found.candidates}
    assert by_step[200].predicted is not None
    middle, low, high = by_step[200].predicted
    assert low < 0.38 < high
    assert middle == pytest.approx(0.38, abs=0.005)
    # Beyond every norm CV that was tried, so it leads and isn't recommended.
    assert (by_step[300].place, by_step[300].extrapolated, by_step[300].recommended) == (
        1,
        True,
        False,
    )
    (chosen,) = [c for c in found.candidates if c.recommended]
    assert chosen.step in (100, 512)
    assert sentence(found).startswith(f"Fine-tune step {chosen.step}: net gain +0.5")


def test_what_was_not_tried_is_recommended_where_it_is_the_best(results: Path) -> None:
    write_heads(results)
    write_trials(results, lambda cv, place: 0.6 - abs(cv - 0.1) if place != 1 else 0.55)
    untried(results, 100, 0.101)
    (chosen,) = [c for c in one(results).candidates if c.recommended]
    assert (chosen.step, chosen.net_gain) == (100, None)
    assert "predicted." in sentence(one(results))


def test_without_skill_nothing_is_recommended_and_what_was_measured_is_listed(
    results: Path,
) -> None:
    write_heads(results)
    write_trials(results, level)
    untried(results, 100, 0.1)
    found = one(results)
    assert found.judgement.verdict == NO_SKILL
    assert not any(candidate.recommended for candidate in found.candidates)
    assert all(candidate.predicted is None for candidate in found.candidates)
    assert [c.place for c in found.candidates] == [*range(1, 8), None]
    gains = [c.net_gain.mean for c in found.candidates if c.net_gain]
    assert gains == sorted(gains, reverse=True)
    told = sentence(found)
    assert told.startswith("Geometry recommends no checkpoint: it has none where it is tested.")
    assert f"step {found.candidates[0].step:,} gains most" in told
    table = candidates_table(found, "advice-1")
    assert len(table.rows) == 7
    assert "Of 1 more nothing is known." in table.note


def test_what_the_step_alone_gives_is_no_skill_of_geometry(results: Path) -> None:
    write_heads(results, TREND)
    # Norm CV follows the step, and net gain the step itself.
    write_trials(results, lambda cv, place: 0.3 - 0.02 * place, TREND, noise=0.0)
    for place, step in enumerate(STEPS):
        wobble = 0.004 * (-1) ** place
        synthetic.head(results, "pico-64", step, TREND[place] + wobble)
    found = one(results)
    assert found.judgement.verdict == NO_MORE
    assert not any(candidate.recommended for candidate in found.candidates)
    assert found.judgement.independent is False
    told = sentence(found)
    assert "the step alone predicts as well" in told
    assert "checkpoints are no independent draws" in told


def test_skill_that_could_be_chance_does_not_recommend(results: Path) -> None:
    cvs = (0.1, 0.2, 0.3, 0.4, 0.5)
    gains = (0.30, 0.28, 0.31, 0.26, 0.25)
    for step, cv, gain in zip((512, 64, 2048, 8, 128), cvs, gains, strict=True):
        synthetic.head(results, "pico-64", step, cv)
        finetune(results, step, 0, gain)
    judgement = one(results).judgement
    assert judgement.skill is not None
    assert judgement.skill > 0
    assert judgement.skill_pvalue is not None
    assert judgement.skill_pvalue > 0.05
    assert judgement.verdict == NOT_SHOWN
    assert "its skill could be chance" in sentence(one(results))


@pytest.mark.parametrize("n", [3, 4])
def test_few_checkpoints_are_listed_and_not_judged(results: Path, n: int) -> None:
    write_heads(results)
    write_trials(results, falling, CVS[:n])
    found = one(results)
    assert (found.judgement.verdict, found.judgement.skill, found.judgement.n) == (TOO_FEW, None, n)
    assert sum(c.net_gain is not None for c in found.candidates) == n
    assert f"Checkpoints with trials: {n}" in sentence(found)


def test_two_checkpoints_are_no_series(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling, CVS[:2])
    assert advise(results) == []
    assert load("advice", results).schema.equals(SCHEMA, check_metadata=True)


def test_without_geometry_nothing_is_judged(results: Path) -> None:
    write_trials(results, falling)
    found = one(results)
    assert found.judgement.verdict == TOO_FEW
    assert "none that is known at all of them" in sentence(found)


def test_a_metric_that_lacks_a_checkpoint_is_not_chosen_from(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling)
    for step in STEPS[:-1]:
        synthetic.geometry(results, "pico-64", step, 20.0 + step % 7)
    assert one(results).judgement.predictors == "norm_cv, overlap_std"
    synthetic.geometry(results, "pico-64", STEPS[-1], 21.0)
    assert one(results).judgement.predictors == "rankme, alpha_req, norm_cv, overlap_std"


def test_the_heldout_loss_may_predict(results: Path) -> None:
    write_trials(results, falling)
    rows = [
        {**synthetic.keys("evals", "pico-64", step), "row": place, "task": "heldout",
         "metric": "loss", "value": 3 + cv, "sequences_fingerprint": "a" * 64}
        for place, (step, cv) in enumerate(zip(STEPS, CVS, strict=True))
    ]  # fmt: skip
    synthetic.write(results, "evals", [*rows, {**rows[0], "row": 9, "metric": "acc", "value": 0.1}])
    judgement = one(results).judgement
    assert (judgement.predictors, judgement.verdict) == ("heldout_loss", SKILL)


def test_from_ten_checkpoints_on_the_interval_decides(results: Path) -> None:
    rng = np.random.default_rng(0)
    for step in range(100, 1300, 100):
        cv = float(rng.uniform(0.1, 0.4))
        synthetic.head(results, "pico-64", step, cv)
        finetune(results, step, 0, 0.6 - cv + 0.01 * float(rng.standard_normal()))
    judgement = one(results).judgement
    assert (judgement.verdict, judgement.n, judgement.skill_pvalue) == (SKILL, 12, None)
    assert judgement.skill_low is not None
    assert 0 < judgement.skill_low < 1
    assert "bootstrap interval over checkpoints), n = 12" in sentence(one(results))


def test_equal_net_gains_leave_nothing_to_predict(results: Path) -> None:
    write_heads(results)
    write_trials(results, lambda cv, place: 0.25, noise=0.0)
    found = one(results)
    assert (found.judgement.verdict, found.judgement.skill) == (NO_SKILL, None)
    assert "All 7 net gains are equal." in sentence(found)


def test_plain_lora_counts_and_no_intervention(results: Path) -> None:
    write_heads(results)
    write_trials(results, lambda cv, place: cv, intervention="equalize")
    assert advise(results) == []
    write_trials(results, falling)
    assert one(results).arm.labels["intervention"] == "none"


def test_the_table_has_a_row_for_each_candidate(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling)
    untried(results, 100, 0.22)
    table = load("advice", results)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert all(field.metadata[b"definition"] for field in SCHEMA)
    rows = table.to_pylist()
    assert [row["place"] for row in rows] == list(range(1, 9))
    assert {row["verdict"] for row in rows} == {SKILL}
    (new,) = [row for row in rows if row["step"] == 100]
    assert (new["net_gain"], new["n_seeds"], new["loss_post"]) == (None, 0, None)
    assert new["predicted_low"] < new["predicted"] < new["predicted_high"]
    assert load("advice", results, columns=["place"]).column_names == ["place"]


def test_the_fragment_shows_every_series(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling)
    write_trials(results, level, task="sums")
    shown = advisor_section(advise(results))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(dashboards.__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    context: dict[str, Any] = {"advised": shown}
    page = environment.get_template("advisor.html.j2").render(context)
    assert page.count("<li>") == 2
    assert page.count("<table>") == 2
    assert "pico-64, sums: lora of rank 8 on attention: <strong>no skill</strong>" in page
    assert "Fine-tune step 512" in page


def test_long_series_are_cut_where_they_are_shown(results: Path) -> None:
    write_heads(results)
    write_trials(results, falling)
    for step in range(1, 20):
        untried(results, step, 0.2)
    table = candidates_table(one(results), "advice-1")
    assert len(table.rows) == 20
    assert "The first 20 of 26; the table `advice` has all." in table.note
