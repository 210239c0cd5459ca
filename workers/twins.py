"""Checkpoints that share weights: which one may keep its step, and which ones are refused.

From the hub alone nobody can tell whose weights they are, with one exception: weights of the last
published step or of `main` that others serve as well are its own, since that is how such uploads go
wrong (86 revisions of one published series serve its final weights). All others are refused, the
innocent one of a pair too.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from jobs.cells import Checkpoint
from jobs.findings import Finding, Verdict
from jobs.frozen import Stage

_TINY_SHARE = 0.01
_FEWEST_FROZEN = 3
_FROZEN_SHARE = 0.5

Claim = tuple[Stage, int | None]
Contents = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Weights:
    """The weight files of a checkpoint.

    Attributes:
        place: Its place in the suite.
        checkpoint: The checkpoint.
        files: Hash of each weight file.
        sizes: Bytes of each, where they are known.
        last_step: Last step of the model, as far as it is known: what `main` stands for.
        trusted: Whether it keeps its step where others serve its weights as well.
    """

    place: int
    checkpoint: Checkpoint
    files: Mapping[str, str]
    sizes: Mapping[str, int]
    last_step: int | None = None
    trusted: bool = False

    @property
    def contents(self) -> Contents:
        """The files as one value."""
        return frozenset(self.files.items())

    @property
    def name(self) -> str:
        """Name for people."""
        step = self.checkpoint.step
        return f"revision {self.checkpoint.revision}" if step is None else f"step {step}"


def duplicates(series: Sequence[Weights]) -> dict[int, Finding]:
    """Finds checkpoints of a model that have the same weights, by their place in the suite.

    Two that may be the same step (a branch and a tag, or the last step and `main`) contradict
    nobody: the second is told of, not refused. It would be measured once in any case.
    """
    found = {}
    for twins in _by_contents(series).values():
        if len(twins) < 2:
            continue
        keepers = _keepers(twins)
        holder = keepers[0] if keepers else None
        for weights in twins:
            if weights is holder:
                continue
            other = holder or _nearest(weights, twins)
            if weights in keepers:
                sentence, refused = f"it is the same checkpoint as {other.name}", False
            elif holder is not None:
                sentence, refused = f"it serves the weights of {other.name}", True
            else:
                sentence, refused = (
                    (
                        f"it serves the same weights as {other.name}; which step they belong to "
                        "cannot be told"
                    ),
                    True,
                )
            found[weights.place] = _finding("duplicate", weights, other, sentence, refused=refused)
    return found


def swapped_shards(series: Sequence[Weights], known: Collection[int]) -> dict[int, Finding]:
    """Finds checkpoints of a model some of whose shards are those of another one.

    A shard that the training leaves as it is, such as frozen embeddings, is no finding: one that at
    least three checkpoints without a break between them share, and half of all. Nor is a tiny one,
    below a hundredth of the weights. Of a series with fewer than three checkpoints it can't be told
    whether a part is frozen, so it is refused.

    Args:
        series: The weights of a model.
        known: Places that were found to be duplicates; each content counts once.
    """
    ordered = _by_contents(series)
    # One for each content: that which keeps its claim, where there is one.
    ones = [
        next((w for w in group if w.place not in known), group[0]) for group in ordered.values()
    ]
    ranks = {weights.place: rank for rank, weights in enumerate(ones)}
    carriers: dict[tuple[str, str], list[Weights]] = {}
    with_shard: dict[str, int] = {}
    for weights in ones:
        for name, content in weights.files.items():
            with_shard[name] = with_shard.get(name, 0) + 1
            if not _is_tiny(weights, name):
                carriers.setdefault((name, content), []).append(weights)
    found: dict[int, Finding] = {}
    for (name, _), sharing in sorted(carriers.items()):
        places = [ranks[weights.place] for weights in sharing]
        unbroken = places[-1] - places[0] == len(places) - 1
        many = len(sharing) >= max(_FEWEST_FROZEN, _FROZEN_SHARE * with_shard[name])
        if len(sharing) < 2 or (unbroken and many):
            continue
        trusted = [weights for weights in sharing if weights.trusted]
        for weights in sharing:
            if weights.trusted:
                continue
            other = trusted[0] if trusted else _nearest(weights, sharing)
            sentence = f"its {name} is that of {other.name}"
            if not trusted:
                sentence += ", and which of the two it belongs to cannot be told"
            for twin in ordered[weights.contents]:
                found.setdefault(
                    twin.place,
                    _finding("swapped_shard", twin, other, sentence, refused=True, file=name),
                )
    return found


def _keepers(twins: Sequence[Weights]) -> list[Weights]:
    """Returns those of some checkpoints with the same weights that contradict nobody, best first.

    None of them, where two contradict each other and neither is known to be right.
    """
    trusted = [weights for weights in twins if weights.trusted] or list(twins)
    if any(not _agree(one, two) for one, two in combinations(trusted, 2)):
        return []
    agreeing = [w for w in twins if all(_agree(w, other) for other in trusted)]
    return sorted(agreeing, key=lambda w: (not w.trusted, w.checkpoint.step is None))


def _agree(one: Weights, two: Weights) -> bool:
    """Returns whether two checkpoints may be the same state of a model."""
    (stage, step), (other_stage, other_step) = _claim(one), _claim(two)
    return stage == other_stage and (step == other_step or step is None or other_step is None)


def _claim(weights: Weights) -> Claim:
    checkpoint = weights.checkpoint
    stands_for_last = checkpoint.step is None and is_main(checkpoint)
    return (checkpoint.stage, weights.last_step if stands_for_last else checkpoint.step)


def is_main(checkpoint: Checkpoint) -> bool:
    """Returns whether a checkpoint is what its repository serves where no revision is named."""
    return checkpoint.revision.rpartition("@")[2] == "main"


def _is_tiny(weights: Weights, name: str) -> bool:
    size = weights.sizes.get(name)
    return size is not None and size < _TINY_SHARE * sum(weights.sizes.values())


def _nearest(weights: Weights, others: Sequence[Weights]) -> Weights:
    return min(
        (other for other in others if other is not weights),
        key=lambda other: abs(other.place - weights.place),
    )


def _by_contents(series: Sequence[Weights]) -> dict[Contents, list[Weights]]:
    groups: dict[Contents, list[Weights]] = {}
    for weights in series:
        groups.setdefault(weights.contents, []).append(weights)
    return groups


def _finding(
    verdict: Verdict,
    weights: Weights,
    other: Weights,
    sentence: str,
    *,
    refused: bool,
    file: str | None = None,
) -> Finding:
    checkpoint = weights.checkpoint
    return Finding(
        verdict=verdict,
        sentence=sentence,
        refused=refused,
        model=checkpoint.model,
        stage=checkpoint.stage,
        revision=checkpoint.revision,
        step=checkpoint.step,
        other_revision=other.checkpoint.revision,
        other_step=other.checkpoint.step,
        file=file,
    )
