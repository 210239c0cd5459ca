"""What the report on fine-tunability is made from, and its correlations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboards import query
from dashboards.correlation_statistics import Estimate
from dashboards.finetune_trials import SETTING, Arm, Row, read_arms
from dashboards.predictors import MODEL, Predictor, predictors
from dashboards.tables import natural
from jobs.place import Place

_PAPERS_RANK = 8
SEMANTICS = (
    "n_tokens",
    "norm_range",
    "pearson_norm_token_id",
    "spearman_norm_token_id",
    "unigram_dataset",
    "pearson_norm_unigram",
    "spearman_norm_unigram",
    "highest_norm_tokens",
    "lowest_norm_tokens",
)
"""Columns of `head` that say what norms go with."""


@dataclass(frozen=True)
class Setting:
    """Arms that are compared: one model, one task, one way of training.

    Attributes:
        label: Its name for people.
        model: Suite, model and stage.
        task: What is learned.
        arms: Its arms.
        norm_cv: Norm CV of the model's head by revision.
        overlap_std: Standard deviation of the overlaps of its rows, likewise.
    """

    label: str
    model: tuple[str, str, str]
    task: str
    arms: tuple[Arm, ...]
    norm_cv: dict[str, float]
    overlap_std: dict[str, float] = field(default_factory=dict)

    @property
    def plain(self) -> list[Arm]:
        """LoRA on untouched weights, first what the paper does: many checkpoints, not the head."""
        arms = [arm for arm in self.arms if is_plain(arm)]
        return sorted(arms, key=_how_far_from_the_papers)

    @property
    def reference(self) -> Arm | None:
        """The first of them."""
        return next(iter(self.plain), None)


@dataclass(frozen=True)
class Finetuned:
    """What the report on fine-tunability is made from.

    Attributes:
        settings: All of them, in natural order.
        correlations: Rows of `correlations`.
        head: Rows of `head` of models that were fine-tuned, by step; token norms left out.
        updates: Rows of `updates`.
        sensitivity: Rows of `sensitivity` of those models.
    """

    settings: tuple[Setting, ...]
    correlations: list[Row]
    head: list[Row]
    updates: list[Row]
    sensitivity: list[Row]


def read_finetuned(results: str | Path | Place) -> Finetuned | None:
    """Reads what was fine-tuned and what stands beside it.

    Args:
        results: Folder or URL of the results.

    Returns:
        The rows; None where nothing was fine-tuned.

    Raises:
        StoreError: The place cannot be read.
    """
    arms = read_arms(results)
    if not arms:
        return None
    settings = settings_of(arms, predictors(results))
    models = {setting.model for setting in settings}
    return Finetuned(
        settings=settings,
        correlations=query.load("correlations", results).to_pylist(),
        head=_of(models, "head", results, {*MODEL, "revision", "step", *SEMANTICS}),
        updates=query.load("updates", results).to_pylist(),
        sensitivity=_of(models, "sensitivity", results, None),
    )


def settings_of(
    arms: Iterable[Arm], known: Mapping[tuple[Any, ...], Sequence[Predictor]]
) -> tuple[Setting, ...]:
    """Puts arms that are compared together.

    Args:
        arms: All arms.
        known: Predictors by model, as `predictors` reads them.

    Returns:
        The settings, in natural order of their names.
    """
    groups: dict[tuple[Any, ...], list[Arm]] = defaultdict(list)
    for arm in arms:
        groups[arm.setting].append(arm)
    names = _names(groups)
    settings = []
    for key, members in groups.items():
        labels = members[0].labels
        model = (labels["suite"], labels["model"], labels["stage"])
        norm_cv, overlap_std = (
            next((dict(p.values) for p in known.get(model, ()) if p.name == name), {})
            for name in ("norm_cv", "overlap_std")
        )
        label, task = names[key], labels["task"]
        settings.append(Setting(label, model, task, tuple(members), norm_cv, overlap_std))
    return tuple(sorted(settings, key=lambda setting: natural(setting.label)))


def is_plain(arm: Arm) -> bool:
    """Tells whether an arm is LoRA on untouched weights."""
    return (arm.labels["method"], arm.labels["intervention"]) == ("lora", "none")


def arm_label(arm: Arm) -> str:
    """Names an arm for people."""
    labels = arm.labels
    changed = "" if labels["intervention"] == "none" else f", {intervention_label(arm)}"
    return f"{labels['method']} of rank {labels['rank']} on {labels['targets']}{changed}"


def intervention_label(arm: Arm) -> str:
    """Names what was done to the norms."""
    clip = arm.labels["clip"]
    return str(arm.labels["intervention"]) if clip is None else f"clip {clip:g}"


def with_interval(name: str, found: Estimate | None) -> Row:
    """Returns the columns of an estimate: mean, ends of its interval, p and number of values."""
    return {
        name: None if found is None else found.mean,
        f"{name}_low": None if found is None else found.low,
        f"{name}_high": None if found is None else found.high,
        f"{name}_pvalue": None if found is None else found.pvalue,
        f"{name}_n": 0 if found is None else found.n,
    }


def correlations_of(found: Finetuned, arm: Arm, **wanted: Any) -> list[Row]:
    """Returns the rows of `correlations` of an arm that have some values."""
    labels = arm.labels | wanted
    return [
        row
        for row in found.correlations
        if all(row[name] == value for name, value in labels.items())
    ]


def correlation_rows(found: Finetuned) -> list[Row]:
    """Puts every predictor of each setting's reference arm beside the null models (Table 1).

    Args:
        found: What was measured.

    Returns:
        Rows of `correlations` with `setting` and `arm`, null models last, both outcomes in turn.
    """
    rows: list[Row] = []
    for setting in found.settings:
        if (arm := setting.reference) is not None:
            shown = correlations_of(found, arm)
            shown.sort(key=lambda row: (row["rate"] == "best", row["is_null_model"]))
            rows += [{"setting": setting.label, "arm": arm_label(arm), **row} for row in shown]
    return rows


def task_rows(found: Finetuned) -> list[Row]:
    """Correlates norm CV with what each task gains, for models with several (Section 4.7).

    Args:
        found: What was measured.

    Returns:
        For each model with several tasks, each setting and outcome: rows of `correlations` with
        `setting`, `lowest` and `highest` mean outcome and `null_r`, the r of log step.
    """
    tasks: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for setting in found.settings:
        tasks[setting.model].add(setting.task)
    rows = []
    for setting in found.settings:
        if len(tasks[setting.model]) < 2 or (arm := setting.reference) is None:
            continue
        for row in correlations_of(found, arm, rate="fixed", predictor="norm_cv"):
            means = [e.mean for p in arm.fixed if (e := p.over_seeds(row["outcome"])) is not None]
            (step,) = correlations_of(
                found, arm, rate="fixed", predictor="log_step", outcome=row["outcome"]
            )
            rows.append(
                {"setting": setting.label, "lowest": min(means), "highest": max(means)}
                | {"null_r": step["pearson"]}
                | row
            )
    return rows


def _how_far_from_the_papers(arm: Arm) -> tuple[Any, ...]:
    labels = arm.labels
    targets, rank = labels["targets"], labels["rank"]
    return (
        -len(arm.fixed),
        "head" in targets.split("+"),
        rank != _PAPERS_RANK,
        targets,
        rank,
    )


def _names(settings: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """Names settings by model and task, and by whatever else tells them apart."""
    rows = {key: dict(zip(SETTING, key, strict=True)) for key in settings}
    suites = len({row["suite"] for row in rows.values()}) > 1
    stages = len({row["stage"] for row in rows.values()}) > 1
    named = {}
    for key, row in rows.items():
        model = f"{row['suite']}/{row['model']}" if suites else row["model"]
        named[key] = f"{model}{' (' + row['stage'] + ')' if stages else ''}, {row['task']}"
    full = dict(named)
    for key in rows:
        like = [rows[other] for other in rows if named[other] == named[key]]
        differing = [name for name in SETTING if len({row[name] for row in like}) > 1]
        full[key] += "".join(f", {name} {str(rows[key][name])[:8]}" for name in differing)
    return full


def _of(
    models: set[tuple[str, str, str]],
    table: str,
    results: str | Path | Place,
    columns: set[str] | None,
) -> list[Row]:
    rows: list[Row] = query.load(table, results, columns=columns).to_pylist()
    return [
        row
        for row in rows
        if tuple(row[name] for name in MODEL) in models and row["step"] is not None
    ]
