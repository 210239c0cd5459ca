"""The derived table `advice`: which checkpoint to fine-tune, and whether geometry can tell.

Invariant: nothing is recommended by geometry whose skill on held-out checkpoints was not shown, or
is not above what the step alone gives; what was measured is listed in any case.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards import advisor_statistics as statistics
from dashboards import query
from dashboards.advisor_table import (
    NO_MORE,
    NO_SKILL,
    NOT_SHOWN,
    SCHEMA,
    SKILL,
    Advice,
    Candidate,
    Judgement,
    advice_rows,
)
from dashboards.correlation_statistics import LEVEL, spearman
from dashboards.finetune_tables import Setting, arm_label, settings_of
from dashboards.finetune_trials import Point, finite, read_arms
from dashboards.predictors import MODEL, Predictor, predictors
from dashboards.series_correlations import TRENDING
from dashboards.turns import Array
from jobs.place import Place

PREDICTORS = ("rankme", "alpha_req", "norm_cv", "overlap_std", "heldout_loss")
"""What may predict net gain. All of it is known before any fine-tuning."""

FEWEST = 3
"""Checkpoints with trials that a series needs to be spoken of."""


def advise(results: str | Path | Place) -> list[Advice]:
    """Judges, for every model and task, whether geometry tells which checkpoint to fine-tune.

    Args:
        results: Folder or URL of the results.

    Returns:
        One for each setting in which plain LoRA ran at `FEWEST` checkpoints or more, in natural
        order of their names.

    Raises:
        StoreError: The place cannot be read.
    """
    arms = read_arms(results)
    if not arms:
        return []
    known = predictors(results)
    settings = settings_of(arms, known)
    for model, losses in _losses(results).items():
        known[model] += losses
    steps = _steps(results)
    found = [_advice(s, known.get(s.model, []), steps.get(s.model, {})) for s in settings]
    return [advice for advice in found if advice is not None]


def advice_table(results: str | Path | Place) -> pa.Table:
    """Returns the table `advice`: one row per candidate, its series' judgement in each.

    Args:
        results: Folder or URL of the results.

    Raises:
        StoreError: The place cannot be read.
    """
    return pa.Table.from_pylist(advice_rows(advise(results)), schema=SCHEMA)


def _advice(
    setting: Setting, known: Sequence[Predictor], steps: Mapping[str, int]
) -> Advice | None:
    arm = setting.reference
    points = [point for point in arm.fixed if point.trials] if arm is not None else []
    if arm is None or len(points) < FEWEST:
        return None
    outcome = np.array([np.mean([t["net_gain"] for t in p.trials.values()]) for p in points])
    usable = _usable(known, points)
    judgement, line = _judge(points, outcome, usable)
    line = line if judgement.verdict == SKILL else None
    chosen = next((p for p in usable if p.name == judgement.predictor), None)
    everything = {point.revision: point.step for point in points} | dict(steps)
    candidates = _candidates(everything, points, chosen, line)
    ranked = _ranked(candidates, recommends=judgement.verdict == SKILL)
    return Advice(f"{setting.label}: {arm_label(arm)}", arm, judgement, ranked)


def _candidates(
    steps: Mapping[str, int],
    points: Sequence[Point],
    chosen: Predictor | None,
    line: statistics.Line | None,
) -> list[Candidate]:
    """Puts together what is known of each checkpoint, by revision."""
    tried = {point.revision: point for point in points}
    values: Mapping[str, float] = {} if chosen is None else chosen.values
    ends = [values[revision] for revision in tried] if values else []
    candidates = []
    for revision, step in steps.items():
        at, point = values.get(revision), tried.get(revision)
        candidates.append(
            Candidate(
                step,
                revision,
                point.over_seeds("net_gain") if point else None,
                point.over_seeds("loss_post") if point else None,
                at,
                line.predict(at) if line is not None and at is not None else None,
                None if at is None else not min(ends) <= at <= max(ends),
            )
        )
    return candidates


def _usable(known: Sequence[Predictor], points: Sequence[Point]) -> list[Predictor]:
    """Returns one predictor of each name that is known at all checkpoints with trials.

    Of several texts' the one that most checkpoints have.
    """
    found: list[Predictor] = []
    for name in PREDICTORS:
        whole = [
            p
            for p in known
            if p.name == name and all(point.revision in p.values for point in points)
        ]
        if whole:
            found.append(max(whole, key=lambda p: len(p.values)))
    return found


def _judge(
    points: Sequence[Point], outcome: Array, usable: Sequence[Predictor]
) -> tuple[Judgement, statistics.Line | None]:
    """Judges what the predictors are worth, and draws the line of the chosen one."""
    n, names = len(points), ", ".join(predictor.name for predictor in usable)
    steps = np.array([point.step for point in points], dtype=np.float64)
    if n < statistics.FEWEST_TO_JUDGE or not usable:
        return Judgement(n, names), None
    x = np.array([[p.values[point.revision] for point in points] for p in usable])
    predicted = statistics.held_out(x, outcome[:, None])[:, 0]
    by_step = statistics.held_out(np.log1p(steps)[None], outcome[:, None])[:, 0]
    place = int(statistics.chosen_predictor(x, outcome[:, None])[0])
    skill, step_skill = (statistics.skill(outcome, p) for p in (predicted, by_step))
    low, high = statistics.skill_interval(outcome, predicted)
    pvalue = statistics.skill_pvalue(x, outcome)
    trends = [abs(spearman(series, steps) or 0.0) for series in (x[place], outcome)]
    error = float(np.sqrt(np.mean((outcome - predicted) ** 2)))
    judgement = Judgement(
        n=n,
        predictors=names,
        predictor=usable[place].name,
        verdict=_verdict(skill, step_skill, pvalue, low),
        skill=skill,
        skill_low=low if skill is not None else None,
        skill_high=high if skill is not None else None,
        skill_pvalue=pvalue if skill is not None else None,
        spearman=spearman(predicted, outcome),
        skill_log_step=step_skill,
        regret=statistics.regret(outcome, predicted),
        regret_log_step=statistics.regret(outcome, by_step),
        regret_last=statistics.regret(outcome, steps),
        independent=min(trends) < TRENDING,
    )
    return judgement, statistics.Line(x[place], outcome, error)


def _verdict(
    skill: float | None, step_skill: float | None, pvalue: float | None, low: float | None
) -> str:
    if skill is None or skill <= 0:
        return NO_SKILL
    shown = low > 0 if low is not None else pvalue is not None and pvalue <= LEVEL
    if not shown:
        return NOT_SHOWN
    return NO_MORE if step_skill is not None and step_skill >= skill else SKILL


def _ranked(candidates: Sequence[Candidate], *, recommends: bool) -> tuple[Candidate, ...]:
    """Orders candidates, and marks the first that needs no extrapolation if one is recommended."""

    def key(candidate: Candidate) -> tuple[bool, float, int, str]:
        expected = candidate.expected
        return (expected is None, -(expected or 0.0), candidate.step, candidate.revision)

    ranked, chosen = [], not recommends
    for place, candidate in enumerate(sorted(candidates, key=key), start=1):
        known = candidate.net_gain is not None or candidate.extrapolated is False
        this = not chosen and candidate.expected is not None and known
        chosen = chosen or this
        known_place = None if candidate.expected is None else place
        ranked.append(replace(candidate, place=known_place, recommended=this))
    return tuple(ranked)


def _losses(results: str | Path | Place) -> dict[tuple[Any, ...], list[Predictor]]:
    """Reads each text's held-out loss by suite, model and stage."""
    text = ("task", "sequences_fingerprint", "forward_dtype")
    columns = {*MODEL, *text, "revision", "metric", "value"}
    series: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in query.load("evals", results, columns=columns).to_pylist():
        if row["metric"] == "loss" and finite(row["value"]):
            key = tuple(row[name] for name in (*MODEL, *text))
            series[key].setdefault(row["revision"], row["value"])
    found: dict[tuple[Any, ...], list[Predictor]] = defaultdict(list)
    for key, values in series.items():
        found[key[: len(MODEL)]].append(Predictor("heldout_loss", values))
    return found


def _steps(results: str | Path | Place) -> dict[tuple[Any, ...], dict[str, int]]:
    """Reads the steps of all measured checkpoints by suite, model and stage, and by revision."""
    found: dict[tuple[Any, ...], dict[str, int]] = defaultdict(dict)
    for table in ("head", "geometry", "evals"):
        for row in query.load(table, results, columns={*MODEL, "revision", "step"}).to_pylist():
            if row["step"] is not None:
                found[tuple(row[name] for name in MODEL)][row["revision"]] = row["step"]
    return found
