"""What advice consists of, and the columns of the derived table `advice`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from dashboards.correlation_statistics import Estimate
from dashboards.finetune_trials import CHANGED, SETTING, Arm, Row
from jobs.columns import INTEGER, KEYS, REAL, TEXT, TRUTH, Column
from jobs.finetune_tables import FINETUNE_TABLES

SKILL = "skill"
NO_MORE = "no more than the step"
NOT_SHOWN = "skill not shown"
NO_SKILL = "no skill"
TOO_FEW = "too little to judge"


@dataclass(frozen=True)
class Judgement:
    """How well net gain is predicted where it was held out; the columns of that name say more.

    Attributes:
        n: Checkpoints with trials.
        predictors: Those that are known at all of them.
        predictor: The one chosen over all of them; None where there are too few.
        verdict: Whether geometry has skill.
        skill: Of nested leave-one-out; None where it is not defined.
        skill_low, skill_high: Its interval.
        skill_pvalue: Its p.
        spearman: Of predictions and outcomes.
        skill_log_step: Skill of log step alone.
        regret, regret_log_step, regret_last: What the choices would have missed.
        independent: Whether p and interval hold.
    """

    n: int
    predictors: str
    predictor: str | None = None
    verdict: str = TOO_FEW
    skill: float | None = None
    skill_low: float | None = None
    skill_high: float | None = None
    skill_pvalue: float | None = None
    spearman: float | None = None
    skill_log_step: float | None = None
    regret: float | None = None
    regret_log_step: float | None = None
    regret_last: float | None = None
    independent: bool | None = None


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that could be fine-tuned.

    Attributes:
        step: Its step.
        revision: Its name.
        net_gain: Measured, over seeds; None where it has no trials.
        loss_post: Likewise.
        predictor_value: What the prediction is made from.
        predicted: Predicted net gain and its interval; None where geometry has no skill.
        extrapolated: Whether its predictor lies beyond those of all checkpoints with trials.
        place: From 1 on by measured or else predicted net gain; None where neither is known.
        recommended: Whether it is the one to fine-tune.
    """

    step: int
    revision: str
    net_gain: Estimate | None
    loss_post: Estimate | None
    predictor_value: float | None
    predicted: tuple[float, float, float] | None
    extrapolated: bool | None
    place: int | None = None
    recommended: bool = False

    @property
    def expected(self) -> float | None:
        """Net gain as measured, else as predicted."""
        if self.net_gain is not None:
            return self.net_gain.mean
        return None if self.predicted is None else self.predicted[0]


@dataclass(frozen=True)
class Advice:
    """What is known of which checkpoint of a model to fine-tune on a task.

    Attributes:
        label: Name of model and task for people.
        arm: The trials: plain LoRA.
        judgement: Whether geometry can tell.
        candidates: All checkpoints, by place, then by step.
    """

    label: str
    arm: Arm
    judgement: Judgement
    candidates: tuple[Candidate, ...]


_KNOWN = {column.name: column for column in (*KEYS, *FINETUNE_TABLES["finetunes"])}

