"""What the report shows, as plain rows: every measurement carries its model's and text's label."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards import files, query
from jobs.place import Place
from jobs.records import SIDE_TABLES, TABLES

Row = dict[str, Any]

LAST_LAYER = -1
"""The layer of the features that the LM head multiplies, after the final norm."""

_HEAVY = {
    "spectrum",
    "singular_values",
    "spectrum_half",
    "spectrum_logits",
    "loss_sums",
    "loss_counts",
    "token_norms",
    "traceback",
    "weight_profile",
    "log_likelihoods",
}
_ASKED = ("ablation", "memorization", "generations", "sweeps")
_ACCURACIES = ("acc_tie", "exact_match", "acc")
_TEXT_PARAMETERS = {
    "dataset": "{}",
    "task": "{}",
    "subset": "{}",
    "n_sequences": "M = {}",
    "seq_len": "L = {}",
    "forward_dtype": "{}",
}


@dataclass(frozen=True)
class Measured:
    """The rows that the report is made from.

    Attributes:
        results: Where the results lie.
        checkpoints: Rows of `checkpoints`, one per checkpoint that was loaded.
        geometry: Rows of `geometry`, spectra left out.
        head: Rows of `head`, one per checkpoint, token norms left out.
        loss: Rows of `evals` with the metric "loss".
        failures: Rows of `failures` whose cell has no rows by now.
        refused: Rows of `checkpoints` that were never loaded, one per checkpoint.
        audit: Rows of `audit`.
        tasks: Rows of `evals` about tasks: one accuracy for each checkpoint, task and subset.
        ablation: Rows of `ablation`.
        memorization: Rows of `memorization` that leave tokens of ∞-gram probability 0 out.
        generations: Rows of `generations`.
        sweeps: Rows of `sweeps`, spectra left out.
        answer_loss: Rows of `evals` about losses other than "loss": of the answers in chats.
    """

    results: Place
    checkpoints: tuple[Row, ...]
    geometry: tuple[Row, ...]
    head: tuple[Row, ...]
    loss: tuple[Row, ...]
    failures: tuple[Row, ...]
    refused: tuple[Row, ...] = ()
    audit: tuple[Row, ...] = ()
    tasks: tuple[Row, ...] = ()
    ablation: tuple[Row, ...] = ()
    memorization: tuple[Row, ...] = ()
    generations: tuple[Row, ...] = ()
    sweeps: tuple[Row, ...] = ()
    answer_loss: tuple[Row, ...] = ()


def read(results: str | Path | Place) -> Measured:
    """Reads the rows of a report.

    Every row gets `label` (its model, with suite and stage where there are several), `variant`
    (its text and settings, where there are several) and `series` (both).

    Args:
        results: Folder or URL of the results.

    Returns:
        The rows, in the order of `dashboards.query.load`.

    Raises:
        StoreError: The place cannot be read.
    """
    tables = {
        name: _rows(name, results)
        for name in ("checkpoints", "geometry", "head", "evals", "audit", *_ASKED)
    }
    tables["tasks"] = _accuracies(tables["evals"])
    tables["answer_loss"] = [r for r in tables["evals"] if r["metric"].endswith("_loss")]
    tables["evals"] = [row for row in tables["evals"] if row["metric"] == "loss"]
    zeros = "drop_token_both"
    tables["memorization"] = [r for r in tables["memorization"] if r["zero_policy"] == zeros]
    everything = [row for rows in tables.values() for row in rows]
    several_suites = len({row["suite"] for row in everything}) > 1
    several_stages = len({row["stage"] for row in everything}) > 1
    for rows in tables.values():
        for row in rows:
            row["label"] = _label(row, several_suites, several_stages)
        _name_variants(rows)
    done = _done_cells(results)
    checkpoints = _one_each([row for row in tables["checkpoints"] if not row["refused"]])
    loaded = {checkpoint_key(row) for row in checkpoints}
    refused = [row for row in tables["checkpoints"] if row["refused"]]
    return Measured(
        results=Place(results),
        checkpoints=checkpoints,
        geometry=tuple(tables["geometry"]),
        # Cells that differ in the text whose counts they compare give the same norms.
        head=_one_each(tables["head"]),
        loss=tuple(tables["evals"]),
        failures=tuple(row for row in _rows("failures", results) if row["cell_id"] not in done),
        # What was refused once may be measured by now.
        refused=_one_each([row for row in refused if checkpoint_key(row) not in loaded]),
        audit=tuple(tables["audit"]),
        tasks=tuple(tables["tasks"]),
        ablation=tuple(tables["ablation"]),
        memorization=tuple(tables["memorization"]),
        generations=tuple(tables["generations"]),
        sweeps=tuple(tables["sweeps"]),
        answer_loss=tuple(tables["answer_loss"]),
    )


def _accuracies(rows: Iterable[Row]) -> list[Row]:
    """Returns one accuracy of each task and subset: the one that shares ties, if there is one."""
    best: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row["cell_id"], row["subset"])
        if row["metric"] in _ACCURACIES:
            rank = _ACCURACIES.index(row["metric"])
            if key not in best or rank < _ACCURACIES.index(best[key]["metric"]):
                best[key] = row
    return list(best.values())


def checkpoint_key(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Returns what names a checkpoint: suite, model, stage and revision."""
    return (row["suite"], row["model"], row["stage"], row["revision"])


