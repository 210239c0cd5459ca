"""The work of running the tractable model: one cell for all runs of a sweep."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jobs.toy_spec import ToySweep


@dataclass(frozen=True)
class ToyWork:
    """Run every seed of every setting of a sweep of the tractable model."""

    kind: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "toy"
    stage: ClassVar[Literal["toy"]] = "toy"
    patience: ClassVar[float] = 1800.0

    sweep: ToySweep

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: the settings, however the sweep spells them, and the seeds."""
        sweep = self.sweep
        return {
            "settings": [setting.model_dump(mode="json") for setting in sweep.settings],
            "first_seed": sweep.first_seed,
            "seeds": sweep.seeds,
            "last_step": sweep.last_step,
            "points": sweep.points,
            "keep": min(sweep.keep, sweep.seeds),
        }

    @property
    def multiplications(self) -> int:
        """Multiplications of all runs, for the estimate: three products a step, b × d × classes."""
        products = sum(
            3 * sum(setting.counts) * setting.width * len(setting.counts)
            for setting in self.sweep.settings
        )
        return products * self.sweep.seeds * self.sweep.last_step
