"""What can be asked of the tractable model: sweeps over its settings, each with many seeds."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen

Examples = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ToySetting(Frozen):
    """One setting of the tractable model: all that a run depends on besides its seed."""

    counts: tuple[Examples, ...]
    """Examples of each class."""
    width: int
    """Dimensions d of a feature."""
    scale: float
    """Standard deviation of the initial weights."""
    learning_rate: float
    """Step size, for the loss summed over the examples."""
    loss: Literal["cross_entropy", "squared_error"]
    """What is minimized."""
    start: Literal["gaussian", "balanced"]
    """How features and weights begin."""

    @property
    def label(self) -> str:
        """Name for people."""
        loss = "cross-entropy" if self.loss == "cross_entropy" else "squared error"
        return (
            f"{loss}, counts {'-'.join(map(str, self.counts))}, d {self.width}, scale "
            f"{self.scale:g}, learning rate {self.learning_rate:g}, {self.start} start"
        )


class ToySweep(Frozen):
    """All combinations of some settings of the tractable model, each with many seeds."""

    name: str
    """Name in every row and figure."""
    description: str = ""
    """What it stands for, for the report."""
    counts: tuple[Annotated[tuple[Examples, ...], Field(min_length=1)], ...] = ()
    """Class counts: examples of each class, one list per setting."""
    classes: int | None = Field(None, ge=1, le=10_000)
    """Instead of `counts`: the number of classes, with counts from `examples` and `skews`."""
    examples: int | None = Field(None, ge=1, lt=2**53)
    """Examples in all, at least one for each class."""
    skews: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    """Exponents s of counts in proportion to 1/rank^s; 0 is uniform."""
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Dimensions d of a feature."""
    scales: tuple[Positive, ...] = Field(min_length=1)
    """Standard deviations of the initial weights."""
    learning_rates: tuple[Positive, ...] = Field(min_length=1)
    """Step sizes, for the loss summed over the examples."""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """What is minimized."""
    start: Literal["gaussian", "balanced"] = "gaussian"
    """Independent initial features and weights, or such that fᵀf = WWᵀ."""
    seeds: int = Field(1000, ge=1)
    """How many seeds of each setting."""
    first_seed: int = Field(0, ge=0, lt=2**53)
    """The first of them; a region that a search found is judged on seeds that it hasn't seen."""
    last_step: int = Field(4000, ge=1)
    """Steps of gradient descent."""
    points: int = Field(40, ge=2)
    """Recorded steps, evenly spaced on log(step + 1)."""
    keep: int = Field(0, ge=0)
    """Of how many seeds of each setting everything is recorded, not the singular values alone."""

    @model_validator(mode="after")
    def _counts_are_known(self) -> "ToySweep":
        given = (self.classes is not None, self.examples is not None, bool(self.skews))
        skewed = all(given)
        if bool(self.counts) == skewed or any(given) != skewed:
            raise ValueError("needs either counts, or classes, examples and skews")
        if skewed and (self.examples or 0) < (self.classes or 0):
            raise ValueError(
                f"{self.examples} examples leave some of {self.classes} classes without any"
            )
        return self

    @property
    def settings(self) -> tuple[ToySetting, ...]:
        """The settings, in order."""
        counts = self.counts or tuple(
            skewed_counts(self.classes or 1, self.examples or 1, skew) for skew in self.skews
        )
        return tuple(
            ToySetting(
                counts=c, width=d, scale=scale, learning_rate=rate, loss=self.loss, start=self.start
            )
            for c, d, scale, rate in product(counts, self.widths, self.scales, self.learning_rates)
        )


def skewed_counts(classes: int, examples: int, skew: float) -> tuple[int, ...]:
    """Returns counts in proportion to 1/rank^skew, at least one each, by largest remainder.

    Args:
        classes: Number of classes.
        examples: Their sum, at least `classes`.
        skew: The exponent.
    """
    weights = [rank**-skew for rank in range(1, classes + 1)]
    shares = [(examples - classes) * weight / sum(weights) for weight in weights]
    counts = [1 + int(share) for share in shares]
    by_remainder = sorted(range(classes), key=lambda place: int(shares[place]) - shares[place])
    for place in by_remainder[: examples - sum(counts)]:
        counts[place] += 1
    return tuple(sorted(counts, reverse=True))
