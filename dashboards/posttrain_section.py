"""The section on post-training: its verdicts, and its tables as the page shows them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dashboards.finetune_layout import Cell, Table, shown_plain, table, text
from dashboards.finetune_section import Section
from dashboards.finetune_words import effect, interval, number, size
from dashboards.numbers import plain, with_error
from dashboards.passk_comparisons import Comparison, Refused, comparisons
from dashboards.posttrain_judgement import CRITERIA
from dashboards.posttrain_read import Posttrained
from dashboards.posttrain_stages import answer_rows, signed, stage_rows
from dashboards.posttrain_verdicts import verdicts
from dashboards.summary import Difference
from dashboards.tables import Row


def posttrain_section(found: Posttrained) -> Section:
    """Puts the section together.

    Args:
        found: What is known.

    Returns:
        Verdicts and tables.
    """
    compared, refused = comparisons(found)
    made = [
        _stages(stage_rows(found)),
        _answers(answer_rows(found)),
        _differences(compared),
        _crossovers(compared),
        _refused(refused),
        _winrates(found.winrates),
    ]
    return Section(CRITERIA, verdicts(found, compared, refused), [t for t in made if t.rows])


def _table(
    key: str, title: str, note: str, rows: Iterable[Row], columns: Sequence[tuple[str, Cell]]
) -> Table:
    return replace(table(key, title, note, rows, columns), key=f"posttrain-{key}")


def _between(name: str) -> Cell:
    def shown(row: Row) -> str:
        return f"{plain(row[f'{name}_start'])} → {plain(row[f'{name}_end'])}"

    return shown


def _measured(name: str, side: str) -> Cell:
    def shown(row: Row) -> str:
        found = row[f"geometry_{side}"]
        return "–" if found is None else with_error(found[name], found[f"{name}_se"])

    return shown


def _changed(row: Row) -> str:
    found: Difference | None = row["difference"]
    if found is None:
        return "–"
    return signed(found) + ("" if found.se is None or found.paired else ", separate errors")


def _stages(rows: Sequence[Row]) -> Table:
    return _table(
        "stages",
        "What each stage does to geometry, head and loss",
        "At the start and at the end of each stage, ± one standard error over the sequences; that "
        "of the difference is paired by sequence. Steps count from the chain's beginning.",
        rows,
        (
            ("Chain", text("chain")),
            ("Seed", text("seed")),
            ("Stage", text("stage")),
            ("Steps", text("steps")),
            ("Text", text("text")),
            ("RankMe, start", _measured("rankme", "start")),
            ("End", _measured("rankme", "end")),
            ("Difference", _changed),
            ("α-ReQ, start", _measured("alpha_req", "start")),
            ("End", _measured("alpha_req", "end")),
            ("Norm CV", _between("norm_cv")),
            ("Held-out loss", _between("loss")),
        ),
    )


def _answers(rows: Sequence[Row]) -> Table:
    def largest(row: Row) -> str:
        return f"{_between('most')(row)} (k = {row['most']})"

    def smallest(row: Row) -> str:
        return _between("least")(row) + (f" (k = {row['least']})" if row["least"] != 1 else "")

    def guessing(name: str) -> Cell:
        return _between(f"{name}_guessing")

    return _table(
        "answers",
        "What each stage does to answers",
        "Start → end. Guessing: pass@k of drawing from the checkpoint's own answers to all "
        "problems, whatever the problem.",
        rows,
        (
            ("Chain", text("chain")),
            ("Seed", text("seed")),
            ("Stage", text("stage")),
            ("Problems", text("problems")),
            ("Sampling", text("sampling")),
            ("pass@1", smallest),
            ("Guessing", guessing("least")),
            ("pass@k at the largest k", largest),
            ("Guessing", guessing("most")),
            ("Well-formed", _between("well_formed")),
        ),
    )


def _differences(compared: Sequence[Comparison]) -> Table:
    def difference(row: Row) -> str:
        told = row["compared"].pooled
        place = row["place"]
        ends = interval(float(told.low[place]), float(told.high[place]))
        return f"{number(float(told.difference[place]))}{ends}"

    def seeds(row: Row) -> str:
        found = row["compared"].over_seeds(row["place"])
        return "1 seed" if found is None else effect(found)

    rows = [
        {
            **_identity(found),
            "compared": found,
            "place": place,
            "k": k,
            "earlier": float(found.pooled.earlier[place]),
            "later": float(found.pooled.later[place]),
        }
        for found in compared
        for place, k in enumerate(found.pooled.k)
    ]
    return _table(
        "passk",
        "Differences of pass@k",
        "Later less earlier, means over seeds, with 95 % bootstrap intervals over problems, paired "
        "by problem (2,000 draws); beside it the t-interval over seeds.",
        rows,
        (
            ("Compared", text("name")),
            ("Chain", text("chain")),
            ("Problems", text("problems")),
            ("k", text("k")),
            ("Earlier", shown_plain("earlier")),
            ("Later", shown_plain("later")),
            ("Difference", difference),
            ("Over seeds", seeds),
        ),
    )


def _crossovers(compared: Sequence[Comparison]) -> Table:
    rows = [
        {
            **_identity(found),
            "n": found.pooled.n,
            "at": "none" if found.pooled.crossover is None else size(found.pooled.crossover),
            "ends": interval(found.pooled.crossover_low, found.pooled.crossover_high, size).strip()
            or "–",
            "share": f"{found.pooled.share:.1%}",
        }
        for found in compared
        if len(found.pooled.k) > 1
    ]
    return _table(
        "crossovers",
        "Crossovers of pass@k",
        "Where the earlier checkpoint overtakes the later one for good, interpolated on log k. The "
        "interval covers the bootstrap draws that have one, whose share stands beside it.",
        rows,
        (
            ("Compared", text("name")),
            ("Chain", text("chain")),
            ("Problems", text("problems")),
            ("Number", text("n")),
            ("Crossover k", text("at")),
            ("95 % interval", text("ends")),
            ("Share of draws", text("share")),
        ),
    )


def _winrates(rows: Sequence[Row]) -> Table:
    def started(suite: str, model: str, step: str) -> Cell:
        def shown(row: Row) -> str:
            begun = "" if row[step] is None else f", from step {row[step]:,}"
            return f"{row[suite]}/{row[model]}{begun}"

        return shown

    def controlled(row: Row) -> str:
        value = row["length_controlled"]
        return f"none: {row['length_controlled_reason']}" if value is None else f"{value:.1f} %"

    return _table(
        "winrates",
        "Whose answers are preferred",
        "How often the judge prefers the answers of the first to those of the baseline, in both "
        "orders; 50 % if it has no preference. ± one standard error over the instructions.",
        rows,
        (
            ("Answers of", started("suite", "model", "start_step")),
            ("Stage", text("stage")),
            ("Baseline", started("baseline_suite", "baseline_model", "baseline_start_step")),
            ("Instructions", text("instructions")),
            ("Judge", text("judge")),
            ("Number", text("n")),
            ("Without a preference", text("n_null")),
            ("Win rate, %", lambda row: with_error(row["win_rate"], row["stderr"])),
            ("At equal lengths", controlled),
            ("The first is preferred, %", shown_plain("first_rate")),
        ),
    )


def _refused(refused: Sequence[Refused]) -> Table:
    return _table(
        "refused",
        "Not compared",
        "pass@k is compared only for the same problems, prompts, number of samples, temperature "
        "and nucleus.",
        [vars(found) for found in refused],
        (
            ("Compared", text("name")),
            ("Chain", text("chain")),
            ("Problems", text("problems")),
            ("Why not", text("reason")),
        ),
    )


def _identity(found: Comparison) -> Row:
    setting = found.setting
    sampling = f"N = {setting.n_samples}, temperature {setting.temperature:g}"
    return {
        "chain": found.chain,
        "name": found.name,
        "problems": f"{setting.problems}, {sampling}",
    }
