"""The section on fine-tunability: its verdicts, and its tables as the page shows them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dashboards.finetune_comparisons import causal_rows, rank_rows, rate_rows, remedy_rows
from dashboards.finetune_mechanism import beta_rows, semantics_rows, sensitivity_rows, update_rows
from dashboards.finetune_tables import Finetuned, correlation_rows, task_rows
from dashboards.finetune_trials import Row
from dashboards.finetune_verdicts import Verdict, verdicts
from dashboards.finetune_words import column, correlation, interval, number, pvalue
from dashboards.numbers import plain

Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Table:
    """A table as it is shown.

    Attributes:
        key: Name of its element in the page.
        title: Heading.
        note: What its columns mean.
        headings: Names of the columns; the first one names the row.
        rows: Their cells.
    """

    key: str
    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """What the section shows.

    Attributes:
        verdicts: Of each setting.
        tables: Those that have rows.
    """

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
        _correlations(correlation_rows(found)),
        _causal([row for setting in each for row in causal_rows(setting)]),
        _ranks([row for setting in each for row in rank_rows(found, setting)]),
        _remedies([row for setting in each for row in remedy_rows(setting)]),
        _tasks(task_rows(found)),
        _semantics(semantics_rows(found)),
        _updates([row for setting in each for row in update_rows(found, setting)]),
        _betas([row for setting in each for row in beta_rows(setting)]),
        _sensitivity(sensitivity_rows(found)),
        _rates([row for setting in each for row in rate_rows(setting)]),
    ]
    return Section(verdicts(found), [table for table in made if table.rows])


def _table(
    key: str, title: str, note: str, rows: Iterable[Row], columns: Sequence[tuple[str, Cell]]
) -> Table:
    cells = tuple(tuple(cell(row) for _, cell in columns) for row in rows)
    return Table(f"finetune-{key}", title, note, tuple(name for name, _ in columns), cells)


def _text(name: str) -> Cell:
    return lambda row: "–" if row[name] is None else str(row[name])


def _step(row: Row) -> str:
    return "all" if row["step"] is None else f"{row['step']:,}"


def _plain(name: str) -> Cell:
    return lambda row: plain(row[name])


def _number(name: str) -> Cell:
    return lambda row: number(row[name])


def _estimate(name: str) -> Cell:
    return lambda row: column(row, name)


def _difference(name: str) -> Cell:
    """Shows an estimate with its p and the number of pairs."""
    return lambda row: (
        "–" if row[name] is None else f"{column(row, name)}{pvalue(row[f'{name}_pvalue'])}"
    )


def _correlations(rows: Sequence[Row]) -> Table:
    """Puts both outcomes of a predictor into one line."""
    lines: dict[tuple[str, ...], Row] = {}
    labels = ("setting", "rate", "predictor", "dataset", "seq_len", "n_sequences", "scale")
    for row in rows:
        key = tuple(str(row[name]) for name in (*labels, "predictor_dtype"))
        key += (str(row["sequences_fingerprint"]),)
        lines.setdefault(key, row)[row["outcome"]] = row

    def predictor(row: Row) -> str:
        scale = "" if row["scale"] is None else f", γ = {row['scale']:g}"
        text = "" if row["dataset"] is None else f", {row['dataset']}"
        return f"{row['predictor']}{scale}{text}{' (null model)' if row['is_null_model'] else ''}"

    def partial(row: Row) -> str:
        of = row["net_gain"]
        ends = interval(of["partial_low"], of["partial_high"])
        return f"{number(of['partial_given_log_step'])}{ends}"

    return _table(
        "correlations",
        "What goes with fine-tunability (Table 1)",
        "Pearson r over checkpoints, 95 % Fisher intervals, exact permutation p below n = 10. Where "
        "predictor and outcome both trend over training, checkpoints are no independent draws: "
        "interval and p don't hold, and null models do as well. The paper has −0.84 and −0.99 for "
        "norm CV, 0.44 and 0.22 for the overlaps' standard deviation.",
        lines.values(),
        (
            ("Predictor", predictor),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}, {row['rate']} rate"),
            ("Fine-tunability", lambda row: correlation(row["finetunability"])),
            ("Net gain", lambda row: correlation(row["net_gain"])),
            ("Net gain, Spearman", lambda row: number(row["net_gain"]["spearman"])),
            ("Net gain given log step", partial),
            ("First differences", lambda row: number(row["net_gain"]["differences_pearson"])),
            ("Seeds", _text("n_seeds")),
        ),
    )


def _causal(rows: Sequence[Row]) -> Table:
    changed = "" if not rows else " Differences are paired by seed, p by t-test."
    return _table(
        "causal",
        "Norms changed before training (Table 2)",
        "Means over seeds with 95 % t-intervals. Fine-tunability is relative to the loss after the "
        "intervention, so damage that training mends raises it; net gain is relative to the "
        f"untouched model.{changed}",
        rows,
        (
            ("Norms", _text("intervention")),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", _step),
            ("Norm CV", _plain("norm_cv")),
            ("Fine-tunability", _estimate("finetunability")),
            ("Change, %", _number("change_percent")),
            ("Difference", _difference("finetunability_difference")),
            ("Damage", _estimate("damage")),
            ("Net gain", _estimate("net_gain")),
            ("Difference of net gain", _difference("net_gain_difference")),
            ("Seeds", _text("net_gain_n")),
        ),
    )


def _ranks(rows: Sequence[Row]) -> Table:
    return _table(
        "ranks",
        "Ranks (Table 3)",
        "Spread: largest less smallest mean over the checkpoints. Slope on norm CV: mean over "
        "seeds. Differences from the smallest rank are paired over checkpoints and seeds.",
        rows,
        (
            ("Rank", _text("rank")),
            ("Trials", lambda row: f"{row['setting']}: {row['targets']}"),
            ("Outcome", _text("outcome")),
            ("r with norm CV", correlation),
            ("Spread", _plain("spread")),
            ("Slope on norm CV", _difference("slope")),
            ("Difference", _difference("difference")),
            ("Pairs", _text("difference_n")),
        ),
    )


def _remedies(rows: Sequence[Row]) -> Table:
    return _table(
        "remedies",
        "Remedies against plain LoRA on the same targets",
        "Net gain, means over seeds; differences paired by seed. The paper proposes "
        "inverse_norm_lr and norm_group_lora; its Equation 3 implies norm_lr.",
        rows,
        (
            ("Method", _text("arm")),
            ("Setting", _text("setting")),
            ("Step", _step),
            ("Norm CV", _plain("norm_cv")),
            ("Net gain", _estimate("net_gain")),
            ("Plain LoRA", _estimate("plain")),
            ("Difference", _difference("difference")),
            ("Seeds", _text("difference_n")),
        ),
    )


def _tasks(rows: Sequence[Row]) -> Table:
    return _table(
        "tasks",
        "Across tasks (Section 4.7)",
        "r of norm CV with the outcome beside that of log step.",
        rows,
        (
            ("Setting", _text("setting")),
            ("Outcome", _text("outcome")),
            ("Norm CV", correlation),
            ("Log step", _number("null_r")),
            ("Lowest", _plain("lowest")),
            ("Highest", _plain("highest")),
        ),
    )


def _semantics(rows: Sequence[Row]) -> Table:
    def pearson(name: str) -> Cell:
        def cell(row: Row) -> str:
            ends = interval(row[f"pearson_norm_{name}_low"], row[f"pearson_norm_{name}_high"])
            return (
                f"{number(row[f'pearson_norm_{name}'])}{ends}; Spearman "
                f"{number(row[f'spearman_norm_{name}'])}"
            )

        return cell

    def tokens(name: str) -> Cell:
        return lambda row: ", ".join(map(repr, row[name])) or "–"

    return _table(
        "semantics",
        "What norms go with (Section 4.6)",
        "The last head that was measured. The paper takes the BPE index for frequency (r = 0.04); "
        "counts in a text say it themselves.",
        rows,
        (
            ("Model", lambda row: f"{row['suite']}/{row['model']}, step {row['step']:,}"),
            ("Tokens", _text("n_tokens")),
            ("Norm with BPE index", pearson("token_id")),
            ("Norm with ln(1 + count)", pearson("unigram")),
            ("Counts of", _text("unigram_dataset")),
            ("Highest norms", tokens("highest_norm_tokens")),
            ("Lowest norms", tokens("lowest_norm_tokens")),
            ("Norm range, first", _plain("first_norm_range")),
            ("Largest", _plain("largest_norm_range")),
        ),
    )


def _updates(rows: Sequence[Row]) -> Table:
    return _table(
        "updates",
        "How far the head's rows moved, by norm (Section 5)",
        "Last checkpoint, plain LoRA; means over seeds with 95 % t-intervals. Expected: ρ if all "
        "tokens moved as far as the middle ones.",
        rows,
        (
            ("Tenth", _text("decile")),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}, step {row['step']:,}"),
            ("Tokens", lambda row: f"{row['tokens_of']}, {row['n']}"),
            ("‖w‖", _plain("norm_mean")),
            ("‖Δw‖", _estimate("update_mean")),
            ("ρ", _estimate("relative_update_mean")),
            ("Expected", _plain("expected_relative")),
            ("Seeds", _text("update_mean_n")),
        ),
    )


def _betas(rows: Sequence[Row]) -> Table:
    return _table(
        "betas",
        "Slope β of ln ‖Δw‖ on ln ‖w‖",
        "Theory: 0. Means over seeds with 95 % t-intervals; the standard error is one trial's, over "
        "its tokens.",
        rows,
        (
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", _step),
            ("β", _difference("beta")),
            ("Standard error", _plain("beta_se")),
            ("Tokens of the examples", _estimate("beta_seen")),
            ("Others", _estimate("beta_unseen")),
            ("Given their count", _estimate("beta_given_count")),
            ("Seeds", _text("beta_n")),
        ),
    )


def _sensitivity(rows: Sequence[Row]) -> Table:
    return _table(
        "sensitivity",
        "Loss under noise on the weights",
        "The rival predictor: increase in nats per token, means over draws with 95 % t-intervals.",
        rows,
        (
            ("Model", lambda row: f"{row['suite']}/{row['model']}"),
            ("Text", _text("dataset")),
            ("γ", _plain("scale")),
            ("Step", _step),
            ("Increase", _difference("loss_increase")),
            ("Draws", _text("loss_increase_n")),
        ),
    )


def _rates(rows: Sequence[Row]) -> Table:
    def rates(name: str) -> Cell:
        return lambda row: ", ".join(f"{lr:g}" for lr in row[name])

    def edge(row: Row) -> str:
        return "–" if row["edge"] is None else f"at the {row['edge']} rate tried"

    return _table(
        "rates",
        "Best learning rates",
        "Each seed's best of the trials that the search did not stop. It is picked by the loss that "
        "is shown, so it is biased upwards; at the edge of what was tried, a better one may lie "
        "beyond.",
        rows,
        (
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", _step),
            ("Best, each seed", rates("lrs")),
            ("Tried", rates("tried")),
            ("Edge", edge),
            ("Net gain", _estimate("net_gain")),
            ("At the fixed rate", lambda row: f"{column(row, 'fixed')} ({plain(row['fixed_lr'])})"),
            ("Difference", _difference("difference")),
            ("Stopped", _text("n_stopped")),
            ("Diverged", _text("n_diverged")),
        ),
    )
