"""Slow, obvious float64 oracles that share no code and, where there is one, no route with ours."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from workers.kernels.toy import Run

Array = NDArray[np.float64]


def eigenvalues(features: Array) -> Array:
    """Covariance eigenvalues from the singular values of the centred features, zeros included."""
    count, width = features.shape
    singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    values = np.zeros(width)
    values[: len(singular)] = singular**2 / count
    return values


def weighted_eigenvalues(features: Array, weights: Array) -> Array:
    """Covariance eigenvalues where row x counts weights[x] times."""
    covariance = np.cov(features, rowvar=False, aweights=weights, ddof=0)
    return np.sort(np.linalg.eigvalsh(covariance))[::-1]


def rankme(values: Array) -> float:
    return float(np.exp(stats.entropy(values)))


def rankme_singular(features: Array) -> float:
    singular = np.linalg.svd(features, compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    return float(np.exp(sum(-share * np.log(share) for share in shares)))


def rankme_logits(features: Array, head: Array) -> float:
    """RankMe of the logits themselves, each row shifted to mean zero over the tokens."""
    logits = features @ head.T
    return rankme(eigenvalues(logits - logits.mean(axis=1, keepdims=True)))


def alpha_req(values: Array, count: int, rank: int | None = None) -> tuple[float, float]:
    """Slope and R² of the line; rank is that of the centred features, where it is low."""
    largest = min(len(values), count) - 1
    first, last = (
        (12, 100) if largest >= 200 else (max(2, int(np.ceil(largest / 16))), largest // 2)
    )
    ranks = np.arange(first, min(last, len(values) if rank is None else rank) + 1)
    if len(ranks) < 2:
        return float("nan"), float("nan")
    x, y, weights = np.log(ranks), np.log(values[ranks - 1]), 1 / ranks
    # numpy squares the weights that it is given.
    slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(weights))
    residual = np.sum(weights * (y - slope * x - intercept) ** 2)
    total = np.sum(weights * (y - np.average(y, weights=weights)) ** 2)
    return float(-slope), float(1 - residual / total)


def participation_ratio(features: Array) -> float:
    """Trace and Frobenius norm of the covariance, without any eigenvalue."""
    covariance = np.cov(features, rowvar=False, ddof=0)
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))


def bootstrap_errors(
    features: Array, statistics: Callable[[Array], Sequence[float]], draws: int, seed: int
) -> Array:
    """Standard deviations of statistics of the eigenvalues over resampled sequences."""
    generator = np.random.default_rng(seed)
    count = len(features)
    found = []
    for _ in range(draws):
        drawn = generator.multinomial(count, np.full(count, 1 / count))
        found.append(statistics(weighted_eigenvalues(features, drawn.astype(np.float64))))
    return np.asarray(np.std(found, axis=0, ddof=1))


def norms(head: Array) -> Array:
    return np.array([np.sqrt(np.sum(row**2)) for row in head])


def cosines(head: Array) -> Array:
    """Absolute cosines of all pairs i < j, one after another."""
    directions = head / norms(head)[:, None]
    return np.abs((directions @ directions.T)[np.triu_indices(len(head), k=1)])


def toy_outputs(run: Run, features: Array, weights: Array) -> tuple[float, list[float]]:
    """The toy's mean loss, and each class's mean output for itself, one example at a time."""
    losses: list[float] = []
    own: dict[int, list[float]] = {}
    labels = [label for label, count in enumerate(run.counts) for _ in range(count)]
    for feature, label in zip(features, labels, strict=True):
        logits = feature @ weights
        target = np.eye(len(run.counts))[label]
        if run.loss == "cross_entropy":
            outputs = np.exp(logits) / np.exp(logits).sum()
            losses.append(float(-np.log(outputs[label])))
        else:
            outputs = logits
            losses.append(float(np.sum((logits - target) ** 2) / 2))
        own.setdefault(label, []).append(float(outputs[label]))
    return float(np.mean(losses)), [float(np.mean(own[label])) for label in sorted(own)]


def descend_alone(
    run: Run, features: Array, weights: Array, steps: Sequence[int]
) -> list[tuple[Array, Array]]:
    """One run of the toy by autograd through a layer θ with orthonormal inputs."""
    inputs = torch.eye(len(features), dtype=torch.float64)
    theta = torch.nn.Parameter(torch.from_numpy(features))
    head = torch.nn.Parameter(torch.from_numpy(weights))
    labels = torch.repeat_interleave(torch.tensor(run.counts))
    optimizer = torch.optim.SGD([theta, head], lr=run.learning_rate)
    found = []
    for step in range(steps[-1] + 1):
        if step in steps:
            found.append((theta.detach().numpy().copy(), head.detach().numpy().copy()))
        optimizer.zero_grad()
        logits = inputs @ theta @ head
        if run.loss == "cross_entropy":
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        else:
            targets = torch.nn.functional.one_hot(labels, len(run.counts)).to(torch.float64)
            loss = 0.5 * torch.nn.functional.mse_loss(logits, targets, reduction="sum")
        loss.backward()
        optimizer.step()
    return found
