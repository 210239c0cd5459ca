"""What may predict fine-tunability: each checkpoint's geometry, and what knows nothing of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dashboards import query
from dashboards.finetune_trials import Row, finite
from jobs.place import Place

HEAD = (
    "norm_cv",
    "norm_cv_invariant",
    "norm_range",
    "overlap_mean",
    "overlap_std",
)
GEOMETRY = ("rankme", "rankme_logits", "alpha_req", "participation_ratio")
NULL_MODELS = ("log_step", "loss_pre", "learning_rate")
"""What any series that moves with training would be mistaken for."""

MODEL = ("suite", "model", "stage")
TEXT_LABELS = ("dataset", "sequences_fingerprint", "n_sequences", "seq_len")


@dataclass(frozen=True)
class Predictor:
    """A number for each checkpoint of a model.

    Attributes:
        name: Name in the column `predictor`.
        values: By revision, finite ones.
        labels: What it was measured on.
    """

    name: str
    values: Mapping[str, float]
    labels: Row = field(default_factory=dict)


def predictors(results: str | Path | Place) -> dict[tuple[Any, ...], list[Predictor]]:
    """Reads the metrics of every checkpoint.

    Args:
        results: Folder or URL of the results.

    Returns:
        Predictors by suite, model and stage, without the null models; none for unknown models.

    Raises:
        StoreError: The place cannot be read.
    """
    found: dict[tuple[Any, ...], list[Predictor]] = defaultdict(list)
    head = query.load("head", results, columns={*MODEL, "revision", *HEAD}).to_pylist()
    for model, rows in _grouped(head, MODEL):
        found[model] += [Predictor(name, _values(rows, name)) for name in HEAD]
    columns = {*MODEL, *TEXT_LABELS, "forward_dtype", "revision", "layer", *GEOMETRY}
    geometry = query.load("geometry", results, columns=columns).to_pylist()
    last = (row for row in geometry if row["layer"] == -1)
    for key, rows in _grouped(last, (*MODEL, *TEXT_LABELS, "forward_dtype")):
        labels = dict(zip((*TEXT_LABELS, "predictor_dtype"), key[3:], strict=True))
        found[key[:3]] += [Predictor(name, _values(rows, name), labels) for name in GEOMETRY]
    names = ("dataset", "sequences_fingerprint", "forward_dtype", "scale")
    columns = {*MODEL, *names, "revision", "loss_increase"}
    noise = query.load("sensitivity", results, columns=columns).to_pylist()
    for key, rows in _grouped(noise, (*MODEL, *names)):
        labels = dict(zip((*names[:2], "predictor_dtype", "scale"), key[3:], strict=True))
        draws: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            draws[row["revision"]].append(row["loss_increase"])
        # A loss that overflowed at one draw has no mean.
        means = {name: float(np.mean(v)) for name, v in draws.items() if all(map(finite, v))}
        found[key[:3]].append(Predictor("sensitivity", means, labels))
    return found


def learning_rates(results: str | Path | Place) -> dict[tuple[str, str, int], float]:
    """Reads pretraining's learning rate by suite, model and step, where a log has it."""
    columns = {"suite", "model", "step", "learning_rate"}
    return {
        (row["suite"], row["model"], row["step"]): row["learning_rate"]
        for row in query.load("training_log", results, columns=columns).to_pylist()
        if finite(row["learning_rate"])
    }


def _values(rows: Iterable[Row], name: str) -> dict[str, float]:
    """Returns finite values by revision, the first where cells give several."""
    found: dict[str, float] = {}
    for row in rows:
        if finite(row[name]):
            found.setdefault(row["revision"], row[name])
    return found


def _grouped(rows: Iterable[Row], by: Sequence[str]) -> Iterable[tuple[tuple[Any, ...], list[Row]]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in by)].append(row)
    return groups.items()
