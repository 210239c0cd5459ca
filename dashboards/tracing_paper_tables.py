"""Tables 1, 2 and 9 of the paper on tracing geometry, from a dataset."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dashboards import published_tracing as paper
from dashboards import query
from dashboards.charts import Z95
from dashboards.finetune_layout import Table, table, text
from dashboards.finetune_words import coefficient, interval, pvalue
from dashboards.null_models import CRITERION, VERDICTS, share
from dashboards.paper_lines import Line, comparison, difference
from dashboards.published import TRACING, PaperModel, Value, belongs_to
from dashboards.tables import Measured, Row, checkpoint_key, model_labels

Models = Mapping[tuple[str, str], PaperModel]

_BINS = {"≤ 3": (0, 3), **{str(n): (n, n) for n in range(4, 9)}, "> 8": (9, None)}
_TEXT = {"dataset": "fineweb", "n_sequences": 15_000, "seq_len": 512}
_SHOWN = ("rankme", "alpha_req", "norm_cv", "overlap_std")
"""Predictors of the page's table; the derived table has all of them."""
_OUTCOMES = ("acc", "exact_match", "memorization", "pass_at_k")


def tracing_paper_tables(measured: Measured, models: Models) -> list[Table]:
    """Makes the tables.

    Args:
        measured: The rows of the results.
        models: The papers' models among those of the study.

    Returns:
        Those that have rows.

    Raises:
        StoreError: The place cannot be read.
    """
    of_paper = {key: model for key, model in models.items() if belongs_to(model) == TRACING}
    tables = [
        comparison(
            "tracing-1",
            "Tracing paper, Table 1: how much context the ∞-gram model uses",
            "Share of answer tokens by the longest suffix of their context that the corpus has. "
            "Tokens of one answer depend on each other, so there is no interval.",
            paper.TABLE_1,
            list(_suffixes(measured, of_paper)),
            "TriviaQA against an index of the Pile in Pythia's tokens",
        ),
        comparison(
            "tracing-2",
            "Tracing paper, Table 2: without, and with only, the top eigenvectors",
            "lm-eval's accuracy of each model's last checkpoint, ± 1.96 standard errors over the "
            "questions.",
            paper.TABLE_2,
            list(_ablated(measured, of_paper)),
            "SciQ at the last checkpoint of one of the paper's models from the hub",
        ),
        _correlations(measured, of_paper),
    ]
    return [made for made in tables if made.rows]


def _suffixes(measured: Measured, models: Models) -> Iterator[Line]:
    rows: list[Row] = query.load("infinigram", measured.results).to_pylist()
    built = {row["suite"] for row in query.load("indexes", measured.results).to_pylist()}
    suites = {suite for (suite, _), model in models.items() if model.name.startswith("Pythia")}
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["suite"], row["task"], row["template_fingerprint"] or ""].append(row)
    for (suite, task, _), group in groups.items():
        # An index that was built here is of the study's own text.
        papers = task == "triviaqa" and suite in suites and suite not in built
        for name, (low, high) in _BINS.items():
            inside = [
                row
                for row in group
                if row["suffix_length"] >= low and (high is None or row["suffix_length"] <= high)
            ]
            yield Line(
                f"{suite}, {task}",
                f"suffix length {name}, % of tokens",
                100 * sum(row["share"] for row in inside),
                n=group[0]["n_tokens"],
                of=f"tokens of {group[0]['n_examples']:,} answers",
                published=paper.TABLE_1.find("", name, "share, %") if papers else None,
            )


def _ablated(measured: Measured, models: Models) -> Iterator[Line]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in measured.ablation:
        groups[row["label"], row["task"]].append(row)
    for (label, task), rows in groups.items():
        last = [row for row in rows if checkpoint_key(row) == checkpoint_key(rows[-1])]
        model = models.get((last[0]["suite"], last[0]["model"]))
        ended = model is not None and (last[0]["step"] or 0) >= model.last_step
        for row in last:
            mode = row["mode"] if row["rank"] is None else f"{row['mode']} {row['rank']}"
            error = None if row["acc_stderr"] is None else Z95 * row["acc_stderr"]
            yield Line(
                f"{label} {row['revision']}, {task}",
                mode,
                row["acc"],
                None if error is None else row["acc"] - error,
                None if error is None else row["acc"] + error,
                row["n"],
                f"questions, chance {row['chance']:.3f}",
                paper.TABLE_2.find(model.name, task, mode) if model and ended else None,
            )


