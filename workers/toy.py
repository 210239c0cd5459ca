"""Runs a sweep of the tractable model, runs of one shape together."""

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import product

import numpy as np

from jobs.errors import DivergedError
from jobs.toy_spec import ToySetting
from jobs.toy_work import ToyWork
from workers.kernels.toy import Loss, Run, Trajectories, descend, log_schedule
from workers.measure import Rows
from workers.tally import phase

_BATCH = 4096
"""Runs between two reports."""


@phase("fit")
def toy_rows(work: ToyWork, report: Callable[[int, int], None]) -> Rows:
    """Runs every seed of every setting.

    Args:
        work: The sweep.
        report: Called with (runs done, all runs).

    Returns:
        Rows of table `toy`, setting by setting and seed by seed.

    Raises:
        DivergedError: A run whose features or weights are no longer finite; names the setting.
    """
    sweep = work.sweep
    steps = log_schedule(sweep.last_step, sweep.points)
    seeds = range(sweep.first_seed, sweep.first_seed + sweep.seeds)
    by_shape: dict[tuple[int, int, int, Loss], list[tuple[int, Run]]] = defaultdict(list)
    for (place, setting), seed in product(enumerate(sweep.settings), seeds):
        run = Run(**setting.model_dump(), seed=seed)
        by_shape[run.shape].append((place, run))
    rows: list[tuple[int, dict[str, object]]] = []
    total = len(sweep.settings) * sweep.seeds
    for same in by_shape.values():
        for start in range(0, len(same), _BATCH):
            batch = same[start : start + _BATCH]
            keep = [n for n, (_, run) in enumerate(batch) if run.seed - seeds.start < sweep.keep]
            found = descend([run for _, run in batch], steps, keep)
            _check(found, batch, sweep.settings)
            kept = {run: number for number, run in enumerate(keep)}
            rows += [
                (place, _row(work, sweep.settings[place], run.seed, found, n, kept.get(n)))
                for n, (place, run) in enumerate(batch)
            ]
            report(len(rows), total)
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _check(
    found: Trajectories, batch: list[tuple[int, Run]], settings: tuple[ToySetting, ...]
) -> None:
    broken = (found.diverged >= 0).nonzero().flatten().tolist()
    if not broken:
        return
    place, run = batch[broken[0]]
    raise DivergedError(
        f"the setting '{settings[place].label}' has diverged by step "
        f"{int(found.diverged[broken[0]])} with seed {run.seed}",
        "lower its learning_rate or leave it out of the sweep",
    )


def _row(
    work: ToyWork,
    setting: ToySetting,
    seed: int,
    found: Trajectories,
    place: int,
    kept: int | None,
) -> dict[str, object]:
    row: dict[str, object] = {
        "description": work.sweep.description,
        "counts": list(setting.counts),
        "classes": len(setting.counts),
        "d": setting.width,
        "skew": skew(setting.counts),
        "scale": setting.scale,
        "learning_rate": setting.learning_rate,
        "loss_function": setting.loss,
        "start": setting.start,
        "seed": seed,
        "steps": list(found.steps),
        "rankme": found.rankme[place].tolist(),
        "sigma_features": found.sigma_features[place].flatten().tolist(),
    }
    if kept is not None:
        row |= {
            "sigma_weights": found.sigma_weights[place].flatten().tolist(),
            "probabilities": found.probabilities[place].flatten().tolist(),
            "loss": found.loss[place].tolist(),
            "features": found.features[kept].flatten().tolist(),
            "weights": found.weights[kept].flatten().tolist(),
        }
    return row


def skew(counts: tuple[int, ...]) -> float:
    """Minus the least-squares slope of ln count on ln rank; 0 for a single class."""
    if len(counts) < 2:
        return 0.0
    ranks = np.log(np.arange(1, len(counts) + 1))
    logarithms = np.log(sorted(counts, reverse=True))
    slope = float(np.polyfit(ranks, logarithms, 1)[0])
    return 0.0 if math.isclose(slope, 0, abs_tol=1e-12) else -slope
