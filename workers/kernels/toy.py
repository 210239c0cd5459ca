"""The tractable model of the tracing paper: gradient descent on features and classifier alone.

Invariant: runs are the last dimension of every tensor and never meet in an operation, so what a
run does is the same whatever runs beside it.

Features f = Sθ of b examples with orthonormal inputs S (S Sᵀ = I), logits z = fW. As learning one
example's feature leaves the others alone, θ may be read as f itself (S = I). Gradient descent on
the loss summed over the examples is the paper's Eq. 12: Δf = −η A Wᵀ, ΔW = −η fᵀ A, with
A = softmax(z) − Y for cross-entropy and A = z − Y for ½‖z − Y‖², Y the one-hot classes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.kernels.jacobi import singular_values

Loss = Literal["cross_entropy", "squared_error"]
Start = Literal["gaussian", "balanced"]

_CHUNK_ELEMENTS = 2**16
"""Logits that are worked on at once: a few of such tensors fit into a core's cache."""


@dataclass(frozen=True)
class Run:
    """One run: a setting and a seed.

    Attributes:
        counts: Examples of each class, most frequent first by custom.
        width: Dimensions d of a feature.
        scale: Standard deviation of the initial entries of W, and of f in a Gaussian start.
        learning_rate: η, for the loss summed over the examples.
        seed: Of the initial f and W.
        loss: What is minimized.
        start: `gaussian`: f and W independent; `balanced`: fᵀf = WWᵀ, as Theorem B.2 asks.
    """

    counts: tuple[int, ...]
    width: int
    scale: float
    learning_rate: float
    seed: int
    loss: Loss = "cross_entropy"
    start: Start = "gaussian"

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"every class needs at least one example, got counts {self.counts}")
        if self.width < 1:
            raise ValueError(f"features need at least one dimension, got d = {self.width}")
        if not (0 < self.scale < float("inf") and 0 < self.learning_rate < float("inf")):
            raise ValueError(
                f"scale {self.scale} and learning rate {self.learning_rate} must be positive"
            )

    @property
    def shape(self) -> tuple[int, int, int, Loss]:
        """What runs must share to be run together: b, d, classes and loss."""
        return sum(self.counts), self.width, len(self.counts), self.loss


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What R runs did, at T recorded steps. All float64 but `diverged`.

    Attributes:
        steps: The recorded steps, ascending.
        rankme: exp(−Σ p ln p), p = σ²/Σσ² of the uncentred f; shape (R, T).
        sigma_features: Singular values of f, descending; shape (R, T, min(b, d)).
        sigma_weights: Singular values of W, descending; shape (R, T, min(d, classes)).
        probabilities: Mean over a class's examples of the probability of that class (for squared
            error: of its output, whose target is 1); shape (R, T, classes).
        loss: Mean over the examples, in nats or squared units; shape (R, T).
        features: f of the K runs that were to be kept; shape (K, T, b, d).
        weights: W of the same; shape (K, T, d, classes).
        diverged: First recorded step at which f or W is no longer finite, else −1; int64, (R,).
    """

    steps: tuple[int, ...]
    rankme: Tensor
    sigma_features: Tensor
    sigma_weights: Tensor
    probabilities: Tensor
    loss: Tensor
    features: Tensor
    weights: Tensor
    diverged: Tensor


def log_schedule(last_step: int, points: int) -> tuple[int, ...]:
    """Steps 0 … last_step, about evenly spaced on log(step + 1).

    Args:
        last_step: The last one, at least 1.
        points: How many are aimed at, at least 2; the early ones coincide and are given once.
    """
    if last_step < 1 or points < 2:
        raise ValueError(f"no schedule of {points} points up to step {last_step}")
    spaced = np.expm1(np.linspace(0.0, np.log1p(last_step), points))
    return tuple(sorted({round(step) for step in spaced.tolist()}))


def initial(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws f, shape (b, d), and W, shape (d, classes), float64; a function of the run alone.

    W is N(0, scale²) in either start. The balanced f is U S Qᵀ with W = Q S Rᵀ and random
    orthonormal columns U, so that fᵀf = Q S² Qᵀ = WWᵀ.
    """
    generator = np.random.default_rng(run.seed)
    examples, classes = sum(run.counts), len(run.counts)
    drawn = generator.standard_normal((examples, run.width))
    weights = run.scale * generator.standard_normal((run.width, classes))
    if run.start == "gaussian":
        return run.scale * drawn, weights
    left, sigma, _ = np.linalg.svd(weights, full_matrices=False)
    columns = np.linalg.qr(generator.standard_normal((examples, len(sigma))))[0]
    return columns * sigma @ left.T, weights


