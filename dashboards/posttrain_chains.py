"""Chains of post-training: their stages and checkpoints, put together from the rows of both.

Rows of `posttrain` carry the checkpoint that a stage started from. The checkpoints that a chain
makes are of a suite with the chain's name; their model is called like the one that the chain began
from, with `@step` and `-seed` added where there are several of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from dashboards.tables import Row, checkpoint_key, natural

Key = tuple[str, str, str, str]
"""Suite, model, stage and revision of a checkpoint."""

METHODS = {"sft": "SFT", "dpo": "DPO", "rlvr": "RLVR"}
"""The stages, in their usual order, and how they are called."""

_ORDER = list(METHODS)


@dataclass(frozen=True)
class Point:
    """A checkpoint of a chain.

    Attributes:
        key: Which one.
        step: Steps taken since the chain began; 0 for the checkpoint that it began from.
    """

    key: Key
    step: int


@dataclass(frozen=True)
class Stage:
    """One stage of a chain with one seed.

    Attributes:
        method: A key of `METHODS`.
        start: The checkpoint that it started from; None where it isn't known.
        kept: Its own checkpoints, by step.
        log: Rows of `posttrain`, with their steps since the chain began as `at`.
        partial: Whether `start` is but the stage's first checkpoint, since what it started from
            isn't known.
    """

    method: str
    start: Point | None
    kept: tuple[Point, ...]
    log: tuple[Row, ...] = ()
    partial: bool = False

    @property
    def end(self) -> Point | None:
        """The last of its checkpoints."""
        return self.kept[-1] if self.kept else None


@dataclass(frozen=True)
class Run:
    """A chain with one seed.

    Attributes:
        suite: Suite of its checkpoints: the chain's name.
        model: Their model.
        seed: Its seed, where known.
        base: The checkpoint that it began from, where known.
        stages: Its stages, in order.
    """

    suite: str
    model: str
    seed: int | None
    base: Point | None
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Chain:
    """Runs that differ by nothing but their seed.

    Attributes:
        label: Its name for readers.
        runs: One for each seed.
    """

    label: str
    runs: tuple[Run, ...]

    def stages(self, place: int) -> list[tuple[Run, Stage]]:
        """Returns the stage at a place of each run that got there."""
        return [(run, run.stages[place]) for run in self.runs if place < len(run.stages)]

    @property
    def methods(self) -> list[str]:
        """The methods of its stages, in order."""
        return [stage.method for stage in max(self.runs, key=lambda r: len(r.stages)).stages]


@dataclass(frozen=True)
class _Training:
    """A cell that ran one stage."""

    method: str
    seed: int
    start: Key
    step: int
    log: tuple[Row, ...]

    @property
    def taken(self) -> int:
        return max((row["training_step"] or 0 for row in self.log), default=0)

    def names(self) -> set[str]:
        """What the model of a chain that begins with it may be called."""
        model = self.start[1]
        marked = {model, f"{model}@{self.step}"}
        return marked | {f"{name}-seed{self.seed}" for name in marked}


def find_chains(log: Sequence[Row], rows: Iterable[Row]) -> tuple[Chain, ...]:
    """Puts chains together.

    Args:
        log: Rows of `posttrain`.
        rows: Rows of any table that name checkpoints.

    Returns:
        The chains, by name; runs of the same name and beginning together.
    """
    trainings = _trainings(log)
    points: dict[tuple[str, str], dict[Key, Point]] = defaultdict(dict)
    for row in (*rows, *log):
        if row["stage"] in METHODS and row["step"] is not None:
            key = checkpoint_key(row)
            points[key[:2]][key] = Point(key, row["step"])
    used: set[int] = set()
    runs = [_run(name, list(found.values()), trainings, used) for name, found in points.items()]
    # A first stage of which no checkpoint was measured yet still has its curves.
    for training in trainings:
        if id(training) not in used:
            base = Point(training.start, 0)
            stage = Stage(training.method, base, (), _placed(training, 0))
            runs.append(Run(training.start[0], training.start[1], training.seed, base, (stage,)))
    chains: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        chains[(run.suite, run.base.key if run.base else run.model)].append(run)
    made = [
        Chain(_label(found[0]), tuple(sorted(found, key=_by_name))) for found in chains.values()
    ]
    return tuple(sorted(made, key=lambda chain: natural(chain.label)))


def _trainings(log: Sequence[Row]) -> list[_Training]:
    cells: dict[str, list[Row]] = defaultdict(list)
    for row in log:
        cells[row["cell_id"]].append(row)
    return [
        _Training(
            rows[0]["method"],
            rows[0]["seed"],
            checkpoint_key(rows[0]),
            rows[0]["step"] or 0,
            tuple(sorted(rows, key=lambda row: row["training_step"] or 0)),
        )
        for rows in cells.values()
    ]


def _run(
    name: tuple[str, str], points: list[Point], trainings: Sequence[_Training], used: set[int]
) -> Run:
    suite, model = name
    points.sort(key=lambda point: (point.step, _ORDER.index(point.key[2])))
    own = [t for t in trainings if t.start[:2] == name]
    first = _beginning(name, points, trainings)
    linked = bool(first or own)
    if not linked:
        # Published checkpoints: each stage counts its own steps.
        points.sort(key=lambda point: (_ORDER.index(point.key[2]), point.step))
    bases = {training.start for training in first}
    base = Point(first[0].start, 0) if len(bases) == 1 else None
    stages: list[Stage] = []
    before = base
    for method, group in groupby(points, key=lambda point: point.key[2]):
        kept = tuple(group)
        if not stages:
            ran = first
        else:
            ran = [t for t in own if t.method == method and t.step < kept[0].step]
            ran = [t for t in ran if t.step == max(other.step for other in ran)]
            if ran:
                before = Point(ran[0].start, ran[0].step)
        used.update(id(t) for t in ran)
        log = _placed(ran[0], ran[0].step if stages else 0) if len(ran) == 1 else ()
        if before is None or not linked:
            stages.append(Stage(method, kept[0], kept[1:], log, partial=True))
        else:
            stages.append(Stage(method, before, kept, log))
        before = kept[-1]
    # The stage that is being trained, or whose checkpoints weren't measured yet.
    for training in own:
        if id(training) not in used and training.start == points[-1].key:
            used.add(id(training))
            start = Point(training.start, training.step)
            stages.append(Stage(training.method, start, (), _placed(training, training.step)))
    seeds = {t.seed for t in (*first, *own)}
    return Run(suite, model, seeds.pop() if len(seeds) == 1 else None, base, tuple(stages))


def _beginning(
    name: tuple[str, str], points: Sequence[Point], trainings: Sequence[_Training]
) -> list[_Training]:
    """Returns the cells that may have run the first stage of a chain's model."""
    suite, model = name
    method = points[0].key[2]
    fit = [
        t for t in trainings
        if t.start[0] != suite and t.method == method and model in t.names()
    ]  # fmt: skip
    if len(fit) > 1:
        own = [point.step for point in points if point.key[2] == method]
        fit = [t for t in fit if t.taken == max(own)] or fit
    marked = "@" in model
    # Without a step in the name, a chain begins from the last checkpoint.
    return fit if marked else [t for t in fit if t.step == max(other.step for other in fit)]


def _placed(training: _Training, taken: int) -> tuple[Row, ...]:
    return tuple({**row, "at": taken + (row["training_step"] or 0)} for row in training.log)


def _by_name(run: Run) -> tuple[list[tuple[int, str]], int]:
    return natural(run.model), run.seed or 0


def _label(run: Run) -> str:
    if run.base is None:
        return f"{run.suite}: {run.model}"
    suite, model, _, revision = run.base.key
    if suite == run.suite:
        return f"{model} from {revision}"
    return f"{run.suite}: {model} from {revision}"
