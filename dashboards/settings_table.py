"""What was run here beside the settings that the tracing paper names in its Tables 3 to 8."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dashboards import query
from dashboards.finetune_layout import Table, table, text
from dashboards.numbers import count
from dashboards.published_tracing import SETTINGS
from dashboards.tables import Measured, Row, last_layer, natural

_UNRECORDED = "not recorded in the rows"
_SHOWN = 12


def settings_table(measured: Measured) -> Table:
    """Puts the paper's settings beside this study's, as far as its rows tell them.

    Args:
        measured: The rows of the results.

    Returns:
        One row for each setting; none where nothing was measured.

    Raises:
        StoreError: The place cannot be read.
    """
    ours = _ours(measured)
    rows = [
        {"table": place, "setting": name, "paper": theirs, "here": ours.get(key, _UNRECORDED)}
        for place, name, key, theirs in SETTINGS
    ]
    anything = bool(measured.checkpoints or measured.geometry or measured.head or measured.tasks)
    columns = (
        ("Table", text("table")),
        ("Setting", text("setting")),
        ("The paper", text("paper")),
        ("Here", text("here")),
    )
    note = (
        "Settings of the paper on tracing geometry, typed in from its Tables 3 to 8, and what the "
        "rows of this study tell of its own; –: no such rows."
    )
    title = "Tracing paper, Tables 3 to 8: what was run"
    made = table("settings", title, note, rows if anything else [], columns)
    return replace(made, key="paper-settings")


def _ours(measured: Measured) -> dict[str, str]:
    """Returns this study's settings by our names for them, those that some row can tell."""
    geometry = last_layer(measured)
    log = _load("posttrain", measured, {"suite", "model", "method", "data", "seed",
                                        "training_step", "learning_rate"})  # fmt: skip
    sft = [row for row in log if row["method"] == "sft"]
    chats = _load("sequences", measured, {"dataset", "mode", "n_sequences", "seq_len"})
    chats = [row for row in chats if row["mode"] == "chat"]
    winrates = _load("winrates", measured, {"suite", "model", "instructions", "judge"})
    answers = _load("responses", measured, {"generated_tokens"})
    lengths = [r["generated_tokens"] for r in answers if r["generated_tokens"] is not None]
    corpora = _load("corpora", measured, {"suite", "training_tokens"})
    return {
        "corpus": _listed(f"{r['suite']}: {count(r['training_tokens'])} tokens" for r in corpora),
        "pretraining_rate": _rates(
            _load("training_log", measured, {"suite", "model", "step", "learning_rate"}), "step"
        ),
        "chain_start": _listed(
            f"{row['suite']}/{row['model']}" for row in log if row["suite"] not in _chains(log)
        ),
        "chain_data": _listed(f"{row['method']}: {row['data']}" for row in log),
        "chain_methods": _listed(row["method"].upper() for row in log),
        "text": _listed(row["dataset"] for row in geometry),
        "seq_len": _listed(f"{row['dataset']}: {row['seq_len']}" for row in geometry),
        "n_sequences": _listed(f"{row['dataset']}: {row['n_sequences']}" for row in geometry),
        "sft_data": _listed(row["data"] for row in sft),
        "sft_rate": _rates(sft, "training_step"),
        "sft_steps": _most(sft, "training_step", "steps"),
        "sft_seeds": _listed(row["seed"] for row in sft),
        "chat_base": _listed(row["label"] for row in measured.answer_loss),
        "chat_data": _listed(row["task"] for row in measured.answer_loss),
        "chat_length": _listed(f"{row['dataset']}: {row['seq_len']}" for row in chats),
        "chat_sequences": _listed(f"{row['dataset']}: {row['n_sequences']}" for row in chats),
        "winrate_base": _listed(f"{row['suite']}/{row['model']}" for row in winrates),
        "winrate_data": _listed(row["instructions"] for row in winrates),
        "winrate_tokens": f"longest answer: {max(lengths):,}" if lengths else "–",
        "winrate_judge": _listed(row["judge"] for row in winrates),
        "norm": _listed(row["architecture"] for row in measured.checkpoints),
        "position": _listed(row["architecture"] for row in measured.checkpoints),
    }


def _load(name: str, measured: Measured, columns: set[str]) -> list[Row]:
    rows: list[Row] = query.load(name, measured.results, columns=columns).to_pylist()
    return rows


def _chains(log: Iterable[Row]) -> set[str]:
    """Returns suites that are chains: later stages start from checkpoints of theirs."""
    return {row["suite"] for row in log if row["method"] in ("dpo", "rlvr")}


def _listed(values: Iterable[Any]) -> str:
    """Lists distinct values in natural order, of many the first and last; – without any."""
    distinct = sorted({str(value) for value in values if value is not None}, key=natural)
    if len(distinct) > _SHOWN:
        return f"{len(distinct)}, from {distinct[0]} to {distinct[-1]}"
    return ", ".join(distinct) or "–"


def _rates(rows: Iterable[Row], step: str) -> str:
    """Tells the peak of the learning rate, and where it is reached."""
    known = [row for row in rows if row["learning_rate"] is not None]
    if not known:
        return "–"
    peak = max(known, key=lambda row: row["learning_rate"])
    return f"peak {peak['learning_rate']:.3g}, first at step {peak[step]:,}"


def _most(rows: Iterable[Row], column: str, unit: str) -> str:
    known = [row[column] for row in rows if row[column] is not None]
    return f"{max(known):,} {unit}" if known else "–"
