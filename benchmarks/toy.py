"""A sweep of the tractable model at once, beside a loop of single runs."""

from collections.abc import Callable

import torch

from benchmarks.limits import Figure, alone, median_of
from benchmarks.peers import took
from workers.kernels.toy import Run, descend, initial, log_schedule

_RUNS = 10_000
_SAMPLE = 20
"""Single runs that are timed; the loop's time is that of all runs in proportion."""
_STEPS = log_schedule(400, 20)
_ROUNDS = 3


def figures() -> list[Figure]:
    """The 10,000 runs take as long as how many of them one by one."""
    rounds = alone(_seconds)
    same = [each / sweep for sweep, each, _ in rounds]
    plain = [each / sweep for sweep, _, each in rounds]
    return [
        median_of(f"{_RUNS:,} runs of {_STEPS[-1]} steps at once", [r[0] for r in rounds], "s"),
        median_of("the same function, run by run, over the sweep", same, "×", "≥ 50"),
        median_of("the plainest loop of matrix products, over the sweep", plain, "×", "≥ 50"),
    ]


def _seconds() -> list[tuple[float, float, float]]:
    torch.set_num_threads(2)
    rates = (0.01, 0.02, 0.05, 0.1)
    runs = [Run((8, 4, 2, 1), 2, 0.1, rates[s % 4], s) for s in range(_RUNS)]
    some = runs[:: _RUNS // _SAMPLE]

    def one_by_one() -> None:
        for run in some:
            descend([run], _STEPS)

    def plainly() -> None:
        for run in some:
            _plain(run)

    sides: tuple[tuple[Callable[[], object], float], ...] = (
        (lambda: descend(runs, _STEPS), 1.0),
        (one_by_one, _RUNS / _SAMPLE),
        (plainly, _RUNS / _SAMPLE),
    )
    found = []
    for _ in range(_ROUNDS):
        sweep, same, plain = (scale * took(side) for side, scale in sides)
        found.append((sweep, same, plain))
    return found


def _plain(run: Run) -> None:
    features, weights = (torch.from_numpy(tensor) for tensor in initial(run))
    labels = torch.repeat_interleave(torch.tensor(run.counts))
    targets = torch.nn.functional.one_hot(labels).to(torch.float64)
    for step in range(_STEPS[-1] + 1):
        residual = torch.softmax(features @ weights, dim=1) - targets
        if step in _STEPS:
            torch.linalg.svdvals(features)
            torch.linalg.svdvals(weights)
        moved = features - run.learning_rate * residual @ weights.T
        weights = weights - run.learning_rate * features.T @ residual
        features = moved
