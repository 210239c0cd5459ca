"""Tables of what goes with fine-tunability, of what norms go with, and of sizes of updates."""

from collections.abc import Sequence

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
from dashboards.finetune_trials import Row
from dashboards.finetune_words import coefficient, correlation, interval, size
from dashboards.null_models import CRITERION, VERDICTS, share


def correlations_table(rows: Sequence[Row]) -> Table:
    """Puts both outcomes of a predictor into one line."""
    lines: dict[tuple[str, ...], Row] = {}
    labels = ("setting", "rate", "predictor", "dataset", "seq_len", "n_sequences", "scale")
    for row in rows:
        key = tuple(str(row[name]) for name in (*labels, "predictor_dtype"))
        key += (str(row["sequences_fingerprint"]),)
        lines.setdefault(key, dict(row))[row["outcome"]] = row

    def predictor(row: Row) -> str:
        scale = "" if row["scale"] is None else f", γ = {row['scale']:g}"
        text = "" if row["dataset"] is None else f", {row['dataset']}"
        return f"{row['predictor']}{scale}{text}{' (null model)' if row['is_null_model'] else ''}"

    def partial(row: Row) -> str:
        of = row["net_gain"]
        ends = interval(of["partial_low"], of["partial_high"], coefficient)
        return f"{coefficient(of['partial_given_log_step'])}{ends}"

    def differences(row: Row) -> str:
        return coefficient(row["net_gain"]["differences_pearson"])

    return table(
        "correlations",
        "What goes with fine-tunability (Table 1)",
        "Pearson r over checkpoints, 95 % Fisher intervals, exact permutation p below n = 10. "
        "Where predictor and outcome both trend over training, checkpoints are no independent "
        "draws: interval and p don't hold then, and only what null models don't give as well says "
        "something. Beside each predictor, what the step, the loss before and random walks give of "
        f"net gain. {CRITERION}",
        lines.values(),
        (
            ("Predictor", predictor),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}, {row['rate']} rate"),
            ("Fine-tunability", lambda row: correlation(row["finetunability"])),
            ("Net gain", lambda row: correlation(row["net_gain"])),
            ("Log step alone", lambda row: coefficient(row["net_gain"]["null_log_step"])),
            ("Loss alone", lambda row: coefficient(row["net_gain"]["null_loss"])),
            ("Random walks", lambda row: share(row["net_gain"]["walk_pvalue"])),
            ("Net gain, Spearman", lambda row: coefficient(row["net_gain"]["spearman"])),
            ("Net gain given log step", partial),
            ("First differences", differences),
            ("Survives", lambda row: VERDICTS[row["net_gain"]["survives"]]),
            ("Seeds", text("n_seeds")),
        ),
    )


def tasks_table(rows: Sequence[Row]) -> Table:
    """Shows rows of `task_rows`."""
    return table(
        "tasks",
        "Across tasks (Section 4.7)",
        "r of norm CV with the outcome beside that of log step.",
        rows,
        (
            ("Setting", text("setting")),
            ("Outcome", text("outcome")),
            ("Norm CV", correlation),
            ("Log step", signed("null_r", coefficient)),
            ("Lowest", shown_plain("lowest")),
            ("Highest", shown_plain("highest")),
        ),
    )


def semantics_table(rows: Sequence[Row]) -> Table:
    """Shows rows of `semantics_rows`."""

    def pearson(name: str) -> Cell:
        def cell(row: Row) -> str:
            low, high = (row[f"pearson_norm_{name}_{end}"] for end in ("low", "high"))
            return (
                f"{coefficient(row[f'pearson_norm_{name}'])}{interval(low, high, coefficient)}; "
                f"Spearman {coefficient(row[f'spearman_norm_{name}'])}"
            )

        return cell

    def tokens(name: str) -> Cell:
        return lambda row: ", ".join(map(repr, row[name])) or "–"

    return table(
        "semantics",
        "What norms go with (Section 4.6)",
        "The last head that was measured. The paper takes the BPE index for frequency; "
        "counts in a text say it themselves.",
        rows,
        (
            ("Model", lambda row: f"{row['suite']}/{row['model']}, step {row['step']:,}"),
            ("Tokens", text("n_tokens")),
            ("Norm with BPE index", pearson("token_id")),
            ("Norm with ln(1 + count)", pearson("unigram")),
            ("Counts of", text("unigram_dataset")),
            ("Highest norms", tokens("highest_norm_tokens")),
            ("Lowest norms", tokens("lowest_norm_tokens")),
            ("Norm range, first", shown_plain("first_norm_range")),
            ("Largest", shown_plain("largest_norm_range")),
        ),
    )


def updates_table(rows: Sequence[Row]) -> Table:
    """Shows rows of `update_rows`."""
    return table(
        "updates",
        "How far the head's rows moved, by norm (Section 5)",
        "Last checkpoint, plain LoRA; means over seeds with 95 % t-intervals. Expected: ρ if all "
        "tokens moved as far as the middle ones.",
        rows,
        (
            ("Tenth", text("decile")),
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}, step {row['step']:,}"),
            ("Tokens", lambda row: f"{row['tokens_of']}, {row['n']}"),
            ("‖w‖", shown_plain("norm_mean")),
            ("‖Δw‖", estimated("update_mean", size)),
            ("ρ", estimated("relative_update_mean", size)),
            ("Expected", shown_plain("expected_relative")),
            ("Seeds", text("update_mean_n")),
        ),
    )


def betas_table(rows: Sequence[Row]) -> Table:
    """Shows rows of `beta_rows`."""
    return table(
        "betas",
        "Slope β of ln ‖Δw‖ on ln ‖w‖",
        "Theory: 0. Means over seeds with 95 % t-intervals; the standard error is one trial's, "
        "over its tokens.",
        rows,
        (
            ("Trials", lambda row: f"{row['setting']}: {row['arm']}"),
            ("Step", shown_step),
            ("β", tested("beta")),
            ("Standard error", shown_plain("beta_se")),
            ("Tokens of the examples", estimated("beta_seen")),
            ("Others", estimated("beta_unseen")),
            ("Given their count", estimated("beta_given_count")),
            ("Seeds", text("beta_n")),
        ),
    )


def sensitivity_table(rows: Sequence[Row]) -> Table:
    """Shows rows of `sensitivity_rows`."""
    return table(
        "sensitivity",
        "Loss under noise on the weights",
        "The rival predictor: increase in nats per token, means over draws with 95 % t-intervals.",
        rows,
        (
            ("Model", lambda row: f"{row['suite']}/{row['model']}"),
            ("Text", text("dataset")),
            ("γ", shown_plain("scale")),
            ("Step", shown_step),
            ("Increase", tested("loss_increase")),
            ("Draws", text("loss_increase_n")),
        ),
    )
