"""Mean and second moments of features that arrive in batches, in one pass.

Invariant: moments are taken about the mean in float64, so neither the order and the size of the
batches nor a mean far above the spread changes a number.
"""

import torch
from torch import Tensor

_BLOCK_ROWS = 1024


class MomentAccumulator:
    """Mean and centred second moment of features that arrive in batches.

    The update is that of Chan, Golub and LeVeque (1983), exact in exact arithmetic for any split.
    The state lives in float64 on the device of the first batch.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    @property
    def count(self) -> int:
        """Rows seen so far, M."""
        return self._count

    @property
    def mean(self) -> Tensor:
        """Mean row μ, shape (d,), float64.

        Raises:
            ValueError: Nothing was seen yet.
        """
        return self._state()[0]

    @property
    def scatter(self) -> Tensor:
        """Scatter (F−μ)ᵀ(F−μ), shape (d, d), float64: no copy, so not to be written to.

        Raises:
            ValueError: Nothing was seen yet.
        """
        return self._state()[1]

    def update(self, features: Tensor) -> None:
        """Adds rows.

        Args:
            features: Shape (n, d), any floating type and any device; n may be 0.

        Raises:
            ValueError: The shape is not (n, d) with the d of the earlier batches.
        """
        if features.ndim != 2:
            raise ValueError(f"features must have shape (n, d), got {tuple(features.shape)}")
        if features.shape[0] == 0:
            return
        if self._mean is None:
            width, device = features.shape[1], features.device
            self._mean = torch.zeros(width, dtype=torch.float64, device=device)
            self._scatter = torch.zeros(width, width, dtype=torch.float64, device=device)
        # In pieces, of which several are in memory in float64.
        for block in features.detach().split(_BLOCK_ROWS):
            rows = block.to(device=self._mean.device, dtype=torch.float64)
            mean = rows.mean(dim=0)
            self._absorb(rows.shape[0], mean, rows - mean)

    def merge(self, other: "MomentAccumulator") -> None:
        """Adds all rows that another accumulator has seen; the other one is left as it is.

        Args:
            other: Accumulator of features with the same d.

        Raises:
            ValueError: The widths differ.
        """
        if other._mean is None or other._scatter is None:
            return
        if self._mean is None or self._scatter is None:
            self._count = other._count
            self._mean, self._scatter = other._mean.clone(), other._scatter.clone()
            return
        device = self._mean.device
        no_rows = self._mean.new_empty(0, other._mean.shape[0])
        self._absorb(other._count, other._mean.to(device), no_rows)
        self._scatter += other._scatter.to(device)

    def covariance(self) -> Tensor:
        """Covariance Σ = (F−μ)ᵀ(F−μ)/M.

        Returns:
            Shape (d, d), float64, in squared units of the features.

        Raises:
            ValueError: Nothing was seen yet.
        """
        return self.scatter / self._count

    def _state(self) -> tuple[Tensor, Tensor]:
        if self._mean is None or self._scatter is None:
            raise ValueError("no features were accumulated")
        return self._mean, self._scatter

    def _absorb(self, count: int, mean: Tensor, centred: Tensor) -> None:
        state_mean, scatter = self._state()
        if centred.shape[1] != scatter.shape[0]:
            raise ValueError(
                f"features of width {centred.shape[1]} after features of width {scatter.shape[0]}"
            )
        total = self._count + count
        shift = mean - state_mean
        # Chan's rank-one term rides along as one more row: the d × d state is passed over once.
        between = shift * (self._count * count / total) ** 0.5
        rows = torch.cat([centred, between.unsqueeze(0)])
        scatter.addmm_(rows.T, rows)
        state_mean += shift * (count / total)
        self._count = total
