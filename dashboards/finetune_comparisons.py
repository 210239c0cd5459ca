"""Rows that compare arms of fine-tuning in pairs: same checkpoint, same seed, one thing changed.

Intervals over seeds say how sure the difference is at these checkpoints of this run; another
training run may give another one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dashboards.correlation_statistics import Estimate, estimate, slope
from dashboards.finetune_tables import (
    Finetuned,
    Setting,
    arm_label,
    correlations_of,
    intervention_label,
    is_plain,
    with_interval,
)
from dashboards.finetune_trials import OUTCOMES, Arm, Row, has_outcome, is_complete, paired

Differences = Mapping[tuple[int, str, int], float]
"""By step, revision and seed."""


def bases(setting: Setting, rate: str = "fixed") -> list[tuple[Arm, list[Arm]]]:
    """Returns each plain arm that has interventions beside it, with them.

    Args:
        setting: Its arms.
        rate: Which trials count, one of `RATES`.

    Returns:
        The plain arms in the order of `Setting.plain`.
    """
    found = []
    for plain in setting.plain:
        beside = [
            arm
            for arm in setting.arms
            if arm.labels["method"] == "lora"
            and not is_plain(arm)
            and _comparable(arm, plain, rate)
        ]
        if beside:
            found.append((plain, beside))
    return found


def causal_rows(setting: Setting, rate: str = "fixed") -> list[Row]:
    """Compares interventions on the norms with none, at each checkpoint (Table 2).

    Args:
        setting: Its arms.
        rate: Which trials count, one of `RATES`.

    Returns:
        Per plain arm, checkpoint and intervention: `norm_cv`; finetunability, damage, net_gain with
        t-intervals over seeds; `change_percent` of finetunability; and paired differences from
        `none` of both outcomes, with t-intervals over the seeds that both have.
    """
    rows = []
    for plain, beside in bases(setting, rate):
        for point in plain.points(rate):
            shared = {
                "setting": setting.label,
                "arm": arm_label(plain),
                "step": point.step,
                "norm_cv": setting.norm_cv.get(point.revision),
            }
            for arm in (plain, *beside):
                here = [p for p in arm.points(rate) if p.revision == point.revision]
                if not here or not here[0].trials:
                    continue
                row = shared | {"intervention": intervention_label(arm), "lr": arm.lr}
                for name in (*OUTCOMES, "damage"):
                    row |= with_interval(name, here[0].over_seeds(name))
                row["change_percent"] = None
                for name in OUTCOMES:
                    pairs = {} if arm is plain else paired([point], here, name)
                    row |= with_interval(f"{name}_difference", estimate(list(pairs.values())))
                    if pairs and name == "finetunability":
                        base = np.mean([point.trials[seed][name] for _, _, seed in pairs])
                        change = 100 * np.mean(list(pairs.values()))
                        row["change_percent"] = float(change / base) if base else None
                rows.append(row)
    return rows


def rank_rows(found: Finetuned, setting: Setting) -> list[Row]:
    """Compares ranks of plain LoRA on the same targets (Table 3).

    Args:
        found: What was measured.
        setting: Its arms.

    Returns:
        Per targets with several ranks, rank and outcome: r of norm CV with its interval and p,
        `spread` (largest − smallest mean over checkpoints), `slope` on norm CV with a t-interval
        over seeds, and `difference` from the smallest rank, paired over checkpoints and seeds.
    """
    rows = []
    for arms in ranked(setting):
        for arm in arms:
            for outcome in OUTCOMES:
                wanted = {"rate": "fixed", "predictor": "norm_cv", "outcome": outcome}
                known = correlations_of(found, arm, **wanted)
                means = [e.mean for p in arm.fixed if (e := p.over_seeds(outcome)) is not None]
                pairs = {} if arm is arms[0] else paired(arms[0].fixed, arm.fixed, outcome)
                fitted = list(slopes(setting, arm, outcome).values())
                rows.append(
                    {
                        "setting": setting.label,
                        "targets": arm.labels["targets"],
                        "rank": arm.labels["rank"],
                        "outcome": outcome,
                        "spread": max(means) - min(means) if means else None,
                        **_correlation(known),
                        **with_interval("slope", estimate(fitted)),
                        **with_interval("difference", estimate(list(pairs.values()))),
                    }
                )
    return rows


def ranked(setting: Setting) -> list[list[Arm]]:
    """Returns plain arms on the same targets that differ by rank, the smallest first."""
    groups: dict[tuple[Any, ...], list[Arm]] = defaultdict(list)
    for arm in setting.plain:
        groups[arm.labels["targets"], arm.lr].append(arm)
    return [
        sorted(arms, key=lambda arm: arm.labels["rank"])
        for arms in groups.values()
        if len(arms) > 1
    ]


def slopes(setting: Setting, arm: Arm, outcome: str = "net_gain") -> dict[int, float]:
    """Returns each seed's slope of an outcome on norm CV, over at least three checkpoints."""
    return _by_seed_slopes(
        setting,
        {
            (point.step, point.revision, seed): trial[outcome]
            for point in arm.fixed
            for seed, trial in point.trials.items()
        },
    )