def _correlations(measured: Measured, models: Models) -> Table:
    rows = _shown(query.load("capability_correlations", measured.results).to_pylist())
    labels = model_labels(measured)
    for row in rows:
        key = (row["suite"], row["model"])
        row["label"] = labels.get((*key, row["stage"]), f"{key[0]}/{key[1]}")
        row["published"] = _table_9(row, models.get(key))
    compared = any(row["published"] is not None for row in rows)
    columns = [
        ("Model", text("label")),
        ("Outcome", _outcome),
        ("Predictor", text("predictor")),
        ("Text", _measured_on),
        ("r", lambda row: coefficient(row["pearson"])),
        ("95 % interval", _interval),
        ("p", lambda row: pvalue(row["pearson_pvalue"]).removeprefix(", p ").removeprefix("= ")),
        ("n", text("n")),
        *([("Published", _printed), ("Difference", _difference)] if compared else []),
        ("Log step alone", lambda row: coefficient(row["null_log_step"])),
        ("Loss alone", lambda row: coefficient(row["null_loss"])),
        ("Learning rate alone", lambda row: coefficient(row["null_learning_rate"])),
        ("Random walks", lambda row: share(row["walk_pvalue"])),
        ("Given log step", _partial),
        ("First differences", lambda row: coefficient(row["differences_pearson"])),
        ("Survives", lambda row: VERDICTS[row["survives"]]),
    ]
    told = (
        f" Published: {paper.TABLE_9.place} of the paper on {TRACING}. {paper.TABLE_9.note}"
        if compared
        else " Ours only: this study isn't the paper's, whose numbers would need SciQ and FineWeb "
        "(M = 15,000, L = 512) over checkpoints of one of its models from the hub."
    )
    note = (
        "Pearson r over checkpoints, 95 % Fisher intervals, exact permutation p below n = 10; "
        "beside it what knows nothing of the geometry gives over the same checkpoints. Random "
        f"walks: share that reaches |r|. {CRITERION} All predictors are in the table "
        f"capability_correlations.{told}"
    )
    title = "Tracing paper, Table 9: what goes with what checkpoints can do"
    return replace(table("tracing-9", title, note, rows, columns), key="paper-tracing-9")


def _shown(rows: Sequence[Row]) -> list[Row]:
    """Chooses the page's rows: four predictors, and of each task one accuracy."""
    return [
        row
        for row in rows
        if row["predictor"] in _SHOWN and row["outcome"] in _OUTCOMES and row["pearson"] is not None
    ]


def _table_9(row: Row, model: PaperModel | None) -> Value | None:
    same = all(row[name] == value for name, value in _TEXT.items())
    if model is None or not same or row["outcome"] != "acc" or row["shots"] != 0:
        return None
    return paper.TABLE_9.find(model.name, row["task"], row["predictor"])


def _outcome(row: Row) -> str:
    if row["outcome"] == "pass_at_k":
        return f"pass@{row['k']} on {row['task']}"
    return f"{row['outcome']} on {row['task']}"


def _measured_on(row: Row) -> str:
    if row["dataset"] is None:
        return "–"
    return f"{row['dataset']}, M = {row['n_sequences']:,}, L = {row['seq_len']:,}"


def _printed(row: dict[str, Any]) -> str:
    value = row["published"]
    if value is None:
        return "–"
    return f"{coefficient(value.value)}{pvalue(value.pvalue)}, n = {value.n}"


def _difference(row: dict[str, Any]) -> str:
    return difference(row["pearson"], row["published"], coefficient)


def _interval(row: Row) -> str:
    return interval(row["pearson_low"], row["pearson_high"], coefficient).strip() or "–"


def _partial(row: Row) -> str:
    ends = interval(row["partial_low"], row["partial_high"], coefficient)
    return f"{coefficient(row['partial_given_log_step'])}{ends}"