def _one_each(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Returns the first row of every checkpoint, in the order of the rows."""
    return tuple(reversed({checkpoint_key(row): row for row in reversed(rows)}.values()))


def natural(text: str) -> list[tuple[int, str]]:
    """Returns a sort key by which pico-64 comes before pico-128."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text)
    ]


def by_series(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Groups rows by their `series`, in natural order of the names; each group by step."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["series"]].append(row)
    return {name: groups[name] for name in sorted(groups, key=natural)}


def last_layer(measured: Measured) -> list[Row]:
    """Returns the geometry of the features after the final norm."""
    return [row for row in measured.geometry if row["layer"] == LAST_LAYER]


def model_labels(measured: Measured) -> dict[tuple[str, str, str], str]:
    """Returns the label of each model by suite, model and stage."""
    rows = (
        *measured.checkpoints,
        *measured.geometry,
        *measured.head,
        *measured.loss,
        *measured.tasks,
        *measured.memorization,
    )
    return {(row["suite"], row["model"], row["stage"]): row["label"] for row in rows}


def checkpoint_table(measured: Measured) -> list[Row]:
    """Joins what was measured of each checkpoint.

    Args:
        measured: The rows of the results.

    Returns:
        Per checkpoint and text one row, by series and step: `label`, `revision`, `step`, `tokens`,
        `stage`, `variant`, `loss`, `geometry`, `head` (rows of those tables, or None), `weights`
        (SHA-256, or None) and `same_weights` (the other checkpoints with equal weights).
    """
    weights = {checkpoint_key(row): row["weights_sha256"] for row in measured.checkpoints}
    owners: dict[str, list[Row]] = defaultdict(list)
    for row in measured.checkpoints:
        if row["weights_sha256"] is not None:
            owners[row["weights_sha256"]].append(row)
    heads = {checkpoint_key(row): row for row in measured.head}
    texts: dict[tuple[str, str, str, str], list[tuple[Row | None, Row | None]]] = defaultdict(list)
    losses = {(*checkpoint_key(row), row["task"]): row for row in measured.loss}
    for row in last_layer(measured):
        key = checkpoint_key(row)
        texts[key].append((row, losses.get((*key, row["dataset"]))))
    paired = {id(loss) for pairs in texts.values() for _, loss in pairs}
    for row in measured.loss:
        if id(row) not in paired:
            texts[checkpoint_key(row)].append((None, row))
    firsts = {
        checkpoint_key(row): row
        for row in (*measured.loss, *measured.head, *measured.geometry, *measured.checkpoints)
    }
    return [
        {
            **{name: first[name] for name in ("label", "revision", "step", "tokens", "stage")},
            "variant": _variant((geometry, loss)),
            "geometry": geometry,
            "loss": loss,
            "head": heads.get(key),
            "weights": weights.get(key),
            "same_weights": [
                f"{other['label']} {other['revision']}"
                for other in owners.get(weights.get(key) or "", [])
                if checkpoint_key(other) != key
            ],
        }
        for key, first in sorted(firsts.items(), key=lambda item: _table_order(item[1]))
        for geometry, loss in sorted(texts.get(key, [(None, None)]), key=_variant)
    ]


def _rows(table: str, results: str | Path | Place) -> list[Row]:
    columns = [name for name in TABLES[table].names if name not in _HEAVY]
    rows: list[Row] = query.load(table, results, columns=columns).to_pylist()
    return rows


def _done_cells(results: str | Path | Place) -> set[str]:
    # A cell that failed once and was done later is no failure any more.
    primaries = TABLES.keys() - SIDE_TABLES - {"failures"}
    return set().union(*(files.cells(Place(results), table) for table in primaries))


def _label(row: Row, several_suites: bool, several_stages: bool) -> str:
    model = str(row["model"])
    name = f"{row['suite']}/{model}" if several_suites and row["suite"] != model else model
    return f"{name} ({row['stage']})" if several_stages else name


def _name_variants(rows: Sequence[Row]) -> None:
    settings = {
        name: pattern
        for name, pattern in _TEXT_PARAMETERS.items()
        if len({row.get(name) for row in rows}) > 1
    }
    draws: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        row["variant"] = ", ".join(pattern.format(row[name]) for name, pattern in settings.items())
        draws[row["label"], row["variant"]].add(row.get("sequences_fingerprint") or "")
    for row in rows:
        if len(draws[row["label"], row["variant"]]) > 1:
            draw = f"draw {(row.get('sequences_fingerprint') or 'unknown')[:8]}"
            row["variant"] = ", ".join(filter(None, (row["variant"], draw)))
        row["series"] = ", ".join(filter(None, (row["label"], row["variant"])))


def _variant(pair: tuple[Row | None, Row | None]) -> str:
    return next((str(row["variant"]) for row in pair if row is not None), "")


def _table_order(row: Row) -> tuple[object, ...]:
    step = row["step"]
    return (natural(row["label"]), step is None, step or 0, row["revision"])