def growth(setting: Setting, differences: Differences) -> Estimate | None:
    """Returns how a difference grows with norm CV: the mean of the seeds' slopes."""
    return estimate(list(_by_seed_slopes(setting, differences).values()))


def pooled(differences: Differences) -> Estimate | None:
    """Returns the mean over seeds of each seed's mean over checkpoints."""
    seeds: dict[int, list[float]] = defaultdict(list)
    for (_, _, seed), value in differences.items():
        seeds[seed].append(value)
    return estimate([float(np.mean(values)) for values in seeds.values()])


def remedy_rows(setting: Setting, rate: str = "fixed") -> list[Row]:
    """Compares methods other than LoRA with LoRA of the same rank on the same targets.

    Args:
        setting: Its arms.
        rate: Which trials count, one of `RATES`.

    Returns:
        Per method and checkpoint, then over all of them (`step` null): net_gain of both and its
        paired difference, with t-intervals over the seeds.
    """
    rows = []
    for arm in setting.arms:
        if arm.labels["method"] == "lora" or arm.labels["intervention"] != "none":
            continue
        for plain in (plain for plain in setting.plain if _comparable(arm, plain, rate)):
            pairs = paired(plain.points(rate), arm.points(rate), "net_gain")
            if not pairs:
                continue
            labels = {"setting": setting.label, "arm": arm_label(arm), "lr": arm.lr}
            labels |= {"method": arm.labels["method"], "groups": arm.labels["groups"]}
            points = {point.revision: point for point in plain.points(rate)}
            for point in arm.points(rate):
                here = [value for (_, name, _), value in pairs.items() if name == point.revision]
                if here:
                    row = labels | {"step": point.step}
                    row |= {"norm_cv": setting.norm_cv.get(point.revision)}
                    row |= with_interval("net_gain", point.over_seeds("net_gain"))
                    row |= with_interval("plain", points[point.revision].over_seeds("net_gain"))
                    rows.append(row | with_interval("difference", estimate(here)))
            both = {"step": None, "norm_cv": None}
            for name, chosen in (("net_gain", arm), ("plain", plain)):
                values = {
                    (p.step, p.revision, seed): trial["net_gain"]
                    for p in chosen.points(rate)
                    for seed, trial in p.trials.items()
                    if (p.step, p.revision, seed) in pairs
                }
                both |= with_interval(name, pooled(values))
            rows.append(labels | both | with_interval("difference", pooled(pairs)))
    return rows


def rate_rows(setting: Setting) -> list[Row]:
    """Gives the best learning rate of every point that was searched, beside the fixed one.

    Args:
        setting: Its arms.

    Returns:
        Per arm and checkpoint: `lrs` (each seed's best), `tried`, `edge` (lowest, highest, or
        null: whether some seed's best is at an end of what was tried), net_gain at the best and at
        the fixed rate and their paired difference, `n_stopped` and `n_diverged` trials.
    """
    return [row for arm in setting.arms for row in _searched(setting, arm)]


def _searched(setting: Setting, arm: Arm) -> Iterator[Row]:
    searches = arm.searches()
    fixed = {point.revision: point for point in arm.fixed}
    for point in arm.best:
        trials = [t for key, found in searches.items() if key[1] == point.revision for t in found]
        tried = sorted({trial["lr"] for trial in trials})
        lrs = [trial["lr"] for _, trial in sorted(point.trials.items())]
        ends = [n for n, lr in (("lowest", tried[0]), ("highest", tried[-1])) if lr in lrs]
        here = [fixed[point.revision]] if point.revision in fixed else []
        pairs = paired(here, [point], "net_gain")
        yield {
            "setting": setting.label,
            "arm": arm_label(arm),
            "step": point.step,
            "lrs": lrs,
            "tried": tried,
            "edge": " and ".join(ends) or None,
            "fixed_lr": arm.lr,
            "n_stopped": sum(has_outcome(t) and not is_complete(t) for t in trials),
            "n_diverged": sum(not has_outcome(t) for t in trials),
            **with_interval("net_gain", point.over_seeds("net_gain")),
            **with_interval("fixed", here[0].over_seeds("net_gain") if here else None),
            **with_interval("difference", estimate(list(pairs.values()))),
        }


def _comparable(arm: Arm, other: Arm, rate: str) -> bool:
    """Tells whether two arms have the same adapters and, where it is fixed, learning rate."""
    same = all(arm.labels[name] == other.labels[name] for name in ("rank", "targets"))
    return same and (rate == "best" or arm.lr == other.lr)


def _by_seed_slopes(setting: Setting, values: Differences) -> dict[int, float]:
    seeds: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for (_, revision, seed), value in values.items():
        if revision in setting.norm_cv:
            seeds[seed].append((setting.norm_cv[revision], value))
    found = {}
    for seed, pairs in seeds.items():
        x, y = np.array(pairs, dtype=np.float64).T
        fitted = slope(x, y) if len(pairs) > 2 else None
        if fitted is not None:
            found[seed] = fitted
    return found


def _correlation(rows: list[Row]) -> Row:
    names = ("n", "pearson", "pearson_low", "pearson_high", "pearson_pvalue", "independent")
    return {name: rows[0][name] if rows else None for name in (*names, "partial_given_log_step")}
