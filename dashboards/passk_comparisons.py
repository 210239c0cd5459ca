"""Which checkpoints' pass@k are compared: ends of stages with their starts, RLVR with the base."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dashboards.correlation_statistics import Estimate, estimate
from dashboards.passk_statistics import Compared, compare
from dashboards.posttrain_chains import METHODS, Chain, Point
from dashboards.posttrain_read import Posttrained, Setting
from dashboards.tables import Row
from dashboards.turns import Array

_PARTS = {
    "fingerprint": "prompts or answers",
    "n_samples": "numbers of samples",
    "temperature": "temperatures",
    "top_p": "nuclei (top-p)",
}

ByTries = Mapping[int, Row]
"""Rows of `passk` by k."""


@dataclass(frozen=True)
class Comparison:
    """A later checkpoint's pass@k with an earlier one's, on the same problems.

    Attributes:
        chain: The chain's label.
        name: Which two checkpoints.
        stage: Place of the stage in the chain.
        base: Whether the earlier one is what the chain began from, and not the stage's start.
        setting: How both were sampled.
        seeds: The comparison of each seed's run.
        pooled: The same of the means over seeds, problem by problem.
        earlier: Rows of the earlier checkpoint, for each seed.
        later: Rows of the later checkpoint, for each seed.
    """

    chain: str
    name: str
    stage: int
    base: bool
    setting: Setting
    seeds: tuple[Compared, ...]
    pooled: Compared
    earlier: tuple[ByTries, ...]
    later: tuple[ByTries, ...]

    def guessing(self, place: int) -> list[tuple[float, float]] | None:
        """Returns both guessing curves at the k of that place for each seed, if all are known."""
        k = self.pooled.k[place]
        pairs = [
            (first[k]["guessing"], second[k]["guessing"])
            for first, second in zip(self.earlier, self.later, strict=True)
        ]
        return None if any(None in pair for pair in pairs) else pairs

    def over_seeds(self, place: int) -> Estimate | None:
        """Returns the mean difference at the k of that place with its t-interval over seeds."""
        values = [float(seed.difference[place]) for seed in self.seeds]
        return estimate(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Refused:
    """Two checkpoints whose pass@k cannot be compared.

    Attributes:
        chain: The chain's label.
        name: Which two checkpoints.
        stage: Place of the stage in the chain.
        base: Whether the earlier one is what the chain began from, and not the stage's start.
        problems: The study's name for the problems.
        reason: Why.
    """

    chain: str
    name: str
    stage: int
    base: bool
    problems: str
    reason: str


def comparisons(found: Posttrained) -> tuple[list[Comparison], list[Refused]]:
    """Compares whatever can be compared.

    Args:
        found: What is known.

    Returns:
        The comparisons, and the pairs that were sampled but cannot be compared.
    """
    made: list[Comparison] = []
    refused: list[Refused] = []
    for chain in found.chains:
        for name, stage, base, pairs in _pairs(chain):
            fitting: dict[Setting, list[tuple[ByTries, ByTries]]] = defaultdict(list)
            reasons: dict[str, dict[str, None]] = defaultdict(dict)
            for first, second in pairs:
                sides = [found.sampled.get(point.key, {}) for point in (first, second)]
                for problems in sorted(
                    {s.problems for s in sides[0]} & {s.problems for s in sides[1]}
                ):
                    one, two = ([s for s in side if s.problems == problems] for side in sides)
                    for setting in (shared := sorted(set(one) & set(two), key=str)):
                        fitting[setting].append((sides[0][setting], sides[1][setting]))
                    if not shared:
                        reasons[problems][_differing(one, two)] = None
            for setting, rows in sorted(fitting.items(), key=lambda item: str(item[0])):
                done = _compared(chain.label, name, stage, base, setting, rows)
                if isinstance(done, Comparison):
                    made.append(done)
                else:
                    reasons[setting.problems][done] = None
            refused += [
                Refused(chain.label, name, stage, base, problems, "; ".join(told))
                for problems, told in reasons.items()
            ]
    return made, refused


def _pairs(chain: Chain) -> list[tuple[str, int, bool, list[tuple[Point, Point]]]]:
    """Returns what is compared: its name, the stage, whether with the base, each run's pair."""
    pairs = []
    for place, method in enumerate(chain.methods):
        runs = [(run, stage) for run, stage in chain.stages(place) if stage.end is not None]
        ends = [(s.start, s.end) for _, s in runs if s.start is not None and s.end is not None]
        start = "first checkpoint" if any(stage.partial for _, stage in runs) else "start"
        pairs.append((f"{METHODS[method]}: end less {start}", place, False, ends))
        if method == "rlvr":
            ends = [
                (run.base, s.end)
                for run, s in runs
                if run.base is not None and s.end is not None and run.base != s.start
            ]
            pairs.append((f"{METHODS[method]}: end less the chain's base", place, True, ends))
    return pairs


def _differing(one: Sequence[Setting], two: Sequence[Setting]) -> str:
    """Says in what the nearest two settings differ."""
    differing = min(
        (
            [part for part in _PARTS if getattr(a, part) != getattr(b, part)]
            for a in one
            for b in two
        ),
        key=len,
    )
    return f"other {' and '.join(_PARTS[part] for part in differing)}"


def _compared(
    chain: str,
    name: str,
    stage: int,
    base: bool,
    setting: Setting,
    rows: Sequence[tuple[ByTries, ByTries]],
) -> Comparison | str:
    """Compares the runs of one setting, or says why it can't be done."""
    every = [side for pair in rows for side in pair]
    tries = sorted(set[int].intersection(*(set(side) for side in every)))
    if not tries:
        return "no k in common"
    lists = [side[k]["problem_pass_at_k"] for side in every for k in tries]
    if any(not values for values in lists):
        return "values of each problem are missing"
    if len({len(values) for values in lists}) > 1:
        return "other numbers of problems"
    earlier = [_matrix(first, tries) for first, _ in rows]
    later = [_matrix(second, tries) for _, second in rows]
    seeds = tuple(compare(tries, a, b) for a, b in zip(earlier, later, strict=True))
    # A single run's comparison is the pooled one.
    pooled = (
        seeds[0] if len(seeds) == 1
        else compare(tries, np.mean(earlier, axis=0), np.mean(later, axis=0))
    )  # fmt: skip
    firsts, seconds = zip(*rows, strict=True)
    return Comparison(chain, name, stage, base, setting, seeds, pooled, firsts, seconds)


def _matrix(rows: ByTries, tries: Sequence[int]) -> Array:
    """Returns each problem's pass@k, shape (problems, k)."""
    return np.array([rows[k]["problem_pass_at_k"] for k in tries], dtype=np.float64).T
