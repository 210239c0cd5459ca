"""Verdicts in the report: each series' phases, and what became of Figure 5 and its controls."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dashboards import query
from dashboards.numbers import plain, with_error
from dashboards.toy_phases import COMPRESSES, FIGURE_5, SETTING
from jobs.place import Place

Row = dict[str, Any]

_FIGURE = re.compile(r"(.+)-(5|12a|12b|13a|13b)")
_GONE = 0.05
"""A control removes something if the interval of its fraction lies below this."""
_SHOWN = 12


def phase_table(rows: Iterable[Row]) -> list[Row]:
    """Puts the phases of each series into one line.

    Args:
        rows: Rows of `phases`.

    Returns:
        For each series `model`, `text`, `layer`, `metric`, `verdict`, `phases` (one text for each
        phase), `basis` and `reliable`.
    """
    series: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    labels = ("suite", "model", "stage", "dataset", "seq_len", "n_sequences", "layer", "metric")
    for row in rows:
        series[(*(row[name] for name in labels), row["sequences_fingerprint"])].append(row)
    return [
        {
            "model": f"{group[0]['suite']}/{group[0]['model']}",
            "text": group[0]["dataset"],
            "layer": group[0]["layer"],
            "metric": group[0]["metric"],
            "verdict": group[0]["verdict"],
            "phases": [_in_words(row) for row in group if row["place"]],
            "basis": group[0]["basis"],
            "reliable": group[0]["se_reliable"],
        }
        for group in series.values()
        if group[0]["n_checkpoints"] > 1
    ]


def toy_table(results: str | Path | Place) -> tuple[list[str], list[Row]]:
    """Says what became of Figure 5 and its controls, and gives the fractions.

    Args:
        results: Folder or URL of the results.

    Returns:
        Sentences, and rows of `toy_phases`: all of sweeps with one setting; of a sweep with many,
        the settings with the largest fractions of Figure 5 and of a compression.

    Raises:
        StoreError: The place cannot be read.
    """
    rows = query.load("toy_phases", results).to_pylist()
    settings: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        settings[row["model"]].add(str([row[name] for name in SETTING]))
    shown = [row for row in rows if len(settings[row["model"]]) == 1]
    for model in (name for name, found in settings.items() if len(found) > 1):
        for verdict in (FIGURE_5, COMPRESSES):
            chosen = [row for row in rows if (row["model"], row["verdict"]) == (model, verdict)]
            shown += sorted(chosen, key=lambda row: -row["fraction"])[:_SHOWN]
    return [*toy_sentences(rows), *_found(rows, settings)], shown


def toy_sentences(rows: Sequence[Row]) -> list[str]:
    """Compares each sweep whose name ends in `-5` with its controls, `-12a` to `-13b`.

    Args:
        rows: Rows of `toy_phases`.

    Returns:
        One sentence for Figure 5 and one for each control.
    """
    fractions = {
        (match[1], match[2], row["verdict"]): row
        for row in rows
        if (match := _FIGURE.fullmatch(row["model"]))
    }
    told = []
    for prefix in dict.fromkeys(key[0] for key in fractions):
        if (prefix, "5", COMPRESSES) not in fractions:
            continue
        figure, exact = (fractions[prefix, "5", verdict] for verdict in (COMPRESSES, FIGURE_5))
        told.append(
            f"{prefix}-5: RankMe expands and then compresses in {_share(figure)} of the seeds; it "
            f"shows exactly Figure 5 ({FIGURE_5}) in {_share(exact)}."
        )
        for control in ("12a", "12b", "13a", "13b"):
            if (prefix, control, COMPRESSES) in fractions:
                any_, same = (fractions[prefix, control, v] for v in (COMPRESSES, FIGURE_5))
                told.append(
                    f"{prefix}-{control}: {_judged(same, exact, 'exactly Figure 5')}; "
                    f"{_judged(any_, figure, 'an expansion and a compression after it')}."
                )
    return told


def _judged(control: Row, figure: Row, what: str) -> str:
    """Says whether a control removes something, as the paper says."""
    share = _share(control)
    if figure["fraction_high"] < _GONE:
        return f"{what} in {share}, but it hardly appears without the control either"
    if control["fraction_high"] < min(_GONE, figure["fraction_low"]):
        return f"the control removes {what}, as the paper says: left in {share}"
    if control["fraction_high"] < figure["fraction_low"]:
        return f"the control makes {what} rarer but does not remove it: {share}"
    return f"the control does not remove {what}, against the paper: {share}"


def _found(rows: Sequence[Row], settings: Mapping[str, set[str]]) -> list[str]:
    """Says where a sweep over many settings shows Figure 5 most often."""
    told = []
    for model, found in settings.items():
        exact = [row for row in rows if (row["model"], row["verdict"]) == (model, FIGURE_5)]
        if len(found) < 2:
            continue
        best = max(exact, key=lambda row: row["fraction"])
        shown = sum(row["runs"] > 0 for row in exact)
        told.append(
            f"{model}: of {len(exact)} settings, {shown} show exactly Figure 5 in some seed; most "
            f"often counts {'-'.join(map(str, best['counts']))}, d {best['d']}, scale "
            f"{best['scale']:g}, learning rate {best['learning_rate']:g}: {_share(best)}. As the "
            "best of many, that is biased upwards."
        )
    return told


def _share(row: Row) -> str:
    return (
        f"{row['fraction']:.1%} [{row['fraction_low']:.1%}, {row['fraction_high']:.1%}] of "
        f"{row['n']:,}"
    )


def _in_words(row: Row) -> str:
    change = with_error(abs(row["change"]), row["change_se"]) if row["change_se"] else None
    sign = "−" if row["change"] < 0 else "+"
    words = (
        f"{row['phase']}: step {row['start_step']:,} to {row['end_step']:,}, "
        f"{sign}{change or plain(abs(row['change']))}"
    )
    if row["end_earliest_step"] != row["end_latest_step"]:
        words += f" (ends between {row['end_earliest_step']:,} and {row['end_latest_step']:,})"
    if row["alpha_req_change"] is not None:
        words += f", α-ReQ {row['alpha_req_change']:+.3g}"
    return words
