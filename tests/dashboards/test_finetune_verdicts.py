"""Verdicts on the norm paper's claims: each comes out each way, and says where it can't."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.correlation_statistics import Estimate
from dashboards.finetune_judgement import FAILS, HOLDS, MISSING, OPEN, Verdict, judge, relation
from dashboards.finetune_tables import read_finetuned
from dashboards.finetune_verdicts import verdicts
from tests.dashboards import finetune_scenarios as scenarios
from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import CVS, STEPS, TREND, falling, finetune, level

OVERLAPS, NORMS, EQUALIZING, GROWTH, SHUFFLING, RANKS, UPDATES = range(7)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def told(results: Path, claim: int) -> Verdict:
    found = read_finetuned(results)
    assert found is not None
    return verdicts(found)[0][1][claim]


def together(results: Path) -> Verdict:
    found = read_finetuned(results)
    assert found is not None
    return verdicts(found)[-1][1][0]


def test_without_trials_there_is_nothing_to_judge(results: Path) -> None:
    scenarios.write_heads(results)
    assert read_finetuned(results) is None


def test_trials_alone_leave_every_claim_not_measured(results: Path) -> None:
    scenarios.write_trials(results, falling)
    found = read_finetuned(results)
    assert found is not None
    assert {v.outcome for _, judged in verdicts(found) for v in judged} == {MISSING}


def test_a_single_trial_leaves_every_claim_not_measured(results: Path) -> None:
    finetune(results, 256, 0, 0.1)
    synthetic.head(results, "pico-64", 256, 0.1)
    found = read_finetuned(results)
    assert found is not None
    assert {v.outcome for _, judged in verdicts(found) for v in judged} == {MISSING}


def test_only_diverged_trials_leave_every_claim_not_measured(results: Path) -> None:
    for step in STEPS:
        finetune(results, step, 0, None)
        finetune(results, step, 0, None, intervention="equalize")
    scenarios.write_heads(results)
    found = read_finetuned(results)
    assert found is not None
    assert {v.outcome for _, judged in verdicts(found) for v in judged} == {MISSING}


@pytest.mark.parametrize(
    ("gain", "cvs", "outcome", "said"),
    [
        (falling, CVS, HOLDS, "none of them does as well"),
        (lambda cv, place: 0.2 + cv, CVS, FAILS, "which does not show a negative one"),
        (lambda cv, place: 0.6 - 0.1 * place + (0, 0.02)[place % 2], TREND, OPEN, "both trend"),
        (lambda cv, place: 0.5 - 0.02 * place**2, CVS, OPEN, "alone"),
    ],
)
def test_norm_cv_has_to_beat_the_null_models(
    results: Path, gain: scenarios.Gain, cvs: tuple[float, ...], outcome: str, said: str
) -> None:
    scenarios.write_heads(results, cvs)
    scenarios.write_trials(results, gain, cvs)
    verdict = told(results, NORMS)
    assert verdict.outcome == outcome, verdict.sentence
    assert said in verdict.sentence
    assert "with finetunability: r = " in verdict.sentence
    assert "log_step" in verdict.sentence


def test_the_papers_table_2_does_not_decide_that_norm_cv_predicts(results: Path) -> None:
    rows = ((1000, 0.092, 0.353), (25000, 0.119, 0.274), (75000, 0.126, 0.261))
    for step, cv, gain in (*rows, (143000, 0.139, 0.259)):
        synthetic.head(results, "pico-64", step, cv)
        finetune(results, step, 0, gain)
    verdict = told(results, NORMS)
    assert verdict.outcome == OPEN
    assert "Norm CV with net gain: r = −0.951" in verdict.sentence
    assert "log_step −0.98" in verdict.sentence
    assert "log_step alone does no worse" in verdict.sentence


def test_overlaps_predict_or_not_or_nobody_knows(tmp_path: Path) -> None:
    def outcome(name: str, n: int, follows: bool) -> str:
        results = synthetic.start(tmp_path / name)
        gains, spreads, means = 0.3 + 0.01 * np.random.default_rng(5).standard_normal((3, n))
        for place in range(n):
            step = 100 * (place + 1)
            known = gains[place] if follows else means[place]
            synthetic.head(
                results, "pico-64", step, 0.1, overlap_mean=known, overlap_std=spreads[place]
            )
            finetune(results, step, 0, gains[place])
        return told(results, OVERLAPS).outcome

    assert outcome("follows", 7, True) == FAILS
    assert outcome("few", 7, False) == OPEN
    assert outcome("many", 60, False) == HOLDS


@pytest.mark.parametrize(
    ("equalized", "first", "second"),
    [
        (lambda cv, place: 0.6 - 0.5 * cv, HOLDS, HOLDS),
        (lambda cv, place: 0.7 - cv, HOLDS, FAILS),
        (lambda cv, place: 0.58 - 1.2 * cv, FAILS, FAILS),
        (falling, FAILS, FAILS),
    ],
)
def test_equalizing_helps_or_not(
    results: Path, equalized: scenarios.Gain, first: str, second: str
) -> None:
    scenarios.write_heads(results)
    scenarios.write_trials(results, falling)
    scenarios.write_trials(results, equalized, intervention="equalize", damage=0.3)
    verdict, growth = told(results, EQUALIZING), told(results, GROWTH)
    assert (verdict.outcome, growth.outcome) == (first, second), (verdict, growth)
    assert "7 checkpoints" in verdict.sentence
    assert "damage, nats per token, +0.3" in verdict.sentence
    assert "3 seeds" in growth.sentence


def test_one_seed_and_loud_ones_decide_nothing(results: Path) -> None:
    scenarios.write_heads(results)
    for name in ("none", "equalize", "shuffle"):
        scenarios.write_trials(results, falling, seeds=(0,), intervention=name)
    for claim in (EQUALIZING, GROWTH, SHUFFLING):
        assert told(results, claim).outcome == OPEN
    assert "1 seed" in told(results, EQUALIZING).sentence


def test_loud_seeds_decide_nothing(results: Path) -> None:
    scenarios.write_heads(results)
    for sign, name in ((-1, "none"), (1, "equalize")):
        for place, step in enumerate(STEPS):
            for seed in (0, 1, 2):
                value = 0.4 + sign * 0.1 * (seed - 1) + 0.05 * place
                finetune(results, step, seed, value, intervention=name)
    assert told(results, EQUALIZING).outcome == OPEN


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [(lambda cv, place: 0.3 - cv, HOLDS), (falling, FAILS), (lambda cv, place: 0.7 - cv, FAILS)],
)
def test_shuffling_damages_or_not(results: Path, gain: scenarios.Gain, outcome: str) -> None:
    scenarios.write_heads(results)
    scenarios.write_trials(results, falling)
    # Finetunability rises with the damage, which must not count.
    scenarios.write_trials(results, gain, intervention="shuffle", finetunability=0.9, damage=2.0)
    assert told(results, SHUFFLING).outcome == outcome


def _alternating(cv: float, place: int) -> float:
    return 0.4


@pytest.mark.parametrize(
    ("small", "large", "outcome", "said"),
    [
        (falling, falling, HOLDS, "up to rank 16 the fall grows by"),
        (
            falling,
            lambda cv, place: 0.45 - 0.4 * cv,
            FAILS,
            "up to rank 16 the fall grows by −0.592",
        ),
        (lambda cv, place: 0.2 + cv, falling, FAILS, "there is no fall to mitigate"),
        (_alternating, _alternating, OPEN, "no fall is shown to mitigate"),
    ],
)
def test_rank_mitigates_or_not(
    results: Path, small: scenarios.Gain, large: scenarios.Gain, outcome: str, said: str
) -> None:
    scenarios.write_heads(results)
    scenarios.write_trials(results, small, rank=4)
    scenarios.write_trials(results, large, rank=16)
    verdict = told(results, RANKS)
    assert verdict.outcome == outcome, verdict.sentence
    assert said in verdict.sentence


@pytest.mark.parametrize(
    ("other", "outcome"),
    [(falling, HOLDS), (lambda cv, place: 0.2 + cv, FAILS), (level, OPEN)],
)
def test_it_holds_across_tasks_or_not(results: Path, other: scenarios.Gain, outcome: str) -> None:
    scenarios.write_heads(results)
    scenarios.write_trials(results, falling)
    assert together(results).outcome == MISSING
    scenarios.write_trials(results, other, task="sums")
    verdict = together(results)
    assert verdict.outcome == outcome, verdict.sentence
    assert "pico-64, sums: net gain r = " in verdict.sentence


@pytest.mark.parametrize(
    ("beta", "outcome"), [(0.0, HOLDS), (0.9, FAILS), (-0.6, FAILS), (0.25, OPEN)]
)
def test_updates_depend_on_the_norm_or_not(results: Path, beta: float, outcome: str) -> None:
    scenarios.write_updates(results, beta)
    verdict = told(results, UPDATES)
    assert verdict.outcome == outcome
    assert "says nothing" in verdict.sentence


def _row(**columns: Any) -> dict[str, Any]:
    return {
        "pearson": -0.9, "pearson_low": -0.99, "pearson_high": -0.3, "pearson_pvalue": 0.01,
        "independent": True, "partial_low": None, "partial_high": None, **columns,
    }  # fmt: skip


def test_a_relation_of_two_trends_needs_what_the_step_leaves() -> None:
    assert relation(_row()) == -1
    assert relation(_row(pearson=0.9, pearson_low=0.3, pearson_high=0.99)) == 1
    assert relation(_row(pearson_pvalue=0.2)) is None
    assert relation(_row(pearson_high=0.1)) is None
    assert relation(_row(pearson_low=-0.4, pearson_high=0.3)) == 0
    assert relation(_row(pearson_low=None)) is None
    assert relation(_row(independent=False)) is None
    assert relation(_row(independent=False, partial_low=-0.9, partial_high=0.1)) is None
    assert relation(_row(independent=False, partial_low=-0.9, partial_high=-0.1)) == -1
    assert relation(_row(independent=False, partial_low=0.1, partial_high=0.9)) is None


def test_effects_are_judged_by_their_intervals() -> None:
    assert judge(None, 0.1) == MISSING
    assert judge(Estimate(5.0, None, None, None, 1), 0.1) == OPEN
    assert judge(Estimate(1.0, 0.5, 1.5, 0.01, 3), 0.1) == HOLDS
    assert judge(Estimate(0.05, 0.04, 0.06, 0.01, 3), 0.1) == FAILS
    assert judge(Estimate(0.5, -0.5, 1.5, 0.5, 3), 0.1) == OPEN
    assert judge(Estimate(-1.0, -1.5, -0.5, 0.01, 3), 0.1) == FAILS
