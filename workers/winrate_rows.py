"""The rows of win rates: one of each instruction, and one of the comparison."""

import math
from collections.abc import Mapping
from typing import Any

from jobs.errors import DataError
from jobs.identity import digest
from jobs.winrate_spec import EndpointJudge
from jobs.winrate_work import JudgeCheckpoint, WinrateWork
from workers.judge import Verdict
from workers.kernels.win_rate import length_controlled, win_rate
from workers.measure import Rows

_NO_DIFFICULTIES = "the study names no difficulties of the instructions"

Key = tuple[int, bool]
"""Place of an instruction, and whether the baseline's answer stands first."""


def judgement_row(
    place: int,
    baseline: Mapping[str, Any],
    compared: Mapping[str, Any],
    verdicts: Mapping[Key, Verdict],
) -> dict[str, Any]:
    """Returns the row of one instruction; both orders are on the same scale."""
    first, second = baseline["output"], compared["output"]
    identical = first is not None and first == second
    straight, swapped = (verdicts.get((place, order)) for order in (True, False))
    orders = [
        None if straight is None else straight.preference,
        None if swapped is None or swapped.preference is None else 3 - swapped.preference,
    ]
    mean = None if None in orders else sum(p for p in orders if p is not None) / 2
    told = [v for v in (straight, swapped) if v is not None]
    return {
        "instruction": place,
        "preference": 1.5 if identical else mean,
        "baseline_first": orders[0],
        "baseline_second": orders[1],
        "weighted": len(told) == 2 and all(v.weighted for v in told),
        "identical": identical,
        "n_nonsense": sum(v.nonsense for v in told),
        "baseline_length": None if first is None else len(first),
        "length": None if second is None else len(second),
    }


def winrate_row(
    work: WinrateWork,
    judgements: Rows,
    verdicts: Mapping[Key, Verdict],
    difficulties: list[float] | None,
    spent: float,
) -> dict[str, Any]:
    """Returns the row of the comparison."""
    preferences = [row["preference"] for row in judgements]
    rate = win_rate(preferences)
    if not rate.n:
        raise DataError(
            f"none of {rate.n_null} pairs of answers has a preference: the judge's replies name "
            "neither m nor M, or a checkpoint has no answers",
            "look at the judge's prompt and answer_tokens, and at table `responses`",
        )
    lengths = [(row["baseline_length"], row["length"]) for row in judgements]
    differences = [math.nan if None in pair else pair[0] - pair[1] for pair in lengths]
    minimal = length_controlled(preferences, differences)
    controlled = (
        None if difficulties is None else length_controlled(preferences, differences, difficulties)
    )
    baseline, compared = work.sides
    given = [v.preference for v in verdicts.values() if v.preference is not None]
    weighted = [v.weighted for v in verdicts.values() if v.preference is not None]
    return {
        "revision": compared.revision,
        "step": compared.step,
        "stage": compared.stage,
        "comparison": work.comparison,
        "instructions": work.instructions,
        "start_step": compared.start,
        "baseline_suite": baseline.suite,
        "baseline_model": baseline.model,
        "baseline_revision": baseline.revision,
        "baseline_start_step": baseline.start,
        "judge": _name(work),
        "judge_kind": "endpoint" if isinstance(work.judge, EndpointJudge) else "local",
        "win_rate": rate.rate,
        "stderr": rate.stderr if rate.n > 1 else None,
        "n": rate.n,
        "n_null": rate.n_null,
        "n_wins": rate.wins,
        "n_losses": rate.losses,
        "n_draws": rate.draws,
        "first_rate": 100 * (2 - sum(given) / len(given)) if given else None,
        "weighted": sum(weighted) / len(weighted) if weighted else None,
        "length_controlled": controlled,
        "length_controlled_reason": None if controlled is not None else _NO_DIFFICULTIES,
        "length_minimal": minimal,
        "baseline_length": _mean([first for first, _ in lengths]),
        "length": _mean([second for _, second in lengths]),
        "n_nonsense": sum(row["n_nonsense"] for row in judgements),
        "cost": spent,
    }


def _name(work: WinrateWork) -> str:
    match work.judge:
        case EndpointJudge(model=model):
            return model
        case JudgeCheckpoint(source):
            return digest(source.identity)


def _mean(values: list[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