def descend(runs: Sequence[Run], steps: Sequence[int], keep: Sequence[int] = ()) -> Trajectories:
    """Runs gradient descent on many runs at once.

    Args:
        runs: At least one; all of one shape.
        steps: Steps to record, ascending, from 0 on; the last one ends the runs.
        keep: Places of the runs, ascending, of which to record f and W themselves.

    Returns:
        What they did. Runs that diverge go on as NaN.

    Raises:
        ValueError: No runs, runs of several shapes, or steps that don't ascend from 0 on.
    """
    shapes = {run.shape for run in runs}
    if len(shapes) != 1:
        raise ValueError(f"runs of one shape go together, got {sorted(shapes)}")
    if not steps or steps[0] < 0 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"steps must ascend from 0 on, got {tuple(steps)}")
    examples, _, classes, _ = runs[0].shape
    size = max(1, _CHUNK_ELEMENTS // (examples * classes))
    parts = [
        _Recorder(
            runs[start : start + size], [k - start for k in keep if start <= k < start + size]
        ).run(steps)
        for start in range(0, len(runs), size)
    ]
    names = ("rankme", "sigma_features", "sigma_weights", "probabilities", "loss", "diverged")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    kept = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("features", "weights")}
    return Trajectories(steps=tuple(steps), **joined, **kept)


class _Recorder:
    """Runs some runs together. Shapes end in R: f (b, d, R), W (d, classes, R)."""

    def __init__(self, runs: Sequence[Run], keep: Sequence[int]) -> None:
        starts = [initial(run) for run in runs]
        self._features = torch.from_numpy(np.stack([f for f, _ in starts], axis=-1))
        self._weights = torch.from_numpy(np.stack([w for _, w in starts], axis=-1))
        classes = np.stack([np.repeat(range(len(r.counts)), r.counts) for r in runs], axis=-1)
        count = len(runs[0].counts)
        self._targets = torch.from_numpy(
            (classes[:, None] == np.arange(count)[:, None]).astype(np.float64)
        )
        self._rates = torch.tensor([-run.learning_rate for run in runs], dtype=torch.float64)
        self._cross_entropy = runs[0].loss == "cross_entropy"
        self._keep = torch.tensor(keep, dtype=torch.int64)
        self._residual = torch.empty_like(self._targets)

    def run(self, steps: Sequence[int]) -> Trajectories:
        """Takes all steps and records those that are asked for."""
        records = list(self._records(steps))
        rankme, features, weights, probabilities, loss, kept_features, kept_weights = (
            torch.stack(parts, dim=1) for parts in zip(*records, strict=True)
        )
        broken = ~torch.isfinite(loss)
        first = torch.tensor(steps)[broken.int().argmax(dim=1)]
        return Trajectories(
            steps=tuple(steps),
            rankme=rankme,
            sigma_features=features,
            sigma_weights=weights,
            probabilities=probabilities,
            loss=loss,
            features=kept_features,
            weights=kept_weights,
            diverged=torch.where(broken.any(dim=1), first, -1),
        )

    def _records(self, steps: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        done = 0
        for step in steps:
            for _ in range(step - done):
                self._step()
            done = step
            yield self._record()

    def _step(self) -> None:
        """One step of Eq. 12, on all runs. Loops over the short dimensions keep R innermost."""
        features, weights, residual = self._features, self._weights, self._residual
        self._logits()
        if self._cross_entropy:
            residual.sub_(residual.amax(dim=1, keepdim=True)).exp_()
            residual.div_(residual.sum(dim=1, keepdim=True))
        residual.sub_(self._targets).mul_(self._rates)
        moved = features.clone()
        for place in range(weights.shape[1]):
            moved.addcmul_(residual[:, place, None], weights[:, place])
        for place in range(features.shape[0]):
            weights.addcmul_(residual[place], features[place, :, None])
        self._features = moved

    def _logits(self) -> Tensor:
        """Computes z = fW, shape (b, classes, R), in place of the residual."""
        torch.mul(self._features[:, 0, None], self._weights[0], out=self._residual)
        for place in range(1, len(self._weights)):
            self._residual.addcmul_(self._features[:, place, None], self._weights[place])
        return self._residual

    def _record(self) -> tuple[Tensor, ...]:
        """Measures the runs where they stand; every tensor has R or K first."""
        logits = self._logits()
        targets = self._targets
        if self._cross_entropy:
            log_probabilities = logits.log_softmax(dim=1)
            loss = -(log_probabilities * targets).sum(dim=1).mean(dim=0)
            outputs = log_probabilities.exp()
        else:
            loss = 0.5 * (logits - targets).square().sum(dim=1).mean(dim=0)
            outputs = logits
        own = (outputs * targets).sum(dim=0) / targets.sum(dim=0)
        sigma_features, sigma_weights = (
            singular_values(tensor).T.contiguous() for tensor in (self._features, self._weights)
        )
        finite = torch.isfinite(sigma_features).all(dim=1) & torch.isfinite(sigma_weights).all(
            dim=1
        )
        features, weights = (
            tensor[..., self._keep].movedim(-1, 0).contiguous()
            for tensor in (self._features, self._weights)
        )
        return (
            rankme(sigma_features),
            sigma_features,
            sigma_weights,
            own.T.contiguous(),
            torch.where(finite, loss, torch.nan),
            features,
            weights,
        )


def rankme(sigma: Tensor) -> Tensor:
    """Effective rank: exp of the entropy of p = σ²/Σσ², the toy's rankme (uncentred).

    Args:
        sigma: Singular values, shape (…, r), of which one at least is positive.

    Returns:
        Shape (…,), between 1 and r.
    """
    energy = sigma.square()
    shares = energy / energy.sum(dim=-1, keepdim=True)
    return torch.special.entr(shares).sum(dim=-1).exp()
