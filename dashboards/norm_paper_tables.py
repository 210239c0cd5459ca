"""Tables 1 to 3 of the paper on norm heterogeneity, and its numbers in the text, from a dataset."""

from collections.abc import Iterator, Mapping

from dashboards import correlation_statistics as statistics
from dashboards import published_norm as paper
from dashboards.finetune_comparisons import causal_rows, rank_rows
from dashboards.finetune_layout import Table
from dashboards.finetune_tables import Finetuned, Setting, arm_label, correlations_of
from dashboards.finetune_trials import Arm
from dashboards.paper_lines import Line, comparison
from dashboards.published import NORM, PaperModel, Source, Value, belongs_to
from dashboards.tables import Measured, by_series

_TASK = "arc_easy"
_RECIPE = {
    "method": "lora",
    "targets": "attention",
    "alpha": 16.0,
    "dropout": 0.05,
    "epochs": 3,
    "weight_decay": 0.01,
}
_RANK, _RATE = 8, 2e-4
_NEEDS = (
    "Pythia-410M-deduped or 1.4B-deduped from the hub, fine-tuned on arc_easy by the paper's "
    "recipe (LoRA of rank 8, α 16, dropout 0.05, attention, 3 epochs, 2e-4, weight decay 0.01)"
)
Models = Mapping[tuple[str, str], PaperModel]


def norm_paper_tables(measured: Measured, found: Finetuned | None, models: Models) -> list[Table]:
    """Makes the tables.

    Args:
        measured: The rows of the results.
        found: What was fine-tuned, if anything.
        models: The papers' models among those of the study.

    Returns:
        Those that have rows.
    """
    norms = {key: model for key, model in models.items() if belongs_to(model) == NORM}
    settings = found.settings if found else ()
    tables = [
        comparison(
            "norm-1",
            "Norm paper, Table 1: correlations with fine-tunability",
            "Pearson r over checkpoints at the fixed learning rate, 95 % Fisher intervals. What "
            "the step, the loss and the learning rate alone give stands with Fine-tunability.",
            paper.TABLE_1,
            [line for setting in settings for line in _correlated(found, setting, norms)],
            _NEEDS,
        ),
        comparison(
            "norm-2",
            "Norm paper, Table 2: norms made equal before training",
            "Means over seeds, 95 % t-intervals. Fine-tunability is relative to the loss after "
            "the intervention, which rewards damage: net gain stands with Fine-tunability.",
            paper.TABLE_2,
            [line for setting in settings for line in _equalized(setting, norms)],
            _NEEDS,
        ),
        comparison(
            "norm-3",
            "Norm paper, Table 3: ranks",
            "r of norm CV with fine-tunability over checkpoints, and the largest less the "
            "smallest mean.",
            paper.TABLE_3,
            [line for setting in settings for line in _ranks(found, setting, norms)],
            _NEEDS,
        ),
        comparison(
            "norm-text",
            "Norm paper, Sections 4.3 and 4.6: norms of the LM head",
            "First and last checkpoint of each model, and steps that the paper names. Exact over "
            "the vocabulary; the interval of r is Fisher's, over tokens.",
            paper.TEXT,
            list(_head(measured, norms)),
            "Pythia-410M-deduped or 1.4B-deduped from the hub",
        ),
    ]
    return [table for table in tables if table.rows]


def _is_papers(arm: Arm | None, setting: Setting, models: Models, rank: int | None = _RANK) -> bool:
    """Tells whether an arm is the paper's recipe on the paper's model and task."""
    if arm is None or setting.model[:2] not in models or setting.task != _TASK:
        return False
    same = all(arm.labels[name] == value for name, value in _RECIPE.items())
    return same and arm.lr == _RATE and (rank is None or arm.labels["rank"] == rank)


