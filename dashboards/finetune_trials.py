"""Trials of fine-tuning, put together: what differs only by checkpoint, seed and learning rate.

Invariant: an arm is one recipe on one task for one model, so that the mean over its seeds and the
course over its checkpoints mean something; whatever else differs makes another arm.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dashboards import query
from dashboards.correlation_statistics import Estimate, estimate
from jobs.place import Place

Row = dict[str, Any]

CHANGED = ("method", "intervention", "clip", "rank", "targets", "groups")
"""What a study compares."""

SETTING = (
    "suite",
    "model",
    "stage",
    "task",
    "alpha",
    "dropout",
    "epochs",
    "batch_size",
    "weight_decay",
    "n_training",
    "n_validation",
    "template_fingerprint",
    "forward_dtype",
)
"""What arms that are compared have in common."""

RATES = ("fixed", "best")
"""Which trials of an arm count: see `Arm.fixed` and `Arm.best`."""

OUTCOMES = ("finetunability", "net_gain")

_MEASURED = (
    *("loss_none", "loss_pre", "loss_post", "finetunability", "damage", "net_gain"),
    *("beta", "beta_se", "beta_seen", "beta_unseen", "beta_given_count"),
)
_COLUMNS = {
    *SETTING,
    *CHANGED,
    *("cell_id", "revision", "step", "tokens", "seed", "lr", "epochs_run", "searched"),
    *_MEASURED,
}


@dataclass(frozen=True)
class Point:
    """The trials of an arm at one checkpoint, one for each seed.

    Attributes:
        step: Step of the checkpoint.
        revision: Its name.
        trials: Rows of `finetunes` by seed, those that have an outcome.
        diverged: Number of seeds without one.
    """

    step: int
    revision: str
    trials: dict[int, Row]
    diverged: int = 0

    def over_seeds(self, column: str) -> Estimate | None:
        """Returns the mean of a column over the seeds that have it, with its t-interval."""
        return estimate([t[column] for t in self.trials.values() if finite(t[column])])


@dataclass(frozen=True)
class Arm:
    """One way of fine-tuning one model on one task.

    Attributes:
        labels: The columns `SETTING` and `CHANGED`.
        trials: Its rows of `finetunes`, by step, seed and learning rate.
    """

    labels: Row
    trials: tuple[Row, ...]

    @property
    def setting(self) -> tuple[Any, ...]:
        """What it has in common with the arms that it is compared with."""
        return tuple(self.labels[name] for name in SETTING)

    @cached_property
    def lr(self) -> float | None:
        """The learning rate of most trials that were not stopped; None if all were.

        Of equally frequent ones the one that fewer trials of a search have, then the smallest.
        """
        complete = [trial for trial in self.trials if is_complete(trial)]
        counts = Counter(trial["lr"] for trial in complete)
        searched = Counter(trial["lr"] for trial in complete if trial["searched"])
        return min(counts, key=lambda lr: (-counts[lr], searched[lr], lr), default=None)

    @cached_property
    def fixed(self) -> tuple[Point, ...]:
        """Its checkpoints at the fixed learning rate, by step."""
        return _points(
            (t["step"], t["revision"], t["seed"], t)
            for t in self.trials
            if t["lr"] == self.lr and (is_complete(t) or not has_outcome(t))
        )

    @cached_property
    def best(self) -> tuple[Point, ...]:
        """Those where several rates were tried, each seed at its best complete trial.

        The best is picked by the loss that is reported, so it is biased downwards.
        """
        return _points(
            (*key, min(complete, key=lambda t: (t["loss_post"], t["lr"])))
            for key, trials in self.searches().items()
            if (complete := [t for t in trials if is_complete(t) and has_outcome(t)])
        )

    def searches(self) -> dict[tuple[int, str, int], list[Row]]:
        """Returns the trials of each step, revision and seed at which several rates were tried."""
        found: dict[tuple[int, str, int], list[Row]] = defaultdict(list)
        for trial in self.trials:
            found[trial["step"], trial["revision"], trial["seed"]].append(trial)
        return {key: rows for key, rows in found.items() if len({r["lr"] for r in rows}) > 1}

    def points(self, rate: str) -> tuple[Point, ...]:
        """Returns `fixed` or `best`, by its name."""
        return self.fixed if rate == "fixed" else self.best


def read_arms(results: str | Path | Place) -> list[Arm]:
    """Reads all trials at known steps.

    Args:
        results: Folder or URL of the results.

    Returns:
        The arms, in the order of suites, models, tasks and recipes.

    Raises:
        StoreError: The place cannot be read.
    """
    arms: dict[tuple[Any, ...], dict[tuple[Any, ...], Row]] = defaultdict(dict)
    names = (*SETTING, *CHANGED)
    for row in query.load("finetunes", results, columns=_COLUMNS).to_pylist():
        if row["step"] is None:
            continue
        known = arms[tuple(row[name] for name in names)]
        key = (row["step"], row["revision"], row["seed"], row["lr"])
        # A search may have stopped a trial that was made without it as well.
        if key not in known or (is_complete(row) and not is_complete(known[key])):
            known[key] = row
    return [
        Arm(dict(zip(names, key, strict=True)), tuple(arms[key][k] for k in sorted(arms[key])))
        for key in sorted(arms, key=lambda key: [(v is not None, v) for v in key])
    ]


def is_complete(trial: Row) -> bool:
    """Tells whether a trial made all the passes that it was asked for."""
    return trial["epochs_run"] is not None and trial["epochs_run"] == trial["epochs"]


def has_outcome(trial: Row) -> bool:
    """Tells whether a trial ended with a loss: one that diverged has none."""
    return all(finite(trial[name]) for name in ("loss_post", *OUTCOMES))


def finite(value: float | None) -> bool:
    """Tells whether a value is there and finite."""
    return value is not None and math.isfinite(value)


def paired(first: Sequence[Point], second: Sequence[Point], column: str) -> dict[Any, float]:
    """Returns second − first by (step, revision, seed), where both have the column."""
    known = {
        (point.step, point.revision, seed): trial[column]
        for point in first
        for seed, trial in point.trials.items()
    }
    return {
        key: trial[column] - known[key]
        for point in second
        for seed, trial in point.trials.items()
        if finite(trial[column]) and finite(known.get(key := (point.step, point.revision, seed)))
    }


def _points(trials: Iterable[tuple[int, str, int, Row]]) -> tuple[Point, ...]:
    found: dict[tuple[int, str], list[tuple[int, Row]]] = defaultdict(list)
    for step, revision, seed, trial in trials:
        found[step, revision].append((seed, trial))
    return tuple(
        Point(
            step,
            revision,
            {seed: trial for seed, trial in rows if has_outcome(trial)},
            sum(not has_outcome(trial) for _, trial in rows),
        )
        for (step, revision), rows in sorted(found.items(), key=lambda item: item[0])
    )
