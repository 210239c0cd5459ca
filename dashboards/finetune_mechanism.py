"""What the norm paper's mechanism says (Sections 4.6 and 5), and its rival, noise on the weights.

The paper's ρ = ‖Δw‖/‖w‖ falls with the norm wherever ‖Δw‖ doesn't grow in proportion to it, so the
slope β of ln ‖Δw‖ on ln ‖w‖ is what says something: that of ρ is β − 1 identically.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dashboards.correlation_statistics import estimate, fisher_interval
from dashboards.finetune_tables import (
    SEMANTICS,
    Finetuned,
    Setting,
    arm_label,
    is_plain,
    with_interval,
)
from dashboards.finetune_trials import Arm, Row, finite
from dashboards.predictors import MODEL

_SHOWN_TOKENS = 10
BETAS = ("beta", "beta_seen", "beta_unseen", "beta_given_count")


def on_head(setting: Setting) -> list[Arm]:
    """Returns the arms whose trials at the fixed rate moved the head, plain ones first."""
    arms = [arm for arm in setting.arms if any(p.over_seeds("beta") for p in arm.fixed)]
    return sorted(arms, key=lambda arm: not is_plain(arm))


def beta_rows(setting: Setting) -> list[Row]:
    """Gives the slope of ln ‖Δw‖ on ln ‖w‖ at each checkpoint.

    Args:
        setting: Its arms.

    Returns:
        Per arm and checkpoint: `BETAS` with t-intervals over the seeds, and `beta_se`, the mean
        standard error of one trial's slope over the tokens.
    """
    rows = []
    for arm in on_head(setting):
        for point in arm.fixed:
            row: Row = {"setting": setting.label, "arm": arm_label(arm), "step": point.step}
            for name in BETAS:
                row |= with_interval(name, point.over_seeds(name))
            error = point.over_seeds("beta_se")
            rows.append(row | {"beta_se": None if error is None else error.mean})
    return rows


def update_rows(found: Finetuned, setting: Setting) -> list[Row]:
    """Averages updates of the rows of the head by norm decile, at the last checkpoint.

    Args:
        found: What was measured.
        setting: Its arms.

    Returns:
        Per plain arm, `tokens_of` and `decile`: mean norm, ‖Δw‖ and ρ over the seeds with
        t-intervals, and `expected_relative`, what ρ would be if all tokens moved as far as the
        middle deciles' do.
    """
    rows = []
    for arm in on_head(setting):
        if not is_plain(arm):
            continue
        last = [point for point in arm.fixed if point.trials][-1]
        cells = {trial["cell_id"] for trial in last.trials.values()}
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in found.updates:
            if row["cell_id"] in cells:
                groups[row["tokens_of"], row["decile"]].append(row)
        labels = {"setting": setting.label, "arm": arm_label(arm), "step": last.step}
        means = [_decile(key, groups[key]) for key in sorted(groups)]
        for kind in dict.fromkeys(row["tokens_of"] for row in means):
            series = [row for row in means if row["tokens_of"] == kind and row["update_mean"]]
            middle = series[len(series) // 2]["update_mean"] if series else None
            rows += [
                labels
                | row
                | {"expected_relative": middle / row["norm_mean"] if row["norm_mean"] else None}
                for row in series
            ]
    return rows


def semantics_rows(found: Finetuned) -> list[Row]:
    """Says what the norms of each model's last head go with (Section 4.6).

    Args:
        found: What was measured.

    Returns:
        One row per model: columns of `head`, intervals of Pearson's r by Fisher's z over the
        tokens, the norm range of the first checkpoint and the largest.
    """
    rows = []
    for head in _by_model(found.head):
        last = head[-1]
        ranges = [row["norm_range"] for row in head if finite(row["norm_range"])]
        row = {name: last[name] for name in (*MODEL, "step", *SEMANTICS)}
        for name in ("token_id", "unigram"):
            r, n = last[f"pearson_norm_{name}"], last["n_tokens"] or 0
            ends = fisher_interval(r if finite(r) else None, n)
            row[f"pearson_norm_{name}_low"], row[f"pearson_norm_{name}_high"] = ends
        for name in ("highest_norm_tokens", "lowest_norm_tokens"):
            row[name] = (last[name] or [])[:_SHOWN_TOKENS]
        row["first_norm_range"] = ranges[0] if ranges else None
        row["largest_norm_range"] = max(ranges, default=None)
        rows.append(row)
    return rows


def sensitivity_rows(found: Finetuned) -> list[Row]:
    """Averages what noise on the weights costs over its draws.

    Args:
        found: What was measured.

    Returns:
        One row per model, text, scale and checkpoint, with a t-interval over the draws.
    """
    labels = (*MODEL, "dataset", "sequences_fingerprint", "forward_dtype", "scale", "step")
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in found.sensitivity:
        if finite(row["loss_increase"]):
            groups[tuple(row[name] for name in labels)].append(row["loss_increase"])
    return [
        dict(zip(labels, key, strict=True)) | with_interval("loss_increase", estimate(values))
        for key, values in groups.items()
    ]


def _decile(key: tuple[str, int], rows: list[Row]) -> dict[str, Any]:
    row: Row = {"tokens_of": key[0], "decile": key[1], "n": rows[0]["n"]}
    for name in ("norm_mean", "update_mean", "relative_update_mean"):
        values = [found[name] for found in rows if finite(found[name])]
        row |= with_interval(name, estimate(values))
    return row


def _by_model(rows: Sequence[Row]) -> Iterable[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in MODEL)].append(row)
    return groups.values()
