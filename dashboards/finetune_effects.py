"""What becomes of the claims about effects: equalizing, shuffling, ranks, sizes of updates."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dashboards.correlation_statistics import Estimate, estimate
from dashboards.finetune_comparisons import bases, growth, pooled, ranked, slopes
from dashboards.finetune_judgement import (
    FAILS,
    HOLDS,
    MISSING,
    NEGLIGIBLE_BETA,
    NEGLIGIBLE_SHARE,
    OPEN,
    RANK_SHARE,
    Verdict,
    judge,
)
from dashboards.finetune_mechanism import on_head
from dashboards.finetune_tables import Finetuned, Setting, arm_label, correlations_of, is_plain
from dashboards.finetune_trials import Arm, Point, Row, finite, paired
from dashboards.finetune_words import correlation, effect, number

_BETAS = {
    "beta": "all tokens",
    "beta_seen": "tokens of the training examples",
    "beta_unseen": "other tokens",
    "beta_given_count": "those of the examples, their count held constant",
}


def equalizing(setting: Setting) -> list[Verdict]:
    """Claim (c): equalizing the norms recovers fine-tunability, the more the higher norm CV."""
    claims = ("Equalizing the norms improves fine-tuning", "Its effect grows with norm CV")
    pair = _pair(setting, "equalize")
    if pair is None:
        return [Verdict(claim, MISSING, "No trials with equalized norms.") for claim in claims]
    plain, arm = pair
    gains = paired(plain.fixed, arm.fixed, "net_gain")
    ratios = paired(plain.fixed, arm.fixed, "finetunability")
    small = _small(plain)
    first = Verdict(claims[0], judge(pooled(gains), small), _effects(plain, arm))
    grows = growth(setting, gains)
    if grows is None:
        return [first, Verdict(claims[1], MISSING, "No three checkpoints that differ in norm CV.")]
    known = [setting.norm_cv[p.revision] for p in arm.fixed if p.revision in setting.norm_cv]
    span = max(known) - min(known)
    sentence = (
        f"From the lowest to the highest norm CV ({min(known):.3g} to {max(known):.3g}) the "
        f"difference changes by {effect(_times(grows, span))} in net gain, by "
        f"{effect(_times(growth(setting, ratios), span))} in finetunability."
    )
    return [first, Verdict(claims[1], judge(_times(grows, span), small), sentence)]


def shuffling(setting: Setting) -> Verdict:
    """Claim (d): shuffling the norms across tokens makes fine-tuning worse."""
    claim = "Shuffling the norms makes fine-tuning worse"
    pair = _pair(setting, "shuffle")
    if pair is None:
        return Verdict(claim, MISSING, "No trials with shuffled norms.")
    plain, arm = pair
    worse = _times(pooled(paired(plain.fixed, arm.fixed, "net_gain")), -1)
    return Verdict(claim, judge(worse, _small(plain)), _effects(plain, arm))


def ranks(found: Finetuned, setting: Setting) -> Verdict:
    """Claim (e): a larger rank of the adapters does not mitigate the effect of norm CV."""
    claim = "A larger rank does not mitigate it"
    groups = ranked(setting)
    if not groups:
        return Verdict(claim, MISSING, "One rank only.")
    arms = groups[0]
    small, large = slopes(setting, arms[0]), slopes(setting, arms[-1])
    base = estimate(list(small.values()))
    if base is None or not small.keys() & large.keys():
        return Verdict(claim, MISSING, "No three checkpoints that differ in norm CV.")
    words = "; ".join(
        f"rank {arm.labels['rank']}: {correlation(_of(found, arm, 'norm_cv'))}" for arm in arms
    )
    told = f"Norm CV with net gain, {words}. Slope at rank {arms[0].labels['rank']}: {effect(base)}"
    if base.low is None or base.high is None or base.high >= 0:
        fails = base.low is not None and base.low > 0
        told += ": there is no fall to mitigate" if fails else ": no fall is shown to mitigate"
        return Verdict(claim, FAILS if fails else OPEN, f"{told}.")
    change = estimate([(large[s] - small[s]) / base.mean for s in small.keys() & large.keys()])
    outcome = OPEN
    if change is not None and change.low is not None and change.high is not None:
        if change.low > -RANK_SHARE:
            outcome = HOLDS
        elif change.high < -RANK_SHARE:
            outcome = FAILS
    rank = arms[-1].labels["rank"]
    told += f"; up to rank {rank} the fall grows by {effect(change)}, as a share of itself"
    return Verdict(claim, outcome, f"{told}.")


def updates(setting: Setting) -> Verdict:
    """Claim (g): updates of the head's rows don't depend on their norm."""
    claim = "How far a token's row moves does not depend on its norm (β = 0)"
    arm = next(iter(on_head(setting)), None)
    if arm is None or not is_plain(arm):
        return Verdict(claim, MISSING, "No trials of plain LoRA on the head.")
    betas = {name: pooled(_values(arm.fixed, name)) for name in _BETAS}
    beta = betas["beta"]
    outcome = OPEN
    if beta is not None and beta.low is not None and beta.high is not None:
        if beta.low > -NEGLIGIBLE_BETA and beta.high < NEGLIGIBLE_BETA:
            outcome = HOLDS
        elif beta.low > NEGLIGIBLE_BETA or beta.high < -NEGLIGIBLE_BETA:
            outcome = FAILS
    others = "; ".join(f"{name} {effect(betas[n])}" for n, name in _BETAS.items() if n != "beta")
    steeper = None if beta is None else beta.mean - 1
    return Verdict(
        claim,
        outcome,
        f"β = {effect(beta)}; {others}. The slope of the relative update ρ is β − 1 = "
        f"{number(steeper)} by its definition: that it falls with the norm says nothing.",
    )


def _pair(setting: Setting, intervention: str) -> tuple[Arm, Arm] | None:
    """Returns plain LoRA and the same with an intervention, where trials of both pair up."""
    for plain, beside in bases(setting):
        for arm in beside:
            if arm.labels["intervention"] == intervention and paired(
                plain.fixed, arm.fixed, "net_gain"
            ):
                return plain, arm
    return None


def _effects(plain: Arm, arm: Arm) -> str:
    """Tells the differences of an intervention from none, the last checkpoint's apart."""
    gains = paired(plain.fixed, arm.fixed, "net_gain")
    ratios = paired(plain.fixed, arm.fixed, "finetunability")
    last = max(gains)[:2]
    checkpoints = len({key[:2] for key in gains})
    end = estimate([value for key, value in gains.items() if key[:2] == last])
    base = estimate([point.trials[seed]["net_gain"]
                     for point in plain.fixed for seed in point.trials])  # fmt: skip
    parts = [
        f"{arm_label(plain)}: difference in net gain over {checkpoints} "
        f"{'checkpoint' if checkpoints == 1 else 'checkpoints'}: {effect(pooled(gains))} (plain "
        f"{number(None if base is None else base.mean)})",
        f"at step {last[0]:,} {effect(end)}",
        f"in finetunability {effect(pooled(ratios))}",
        f"damage, nats per token, {effect(pooled(_values(arm.fixed, 'damage')))}",
    ]
    if best := paired(plain.best, arm.best, "net_gain"):
        parts.append(f"in net gain at the best learning rates {effect(pooled(best))}")
    return f"{'; '.join(parts)}."


def _small(plain: Arm) -> float:
    """Returns the effect on net gain that is as good as none."""
    gains = [trial["net_gain"] for point in plain.fixed for trial in point.trials.values()]
    return NEGLIGIBLE_SHARE * abs(float(np.mean(gains)))


def _times(found: Estimate | None, factor: float) -> Estimate | None:
    if found is None or found.low is None or found.high is None:
        return None if found is None else replace(found, mean=found.mean * factor)
    low, high = sorted((found.low * factor, found.high * factor))
    return replace(found, mean=found.mean * factor, low=low, high=high)


def _values(points: Sequence[Point], column: str) -> dict[tuple[int, str, int], float]:
    return {
        (point.step, point.revision, seed): trial[column]
        for point in points
        for seed, trial in point.trials.items()
        if finite(trial[column])
    }


def _of(found: Finetuned, arm: Arm, predictor: str) -> Row | None:
    wanted = {"predictor": predictor, "outcome": "net_gain", "rate": "fixed"}
    return next(iter(correlations_of(found, arm, **wanted)), None)
