"""Which checkpoint to fine-tune, in words and tables: every one of them follows from the rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.advisor_table import (
    NO_MORE,
    NO_SKILL,
    NOT_SHOWN,
    SKILL,
    TOO_FEW,
    Advice,
    Candidate,
    Judgement,
)
from dashboards.correlation_statistics import EXACT_BELOW, Estimate
from dashboards.finetune_layout import Table
from dashboards.finetune_words import coefficient, interval, number, pvalue, size
from dashboards.numbers import plain

NOTE = (
    "Each checkpoint's net gain is predicted from the others', by a line on one metric of geometry "
    "that is chosen without it. Skill is 1 − MSE/MSE of the others' mean: 1 is perfect, 0 or less "
    "is none. Geometry recommends a checkpoint only where its skill is shown and above that of the "
    "step alone. Net gain is what fine-tuning adds, not where it ends."
)
"""What the section's numbers mean."""

_SHOWN = 20
_WHY = {
    NO_MORE: "the step alone predicts as well",
    NOT_SHOWN: "its skill could be chance",
    NO_SKILL: "it has none where it is tested",
    TOO_FEW: "there is too little to judge it by",
}


@dataclass(frozen=True)
class Section:
    """What the report shows.

    Attributes:
        note: What the numbers mean.
        judged: Of each series its name, the verdict and what it follows from.
        tables: The candidates of each series, those that have a net gain, measured or predicted.
    """

    note: str
    judged: list[tuple[str, str, str]]
    tables: list[Table]


def advisor_section(found: Sequence[Advice]) -> Section:
    """Puts the section together.

    Args:
        found: What `advise` found; at least one.
    """
    judged = [(advice.label, advice.judgement.verdict, sentence(advice)) for advice in found]
    tables = [candidates_table(advice, f"advice-{n}") for n, advice in enumerate(found, start=1)]
    return Section(NOTE, judged, tables)


def sentence(advice: Advice) -> str:
    """Says which checkpoint to fine-tune, or why geometry can't tell, and what that rests on."""
    judgement = advice.judgement
    chosen = next((c for c in advice.candidates if c.recommended), None)
    parts = []
    if chosen is None:
        why = _WHY.get(judgement.verdict, "it would have to be extrapolated")
        parts.append(f"Geometry recommends no checkpoint: {why}.")
    else:
        parts.append(f"Fine-tune {_name(chosen)}: net gain {_gain(chosen)}.")
    parts += [_skill(judgement), _best(advice)]
    return " ".join(filter(None, parts))


def candidates_table(advice: Advice, key: str) -> Table:
    """Shows the candidates that have a net gain, the best ones first.

    Args:
        advice: A series.
        key: Name of the element in the page.
    """
    known = [candidate for candidate in advice.candidates if candidate.place is not None]
    unknown = len(advice.candidates) - len(known)
    predicts = advice.judgement.verdict == SKILL
    note = f"Predicted by {advice.judgement.predictor}. " if predicts else ""
    note += "Intervals cover 95 %: over seeds where measured. "
    if len(known) > _SHOWN:
        note += f"The first {_SHOWN} of {len(known)}; the table `advice` has all. "
    if unknown:
        note += f"Of {unknown} more nothing is known. "
    rows = [
        (
            str(candidate.place),
            f"{candidate.step:,}",
            _estimated(candidate.net_gain),
            str(candidate.net_gain.n) if candidate.net_gain else "–",
            plain(candidate.loss_post.mean if candidate.loss_post else None),
            plain(candidate.predictor_value),
            _predicted(candidate),
            "yes" if candidate.recommended else "–",
        )
        for candidate in known[:_SHOWN]
    ]
    headings = (
        *("Place", "Step", "Net gain", "Seeds", "Loss after"),
        advice.judgement.predictor or "Predictor",
        *("Predicted net gain", "Recommended"),
    )
    return Table(
        key, f"Checkpoints to fine-tune: {advice.label}", note.strip(), headings, tuple(rows)
    )


def aligned(table: Table) -> list[str]:
    """Returns a table as lines of text, its columns below each other."""
    lines = (table.headings, *table.rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _skill(judgement: Judgement) -> str:
    n = judgement.n
    if judgement.verdict == TOO_FEW:
        known = judgement.predictors or "none that is known at all of them"
        return f"Checkpoints with trials: {n}; metrics: {known}."
    if judgement.skill is None:
        return f"All {n} net gains are equal."
    kind = "exact permutation" if n < EXACT_BELOW else "bootstrap interval over checkpoints"
    ends = interval(judgement.skill_low, judgement.skill_high)
    told = (
        f"Held out, by one of {judgement.predictors} ({judgement.predictor} over all): skill "
        f"{number(judgement.skill)}{ends}{pvalue(judgement.skill_pvalue)} ({kind}), n = {n}, "
        f"Spearman {coefficient(judgement.spearman)}; log step alone: skill "
        f"{number(judgement.skill_log_step)}. The checkpoint that was predicted to be the best "
        f"gains {size(judgement.regret)} less than the best one, that by log step "
        f"{size(judgement.regret_log_step)}, the last one {size(judgement.regret_last)}."
    )
    if judgement.independent is False:
        told += (
            " Both trend over training: checkpoints are no independent draws, so that interval "
            "and p don't hold."
        )
    return told


def _best(advice: Advice) -> str:
    measured = [c for c in advice.candidates if c.net_gain is not None]
    best = max(measured, key=lambda c: c.net_gain.mean if c.net_gain else 0.0)
    ends = [(c.loss_post.mean, c) for c in measured if c.loss_post is not None]
    told = (
        f"Of the {len(measured)} measured, {_name(best)} gains most, {_estimated(best.net_gain)}; "
        "as the largest of them it is biased upwards."
    )
    if ends:
        loss, lowest = min(ends, key=lambda end: (end[0], end[1].step))
        told += f" The lowest loss after fine-tuning is {plain(loss)}, of {_name(lowest)}."
    return told


def _gain(candidate: Candidate) -> str:
    if candidate.net_gain is not None:
        return f"{_estimated(candidate.net_gain)}, measured"
    return f"{_predicted(candidate)}, predicted"


def _estimated(found: Estimate | None) -> str:
    return "–" if found is None else f"{number(found.mean)}{interval(found.low, found.high)}"


def _predicted(candidate: Candidate) -> str:
    if candidate.predicted is None:
        return "–"
    middle, low, high = candidate.predicted
    beyond = ", extrapolated" if candidate.extrapolated else ""
    return f"{number(middle)}{interval(low, high)}{beyond}"


def _name(candidate: Candidate) -> str:
    return f"step {candidate.step:,}"
