"""What becomes of each claim about post-training, in words that follow from the rows alone."""

from collections.abc import Sequence

from dashboards.correlation_statistics import Estimate
from dashboards.finetune_judgement import MISSING, Verdict
from dashboards.finetune_words import effect, interval, number
from dashboards.numbers import plain
from dashboards.passk_comparisons import Comparison, Refused
from dashboards.passk_verdicts import answered
from dashboards.posttrain_chains import METHODS, Chain
from dashboards.posttrain_judgement import NEGLIGIBLE_RANK, negative, positive
from dashboards.posttrain_read import Posttrained
from dashboards.posttrain_stages import Change, changes, over_seeds, pooled, signed

CLAIMS = {
    "sft": (1, "SFT expands the representation: RankMe rises"),
    "dpo": (1, "DPO expands the representation: RankMe rises"),
    "rlvr": (-1, "RLVR compresses the representation: RankMe falls"),
}
"""The sign that each stage's change of rankme should have, and the claim."""


def verdicts(
    found: Posttrained, compared: Sequence[Comparison], refused: Sequence[Refused]
) -> list[tuple[str, list[Verdict]]]:
    """Judges every claim for each chain.

    Args:
        found: What is known.
        compared: The comparisons of pass@k.
        refused: The pairs that cannot be compared.

    Returns:
        Each chain's label and its verdicts.
    """
    return [
        (
            chain.label,
            [
                *(verdict for method in CLAIMS for verdict in geometric(found, chain, method)),
                *answered(
                    found,
                    chain,
                    [c for c in compared if c.chain == chain.label],
                    [r for r in refused if r.chain == chain.label],
                ),
            ],
        )
        for chain in found.chains
    ]


def geometric(found: Posttrained, chain: Chain, method: str) -> list[Verdict]:
    """Judges what a stage does to rankme, on each text.

    Args:
        found: What is known.
        chain: The chain.
        method: The stage's method.

    Returns:
        A verdict for each stage of that method and text.
    """
    sign, claim = CLAIMS[method]
    places = [place for place, other in enumerate(chain.methods) if other == method]
    if not places:
        return [Verdict(claim, MISSING, f"The chain has no {METHODS[method]} stage.")]
    made = []
    for turn, place in enumerate(places, 1):
        points = [
            point
            for _, stage in chain.stages(place)
            for point in (stage.start, *stage.kept)
        ]  # fmt: skip
        name = claim if len(places) == 1 else f"{claim} (stage {turn} of its kind)"
        texts = found.texts(points)
        told = [(text, changes(found, chain, place, text)) for text in texts]
        told = [(text, rows) for text, rows in told if rows]
        if not told:
            sentence = "RankMe isn't known of both ends of the stage on the same sequences."
            made.append(Verdict(name, MISSING, sentence))
        for text, rows in told:
            made.append(_judged(name, found.named(text, texts), rows, sign))
        if told and any(stage.partial for _, stage in chain.stages(place)):
            made[-1] = _partial(made[-1])
    return made


def _judged(claim: str, text: str, rows: Sequence[Change], sign: int) -> Verdict:
    change = pooled([row.rankme for row in rows])
    seeds = over_seeds([row.rankme for row in rows])
    start = sum(row.start["rankme"] for row in rows) / len(rows)
    towards = [e if e is None or sign > 0 else negative(e) for e in (change, seeds)]
    outcome = positive(towards, NEGLIGIBLE_RANK * start)
    end = sum(row.end["rankme"] for row in rows) / len(rows)
    parts = [f"On {text}, RankMe goes from {plain(start)} to {plain(end)}: {_told(rows, change)}"]
    steps = [step for row in rows for step in row.steps]
    if len(steps) > len(rows):
        same = sum(step * sign > 0 for step in steps)
        way = "up" if sign > 0 else "down"
        parts.append(f"{same} of {len(steps)} changes between its checkpoints go {way}")
    alpha = [row.alpha_req for row in rows if row.alpha_req is not None]
    if alpha:
        decay = pooled(alpha)
        parts.append(f"α-ReQ changes by {number(decay.mean)}{interval(decay.low, decay.high)}")
    if any(row.start["se_reliable"] is False or row.end["se_reliable"] is False for row in rows):
        parts.append("M is below 10 d, where standard errors were not validated")
    return Verdict(claim, outcome, f"{'; '.join(parts)}.")


def _told(rows: Sequence[Change], found: Estimate) -> str:
    if found.low is None:
        known = f"{number(found.mean)} without a known standard error"
    else:
        kind = "paired" if all(row.rankme.paired for row in rows) else "separate errors"
        known = f"{number(found.mean)}{interval(found.low, found.high)}, {kind}"
    if len(rows) == 1:
        return f"{known}, 1 seed, so nothing is known of others"
    seeds = over_seeds([row.rankme for row in rows])
    each = ", ".join(signed(row.rankme) for row in rows)
    return f"{known}; over seeds {effect(seeds)} (each: {each})"


def _partial(verdict: Verdict) -> Verdict:
    note = " What the stage started from isn't known: this counts from its first checkpoint."
    return Verdict(verdict.claim, verdict.outcome, verdict.sentence + note)
