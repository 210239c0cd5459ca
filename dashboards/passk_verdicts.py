"""What becomes of the claims about pass@k: RLVR's gain, and who is ahead at large k."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dashboards.correlation_statistics import estimate
from dashboards.finetune_judgement import FAILS, HOLDS, MISSING, Verdict
from dashboards.finetune_words import effect, interval, number, size
from dashboards.numbers import plain
from dashboards.passk_comparisons import Comparison, Refused
from dashboards.posttrain_chains import Chain
from dashboards.posttrain_judgement import (
    LEAST_PROBLEMS,
    NEGLIGIBLE_PASS,
    WELL_FORMED,
    agreed,
    crossing,
    negative,
    over_problems,
    positive,
    shifted,
)
from dashboards.posttrain_read import Posttrained

READY = "Before RLVR at least 95 % of answers are well-formed, so that a gain is skill, not format"
RAISES = "RLVR raises pass@1"
OVERTAKES = "The model before RLVR overtakes it at large k"
BEYOND = "What the model before RLVR is ahead by at the largest k exceeds guessing"
BASE_OVERTAKES = "The checkpoint that the chain began from overtakes RLVR at large k"
BASE_BEYOND = "What the chain's beginning is ahead by at the largest k exceeds guessing"


@dataclass(frozen=True)
class _Asked:
    """What is compared for one set of problems."""

    compared: Comparison | None
    missing: str


def answered(
    found: Posttrained, chain: Chain, compared: Sequence[Comparison], refused: Sequence[Refused]
) -> list[Verdict]:
    """Judges the claims about pass@k of one chain.

    Args:
        found: What is known.
        chain: The chain.
        compared: Its comparisons.
        refused: Its pairs that cannot be compared.

    Returns:
        A verdict for each claim, RLVR stage, set of problems and setting.
    """
    places = [place for place, method in enumerate(chain.methods) if method == "rlvr"]
    if not places:
        nothing = "The chain has no RLVR stage."
        claims = (READY, RAISES, OVERTAKES, BEYOND)
        return [Verdict(claim, MISSING, nothing) for claim in claims]
    made: list[Verdict] = []
    for place in places:
        made += _ready(found, chain, place)
        for base in (False, True):
            asked = [
                _Asked(c, "") for c in compared if c.stage == place and c.base == base
            ] + [
                _Asked(None, f"{r.problems}: not comparable, {r.reason}.")
                for r in refused if r.stage == place and r.base == base
            ]  # fmt: skip
            if not asked and not base:
                asked = [_Asked(None, "No pass@k of both ends of the stage.")]
            for each in asked:
                made += _judged(each, base)
    return made


def _ready(found: Posttrained, chain: Chain, place: int) -> list[Verdict]:
    """Judges the precondition: whether answers had their form before RLVR."""
    shares: dict[tuple[str, str], list[float]] = {}
    for _, stage in chain.stages(place):
        if stage.start is None or stage.partial:
            continue
        for setting, rows in found.sampled.get(stage.start.key, {}).items():
            value = next(iter(rows.values()))["well_formed"]
            if value is not None:
                name = (setting.problems, f"temperature {setting.temperature:g}")
                shares.setdefault(name, []).append(value)
    if not shares:
        return [Verdict(READY, MISSING, "No answers of the checkpoint that RLVR started from.")]
    return [
        Verdict(
            READY,
            agreed(HOLDS if value >= WELL_FORMED else FAILS for value in values),
            f"{problems}, {how}: {', '.join(f'{value:.1%}' for value in values)} of its answers"
            f"{' (each seed)' if len(values) > 1 else ''}.",
        )
        for (problems, how), values in shares.items()
    ]


def _judged(asked: _Asked, base: bool) -> list[Verdict]:
    claims = (BASE_OVERTAKES, BASE_BEYOND) if base else (RAISES, OVERTAKES, BEYOND)
    found = asked.compared
    if found is None:
        return [Verdict(claim, MISSING, asked.missing) for claim in claims]
    later = [_overtakes(found, claims[-2]), _beyond(found, claims[-1])]
    return later if base else [_raises(found), *later]


def _raises(found: Comparison) -> Verdict:
    if found.pooled.k[0] != 1:
        return Verdict(RAISES, MISSING, f"{_where(found)}: pass@1 wasn't asked for.")
    change, seeds = over_problems(found, 0), found.over_seeds(0)
    outcome = positive((change, seeds), NEGLIGIBLE_PASS)
    sentence = f"{_where(found)}: {_values(found, 0)}{_over_seeds(found, 0)}."
    before = [next(iter(rows.values()))["well_formed"] for rows in found.earlier]
    if outcome == HOLDS and any(value is None or value < WELL_FORMED for value in before):
        sentence += " Its start lacks the form of answers too often to tell skill from format."
    return Verdict(RAISES, outcome, sentence)


def _overtakes(found: Comparison, claim: str) -> Verdict:
    told = found.pooled
    if len(told.k) < 2:
        return Verdict(claim, MISSING, f"{_where(found)}: a single k shows no crossover.")
    ends = f"{_values(found, 0)}; {_values(found, -1)}{_over_seeds(found, -1)}"
    if told.crossover is None:
        ahead = "no crossover"
        if told.difference[-1] < 0 and (told.difference <= 0).all():
            ahead += ", since the earlier one is never behind"
    else:
        ahead = f"crossover at k = {size(told.crossover)}"
    drawn = f"{told.share:.0%} of bootstrap draws have one"
    if told.share > 0:
        drawn += f" (k in{interval(told.crossover_low, told.crossover_high, size)})"
    counted = ""
    if len(found.seeds) > 1:
        some = sum(seed.crossover is not None for seed in found.seeds)
        counted = f", and {some} of {len(found.seeds)} seeds"
    sentence = f"{_where(found)}: {ends}; {ahead}; {drawn}{counted}."
    return Verdict(claim, crossing(found), sentence)


def _beyond(found: Comparison, claim: str) -> Verdict:
    """Judges the earlier one's lead at the largest k less the lead of its guessing curve."""
    pairs = found.guessing(-1)
    if pairs is None:
        return Verdict(claim, MISSING, f"{_where(found)}: the guessing curves aren't known.")
    guessed = _means(pairs)
    lead, by = negative(over_problems(found, -1)), guessed[0] - guessed[1]
    if lead.mean <= 0:
        told = f"{_where(found)}: at k = {found.pooled.k[-1]} it isn't ahead: {number(lead.mean)}"
        return Verdict(claim, FAILS, f"{told}{interval(lead.low, lead.high)}.")
    excess = shifted(lead, by)
    each = [
        -float(seed.difference[-1]) - (first - second)
        for seed, (first, second) in zip(found.seeds, pairs, strict=True)
    ]
    over = estimate(each) if len(each) > 1 else None
    return Verdict(
        claim,
        positive((excess, over), NEGLIGIBLE_PASS),
        f"{_where(found)}: at k = {found.pooled.k[-1]} it is ahead by {number(lead.mean)}, and its "
        f"guessing curve by {number(by)} ({plain(guessed[0])} against {plain(guessed[1])}); the "
        f"difference is {number(excess.mean)}{interval(excess.low, excess.high)}"
        + ("" if over is None else f", over seeds {effect(over)}")
        + ".",
    )


def _where(found: Comparison) -> str:
    few = "" if found.pooled.n >= LEAST_PROBLEMS else ", too few to decide"
    return (
        f"{found.setting.problems}, {found.name} ({found.pooled.n} problems{few}, "
        f"N = {found.setting.n_samples}, temperature {found.setting.temperature:g})"
    )


def _values(found: Comparison, place: int) -> str:
    told = found.pooled
    value, pairs = over_problems(found, place), found.guessing(place)
    known = "" if pairs is None else ", guessing {} and {}".format(*map(plain, _means(pairs)))
    return (
        f"pass@{told.k[place]} from {plain(float(told.earlier[place]))} to "
        f"{plain(float(told.later[place]))}, {number(value.mean)}"
        f"{interval(value.low, value.high)}{known}"
    )


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*pairs, strict=True)
    return fmean(first), fmean(second)


def _over_seeds(found: Comparison, place: int) -> str:
    seeds = found.over_seeds(place)
    return ", 1 seed" if seeds is None else f", over seeds {effect(seeds)}"