def _correlated(found: Finetuned | None, setting: Setting, models: Models) -> Iterator[Line]:
    arm = setting.reference
    if found is None or arm is None:
        return
    name = models[setting.model[:2]].name if _is_papers(arm, setting, models) else None
    for predictor in ("overlap_std", "overlap_mean", "norm_cv"):
        wanted = {"rate": "fixed", "outcome": "finetunability", "predictor": predictor}
        for row in correlations_of(found, arm, **wanted):
            yield Line(
                f"{setting.label}: {arm_label(arm)}",
                f"r of {predictor} with fine-tunability",
                row["pearson"],
                row["pearson_low"],
                row["pearson_high"],
                row["n"],
                "checkpoints",
                None
                if name is None
                else paper.TABLE_1.find(name, predictor, "r with fine-tunability"),
            )


def _printed(source: Source, row: str, column: str, comparable: bool) -> Value | None:
    return source.find("", row, column) if comparable else None


def _equalized(setting: Setting, models: Models) -> Iterator[Line]:
    arm = setting.reference
    if arm is None:
        return
    papers = _is_papers(arm, setting, models)
    rows = [row for row in causal_rows(setting) if row["arm"] == arm_label(arm)]
    for row in rows:
        if row["intervention"] not in ("none", "equalize"):
            continue
        at = f"step {row['step']:,}"
        named = f"{setting.label}, {at}"

        if row["intervention"] == "none":
            yield Line(
                named,
                "norm CV",
                row["norm_cv"],
                published=_printed(paper.TABLE_2, at, "norm CV", papers),
            )
        what = f"fine-tunability, {row['intervention']}"
        yield Line(
            named,
            what,
            row["finetunability"],
            row["finetunability_low"],
            row["finetunability_high"],
            row["finetunability_n"],
            "seeds",
            _printed(paper.TABLE_2, at, what, papers),
        )
        if row["intervention"] == "equalize":
            yield Line(
                named,
                "change, %",
                row["change_percent"],
                n=row["finetunability_difference_n"],
                of="pairs",
                published=_printed(paper.TABLE_2, at, "change, %", papers),
            )


def _ranks(found: Finetuned | None, setting: Setting, models: Models) -> Iterator[Line]:
    if found is None:
        return
    papers = _is_papers(setting.reference, setting, models, None)
    for row in rank_rows(found, setting):
        if row["outcome"] != "finetunability":
            continue
        named, at = f"{setting.label}, {row['targets']}", f"rank {row['rank']}"
        same = papers and row["targets"] == _RECIPE["targets"]

        yield Line(
            f"{named}, {at}",
            "r of norm CV",
            row["pearson"],
            row["pearson_low"],
            row["pearson_high"],
            row["n"],
            "checkpoints",
            _printed(paper.TABLE_3, at, "r of norm CV", same),
        )
        yield Line(
            f"{named}, {at}",
            "spread",
            row["spread"],
            n=row["n"],
            of="checkpoints",
            published=_printed(paper.TABLE_3, at, "spread", same),
        )


def _head(measured: Measured, models: Models) -> Iterator[Line]:
    for rows in by_series(measured.head).values():
        named = {value.row for value in paper.TEXT.values}
        shown = [
            row
            for place, row in enumerate(rows)
            if place in (0, len(rows) - 1)
            or ((row["suite"], row["model"]) in models and _step(row) in named)
        ]
        for row in shown:
            papers = models.get((row["suite"], row["model"]))
            # Of 1.4B the paper gives no range.
            range_of = papers is not None and papers.name == "Pythia-410M"
            label = f"{row['label']}, {_step(row)}"
            tokens = {"n": row["n_tokens"], "of": "tokens"}
            yield Line(label, "norm CV", row["norm_cv"], **tokens)
            yield Line(
                label,
                "norm range",
                row["norm_range"],
                **tokens,
                published=paper.TEXT.find("", _step(row), "norm range") if range_of else None,
            )
            r, n = row["pearson_norm_token_id"], row["n_tokens"]
            low, high = statistics.fisher_interval(r, n or 0)
            yield Line(
                label,
                "r of norm and BPE index",
                r,
                low,
                high,
                **tokens,
                published=None
                if papers is None
                else paper.TEXT.find("", "token norm and BPE index", "r"),
            )


def _step(row: Mapping[str, object]) -> str:
    return str(row["revision"]) if row["step"] is None else f"step {row['step']:,}"
