"""The section on fine-tunability: its verdicts, and its tables as the page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.finetune_comparisons import causal_rows, rank_rows, rate_rows, remedy_rows
from dashboards.finetune_judgement import CRITERIA, Verdict
from dashboards.finetune_layout import (
    Cell,
    Table,
    estimated,
    shown_plain,
    shown_step,
    signed,
    table,
    tested,
    text,
)
from dashboards.finetune_mechanism import beta_rows, semantics_rows, sensitivity_rows, update_rows
from dashboards.finetune_observed import (
    betas_table,
    correlations_table,
    semantics_table,
    sensitivity_table,
    tasks_table,
    updates_table,
)
from dashboards.finetune_tables import Finetuned, correlation_rows, task_rows
from dashboards.finetune_trials import Row
from dashboards.finetune_verdicts import verdicts
from dashboards.finetune_words import column, correlation
from dashboards.numbers import plain


@dataclass(frozen=True)
class Section:
    """What the section shows.

    Attributes:
        criteria: What they go by.
        verdicts: Of each setting.
        tables: Those that have rows.
    """

    criteria: str
    verdicts: list[tuple[str, list[Verdict]]]
    tables: list[Table]


def section(found: Finetuned) -> Section:
    """Puts the section together.

    Args:
        found: What was measured.

    Returns:
        Verdicts and tables.
    """
    each = found.settings
    made = [
        correlations_table(correlation_rows(found)),
        _causal([row for setting in each for row in causal_rows(setting)]),
        _ranks([row for setting in each for row in rank_rows(found, setting)]),
        _remedies([row for setting in each for row in remedy_rows(setting)]),
        tasks_table(task_rows(found)),
        semantics_table(semantics_rows(found)),
        updates_table([row for setting in each for row in update_rows(found, setting)]),
        betas_table([row for setting in each for row in beta_rows(setting)]),
        sensitivity_table(sensitivity_rows(found)),
        _rates([row for setting in each for row in rate_rows(setting)]),
    ]
    return Section(CRITERIA, verdicts(found), [table for table in made if table.rows])


def _causal(rows: Sequence[Row]) -> Table:
    changed = "" if not rows else " Differences are paired by seed, p by t-test."
    return table(
        "causal",
        "Norms changed before training (Table 2)",
        "Means over seeds with 95 % t-intervals. Fine-tunability is relative to the loss after the "
        "intervention, so damage that training mends raises it; net gain is relative to the "
        f"untouched model.{changed}",
        rows,
        (
            ("Norms", text("intervention")),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", shown_step),
            ("Norm CV", shown_plain("norm_cv")),
            ("Fine-tunability", estimated("finetunability")),
            ("Change, %", signed("change_percent")),
            ("Difference", tested("finetunability_difference")),
            ("Damage", estimated("damage")),
            ("Net gain", estimated("net_gain")),
            ("Difference of net gain", tested("net_gain_difference")),
            ("Seeds", text("net_gain_n")),
        ),
    )


def _ranks(rows: Sequence[Row]) -> Table:
    return table(
        "ranks",
        "Ranks (Table 3)",
        "Spread: largest less smallest mean over the checkpoints. Slope on norm CV: mean over "
        "seeds. Differences from the smallest rank are paired over checkpoints and seeds.",
        rows,
        (
            ("Rank", text("rank")),
            ("Trials", lambda row: f"{row['setting']}: {row['targets']}"),
            ("Outcome", text("outcome")),
            ("r with norm CV", correlation),
            ("Spread", shown_plain("spread")),
            ("Slope on norm CV", tested("slope")),
            ("Difference", tested("difference")),
            ("Pairs", text("difference_n")),
        ),
    )


def _remedies(rows: Sequence[Row]) -> Table:
    return table(
        "remedies",
        "Remedies against plain LoRA on the same targets",
        "Net gain, means over seeds; differences paired by seed. The paper proposes "
        "inverse_norm_lr and norm_group_lora; its Equation 3 implies norm_lr.",
        rows,
        (
            ("Method", text("arm")),
            ("Setting", text("setting")),
            ("Step", shown_step),
            ("Norm CV", shown_plain("norm_cv")),
            ("Net gain", estimated("net_gain")),
            ("Plain LoRA", estimated("plain")),
            ("Difference", tested("difference")),
            ("Seeds", text("difference_n")),
        ),
    )


def _rates(rows: Sequence[Row]) -> Table:
    def rates(name: str) -> Cell:
        return lambda row: ", ".join(f"{lr:g}" for lr in row[name])

    def edge(row: Row) -> str:
        return "–" if row["edge"] is None else f"at the {row['edge']} rate tried"

    return table(
        "rates",
        "Best learning rates",
        "Each seed's best of the trials that the search did not stop. It is picked by the loss "
        "that is shown, so it is biased upwards; at the edge of what was tried, a better one may "
        "lie beyond.",
        rows,
        (
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", shown_step),
            ("Best, each seed", rates("lrs")),
            ("Tried", rates("tried")),
            ("Edge", edge),
            ("Net gain", estimated("net_gain")),
            ("At the fixed rate", lambda row: f"{column(row, 'fixed')} ({plain(row['fixed_lr'])})"),
            ("Difference", tested("difference")),
            ("Stopped", text("n_stopped")),
            ("Diverged", text("n_diverged")),
        ),
    )
