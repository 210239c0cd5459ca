"""Verdicts on what post-training does: each comes out each way, and says where it can't."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dashboards.finetune_judgement import FAILS, HOLDS, MISSING, OPEN, Verdict
from dashboards.passk_comparisons import comparisons
from dashboards.passk_verdicts import (
    BASE_BEYOND,
    BASE_OVERTAKES,
    BEYOND,
    OVERTAKES,
    RAISES,
    READY,
)
from dashboards.posttrain_read import read_posttrained
from dashboards.posttrain_verdicts import CLAIMS, verdicts
from dashboards.tables import read
from tests.dashboards import posttrain_scenarios as scenarios
from tests.dashboards import synthetic
from tests.dashboards.posttrain_scenarios import RISE_AND_CROSS

FLAT = dict.fromkeys(scenarios.METHODS, 0.0)
AS_CLAIMED = {"sft": 5.0, "dpo": 3.0, "rlvr": -4.0}
OPPOSITE = {method: -change for method, change in AS_CLAIMED.items()}
EVEN = (0.2, 0.4, 0.6, 0.8)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.start(tmp_path / "results")


def judged(results: Path) -> dict[str, Verdict]:
    found = read_posttrained(read(results))
    assert found is not None
    compared, refused = comparisons(found)
    ((_, told),) = verdicts(found, compared, refused)
    claims = {verdict.claim: verdict for verdict in told}
    assert len(claims) == len(told)
    return claims


def geometric(results: Path) -> list[str]:
    told = judged(results)
    return [told[claim].outcome for _, claim in CLAIMS.values()]


def ends(rlvr: Sequence[float], before: Sequence[float] = EVEN) -> dict[str, Sequence[float]]:
    return {"start": before, "sft": before, "dpo": before, "rlvr": rlvr}


@pytest.mark.parametrize(
    ("changes", "own", "outcome"),
    [
        (AS_CLAIMED, 0.05, HOLDS),
        (OPPOSITE, 0.05, FAILS),
        (FLAT, 0.05, FAILS),
        (AS_CLAIMED, 20.0, OPEN),
        # Surely there, and less than 1 % of 40.
        ({"sft": 0.2, "dpo": 0.2, "rlvr": -0.2}, 0.01, FAILS),
    ],
)
def test_stages_change_rankme_or_not(
    results: Path, changes: dict[str, float], own: float, outcome: str
) -> None:
    scenarios.write_chain(results, changes, own=own)
    assert geometric(results) == [outcome] * 3
    sentence = judged(results)[CLAIMS["sft"][1]].sentence
    assert "RankMe goes from 40.00 to" in sentence
    assert "paired, 1 seed, so nothing is known of others" in sentence
    assert "of 2 changes between its checkpoints go up" in sentence
    assert "α-ReQ changes by" in sentence


def test_only_pairing_decides_a_small_change(results: Path) -> None:
    # Each value's own error is 1, so that separate errors would leave 2 undecided.
    scenarios.write_chain(results, {**FLAT, "sft": 2.0})
    assert geometric(results)[0] == HOLDS


def test_without_errors_nothing_is_decided(results: Path) -> None:
    start = scenarios.begin()
    scenarios.write_log(results, start, "sft")
    for at, rankme in ((start, 40.0), (scenarios.checkpoint("sft", 10), 60.0)):
        cell = synthetic.cell_id("bare", *at.values())
        row = {**at, "cell_id": cell, "dataset": "heldout", "layer": -1, "rankme": rankme}
        synthetic.write(results, "geometry", [row])
    verdict = judged(results)[CLAIMS["sft"][1]]
    assert verdict.outcome == OPEN
    assert "without a known standard error" in verdict.sentence


def test_other_sequences_are_not_compared(results: Path) -> None:
    start = scenarios.begin()
    scenarios.write_log(results, start, "sft")
    scenarios.write_geometry(results, start, 40.0)
    at = scenarios.checkpoint("sft", 10)
    scenarios.write_geometry(results, at, 60.0, sequences_fingerprint="b" * 64)
    assert geometric(results) == [MISSING] * 3


@pytest.mark.parametrize(("spread", "outcome"), [(0.1, HOLDS), (8.0, OPEN)])
def test_seeds_must_agree(results: Path, spread: float, outcome: str) -> None:
    scenarios.write_chain(results, AS_CLAIMED, seeds=(0, 7, 42), spread=spread)
    assert geometric(results) == [outcome] * 3
    sentence = judged(results)[CLAIMS["rlvr"][1]].sentence
    assert "over seeds −4 [" in sentence
    assert "3 seeds (each: " in sentence
    assert "0.07" in sentence


def test_a_single_stage_leaves_the_others_not_measured(results: Path) -> None:
    passk = {"start": EVEN, "sft": EVEN}
    scenarios.write_chain(results, AS_CLAIMED, methods=("sft",), passk=passk)
    told = judged(results)
    assert geometric(results) == [HOLDS, MISSING, MISSING]
    assert {told[claim].outcome for claim in (READY, RAISES, OVERTAKES, BEYOND)} == {MISSING}
    assert "no RLVR stage" in told[RAISES].sentence


def test_logs_alone_leave_every_claim_not_measured(results: Path) -> None:
    scenarios.write_log(results, scenarios.begin(), "rlvr")
    assert {verdict.outcome for verdict in judged(results).values()} == {MISSING}


def test_a_start_that_is_not_known_is_said(results: Path) -> None:
    for step, rankme in ((3, 40.0), (8, 36.0)):
        scenarios.write_geometry(results, scenarios.checkpoint("rlvr", step), rankme, draw=step)
    scenarios.write_passk(results, scenarios.checkpoint("rlvr", 8), EVEN)
    verdict = judged(results)[CLAIMS["rlvr"][1]]
    assert verdict.outcome == HOLDS
    assert "counts from its first checkpoint" in verdict.sentence


@pytest.mark.parametrize(
    ("rlvr", "raises", "overtakes"),
    [
        (RISE_AND_CROSS["rlvr"], HOLDS, HOLDS),
        ((0.5, 0.6, 0.7, 0.9), HOLDS, FAILS),
        ((0.1, 0.3, 0.5, 0.7), FAILS, FAILS),
        (EVEN, FAILS, FAILS),
    ],
)
def test_rlvr_raises_pass_and_is_overtaken_or_not(
    results: Path, rlvr: Sequence[float], raises: str, overtakes: str
) -> None:
    scenarios.write_chain(results, FLAT, passk=ends(rlvr))
    told = judged(results)
    assert (told[RAISES].outcome, told[OVERTAKES].outcome) == (raises, overtakes)
    # The chain's base has the same pass@k as the start of RLVR.
    assert told[BASE_OVERTAKES].outcome == overtakes
    assert told[BASE_BEYOND].outcome == told[BEYOND].outcome
    assert "guessing 0.05" in told[RAISES].sentence


def test_a_crossover_is_told_with_its_place_and_share(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=RISE_AND_CROSS)
    sentence = judged(results)[OVERTAKES].sentence
    assert "crossover at k = 13.6" in sentence
    assert "100% of bootstrap draws have one (k in [" in sentence


def test_scattered_problems_decide_nothing(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=ends(EVEN))
    _scatter(results, (0.22, 0.4, 0.6, 0.78), 2.0)
    told = judged(results)
    assert told[RAISES].outcome == told[OVERTAKES].outcome == told[BEYOND].outcome == OPEN


def _scatter(results: Path, means: Sequence[float], noise: float) -> None:
    scenarios.write_passk(results, scenarios.checkpoint("rlvr", 10, taken=20), means, noise=noise)


def test_few_problems_decide_nothing(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=RISE_AND_CROSS)
    for at, means in (
        (scenarios.checkpoint("dpo", 10, taken=10), EVEN),
        (scenarios.checkpoint("rlvr", 10, taken=20), RISE_AND_CROSS["rlvr"]),
    ):
        scenarios.write_passk(results, at, means, problems=5)
    told = judged(results)
    for claim in (RAISES, OVERTAKES, BEYOND):
        assert told[claim].outcome == OPEN
        assert "5 problems, too few to decide" in told[claim].sentence


def test_who_is_behind_has_no_lead_to_exceed_guessing(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=ends((0.5, 0.7, 0.9, 0.95)))
    told = judged(results)[BEYOND]
    assert told.outcome == FAILS
    assert "it isn't ahead: −" in told.sentence


def test_equals_have_no_lead_either(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=ends(EVEN))
    scenarios.write_passk(results, scenarios.checkpoint("rlvr", 10, taken=20), EVEN)
    told = judged(results)[BEYOND]
    assert told.outcome == FAILS
    assert "it isn't ahead: +0 [+0, +0]" in told.sentence


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(0.05, 0.05, HOLDS), (0.30, 0.02, FAILS), (0.243, 0.05, OPEN), (None, None, MISSING)],
)
def test_a_lead_exceeds_guessing_or_not(
    results: Path, before: float | None, after: float | None, outcome: str
) -> None:
    # The lead at the largest k is 0.2 ± about 0.01.
    scenarios.write_chain(results, FLAT, passk=RISE_AND_CROSS)
    dpo, rlvr = (
        scenarios.checkpoint("dpo", 10, taken=10),
        scenarios.checkpoint("rlvr", 10, taken=20),
    )
    scenarios.write_passk(results, dpo, EVEN, guessing=before)
    scenarios.write_passk(results, rlvr, RISE_AND_CROSS["rlvr"], guessing=after)
    told = judged(results)
    assert told[BEYOND].outcome == outcome, told[BEYOND].sentence
    assert told[OVERTAKES].outcome == HOLDS


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.95, HOLDS), (0.949, FAILS), (0.2, FAILS), (None, MISSING)]
)
def test_answers_are_ready_or_not(results: Path, share: float | None, outcome: str) -> None:
    scenarios.write_chain(results, FLAT, passk=RISE_AND_CROSS, well_formed=share)
    told = judged(results)
    assert told[READY].outcome == outcome
    assert ("tell skill from format" in told[RAISES].sentence) == (outcome != HOLDS)


def test_seeds_may_differ_in_the_precondition(results: Path) -> None:
    scenarios.write_chain(results, FLAT, seeds=(0, 7), passk=RISE_AND_CROSS)
    at = scenarios.checkpoint("dpo", 10, "pico-64-seed7", 10)
    scenarios.write_passk(results, at, EVEN, well_formed=0.5)
    assert judged(results)[READY].outcome == OPEN


def test_seeds_are_compared_one_by_one(results: Path) -> None:
    scenarios.write_chain(results, FLAT, seeds=(0, 7, 42), passk=RISE_AND_CROSS)
    told = judged(results)
    assert (told[RAISES].outcome, told[OVERTAKES].outcome) == (HOLDS, HOLDS)
    assert "over seeds +0.3 [" in told[RAISES].sentence
    assert "and 3 of 3 seeds" in told[OVERTAKES].sentence
    last = scenarios.checkpoint("rlvr", 10, "pico-64-seed42", 20)
    scenarios.write_passk(results, last, (0.0, 0.1, 0.6, 0.9))
    told = judged(results)
    # Two of three seeds gain, one loses: problems agree on the mean, seeds don't.
    assert (told[RAISES].outcome, told[OVERTAKES].outcome) == (OPEN, OPEN)
    assert "and 2 of 3 seeds" in told[OVERTAKES].sentence


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"template_fingerprint": "u" * 64}, "other prompts or answers"),
        ({"n_samples": 64}, "other numbers of samples"),
        ({"temperature": 0.6}, "other temperatures"),
        ({"n_samples": 64, "temperature": 0.6}, "other numbers of samples and temperatures"),
        ({"top_p": 0.9}, "other nuclei"),
        ({"problem_pass_at_k": None}, "values of each problem are missing"),
        ({"problem_pass_at_k": [0.5] * 3}, "other numbers of problems"),
    ],
)
def test_what_is_not_comparable_is_not_compared(
    results: Path, columns: dict[str, Any], reason: str
) -> None:
    scenarios.write_log(results, scenarios.begin(), "dpo")
    scenarios.write_log(results, scenarios.checkpoint("dpo", 10), "rlvr")
    scenarios.write_passk(results, scenarios.checkpoint("dpo", 10), EVEN)
    rlvr = scenarios.checkpoint("rlvr", 10, taken=10)
    scenarios.write_passk(results, rlvr, RISE_AND_CROSS["rlvr"], **columns)
    told = judged(results)
    for claim in (RAISES, OVERTAKES, BEYOND):
        assert told[claim].outcome == MISSING
        assert f"sums: not comparable, {reason}" in told[claim].sentence
    assert told[READY].outcome == HOLDS


def test_k_that_only_one_has_is_left_out(results: Path) -> None:
    scenarios.write_chain(results, FLAT, passk=RISE_AND_CROSS)
    rlvr = scenarios.checkpoint("rlvr", 10, taken=20)
    scenarios.write_passk(results, rlvr, (0.55, 0.58), k=(4, 16))
    told = judged(results)
    assert "pass@1 wasn't asked for" in told[RAISES].sentence
    assert told[RAISES].outcome == MISSING
    assert "pass@16 from 0.6000 to 0.5800" in told[OVERTAKES].sentence