COLUMNS = (
    *(_KNOWN[name] for name in (*SETTING, *CHANGED)),
    Column("lr", REAL, "learning rate of the trials"),
    Column(
        "verdict",
        TEXT,
        f"{SKILL}: skill is above 0, shown (p of at most 5 % below n = 10, else the whole interval "
        f"above 0) and above skill_log_step; {NO_MORE}: shown, but log step does as well; "
        f"{NOT_SHOWN}; {NO_SKILL}: 0 or less; {TOO_FEW}: fewer than 5 checkpoints with trials, or "
        "no predictor that is known at all of them. Only `skill` predicts and recommends",
    ),
    Column("n", INTEGER, "checkpoints with trials"),
    Column("predictors", TEXT, "what was chosen from: known at all checkpoints with trials"),
    Column(
        "predictor",
        TEXT,
        "rankme, alpha_req: as in geometry, last layer; norm_cv, overlap_std: as in head; "
        "heldout_loss: of a plain text; the one whose line has the least leave-one-out error",
    ),
    Column(
        "skill",
        REAL,
        "1 − MSE/MSE of the mean, leave-one-out: each checkpoint's net gain is predicted by a line "
        "on one predictor, which is chosen and fitted without it, and by the others' mean",
    ),
    Column(
        "skill_low",
        REAL,
        "lower end of the 95 % percentile interval by a bootstrap over checkpoints; null below "
        "n = 10",
    ),
    Column("skill_high", REAL, "upper end"),
    Column(
        "skill_pvalue",
        REAL,
        "share of all n! orders of the net gains with as much skill, every choice made anew; null "
        "from n = 10 on",
    ),
    Column(
        "spearman",
        REAL,
        "Spearman of held-out predictions and net gains; it tends below 0 "
        "where there is no skill, as the mean of the others does",
    ),
    Column("skill_log_step", REAL, "skill of a line on ln(step + 1), which knows no geometry"),
    Column(
        "regret",
        REAL,
        "best net gain less that of the checkpoint whose held-out prediction is the highest",
    ),
    Column("regret_log_step", REAL, "likewise by the line on ln(step + 1)"),
    Column("regret_last", REAL, "best net gain less that of the last checkpoint with trials"),
    Column(
        "independent",
        TRUTH,
        "false where predictor and net gain both trend over training (|Spearman| with the step of "
        "at least 0.8): checkpoints are no independent draws then, and p and interval don't hold",
    ),
    *(_KNOWN[name] for name in ("revision", "step")),
    Column(
        "place",
        INTEGER,
        "from 1 on by net gain, measured or else predicted; null where neither is known",
    ),
    Column("recommended", TRUTH, "the candidate to fine-tune, where the verdict is `skill`"),
    Column("net_gain", REAL, "measured: mean over seeds; null for a checkpoint without trials"),
    Column("net_gain_low", REAL, "lower end of its 95 % t-interval over seeds"),
    Column("net_gain_high", REAL, "upper end"),
    Column("n_seeds", INTEGER, "seeds that it is the mean of"),
    Column("loss_post", REAL, "validation loss after training, mean over seeds", "nats/token"),
    Column("predictor_value", REAL, "the predictor at the candidate"),
    Column("predicted", REAL, "net gain by the line through all checkpoints with trials"),
    Column(
        "predicted_low",
        REAL,
        "lower end of its 95 % interval, t times the root mean square of the held-out errors, "
        "wider away from the middle",
    ),
    Column("predicted_high", REAL, "upper end"),
    Column(
        "extrapolated",
        TRUTH,
        "whether its predictor lies beyond all checkpoints with trials: never recommended then "
        "unless it was measured",
    ),
)
"""Columns of the table."""

SCHEMA = pa.schema([column.field() for column in COLUMNS])


def advice_rows(found: Sequence[Advice]) -> list[Row]:
    """Returns the rows of the table, as plain values."""
    rows: list[Row] = []
    for advice in found:
        shared = advice.arm.labels | {"lr": advice.arm.lr} | asdict(advice.judgement)
        for candidate in advice.candidates:
            gain = candidate.net_gain
            predicted = candidate.predicted or (None, None, None)
            row = shared | {
                "revision": candidate.revision,
                "step": candidate.step,
                "place": candidate.place,
                "recommended": candidate.recommended,
                "net_gain": gain.mean if gain else None,
                "net_gain_low": gain.low if gain else None,
                "net_gain_high": gain.high if gain else None,
                "n_seeds": gain.n if gain else 0,
                "loss_post": candidate.loss_post.mean if candidate.loss_post else None,
                "predictor_value": candidate.predictor_value,
                **dict(
                    zip(("predicted", "predicted_low", "predicted_high"), predicted, strict=True)
                ),
                "extrapolated": candidate.extrapolated,
            }
            rows.append({name: row[name] for name in SCHEMA.names})
    return rows
