"""Checkpoints on the hub, as a study asks for them: each series is chosen in one way alone."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen, Stage


class HubSeries(Frozen):
    """Revisions of one repository on the hub; its branch `main` where none are asked for."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository, as in `EleutherAI/pythia-70m`."""
    revisions: tuple[str, ...] = ()
    """Branches, tags or commits, one by one."""
    pattern: str | None = None
    """How branches and tags that are checkpoints are named, as in `step{step}`; `*` is any text."""
    schedule: tuple[int | str, ...] = ()
    """Steps of `pattern` that are wanted, as in `[0, 1, 512, "1000:143000:1000"]`; else all.

    A text is `first:last:stride`, the last one included.
    """
    steps: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Training step of each of `revisions`; read from their names where it is left out."""
    first_step: int = Field(0, ge=0)
    """Steps taken before this series began, where its names count from 0 again."""
    tokens_per_step: int | None = Field(None, ge=1)
    """Batch size in tokens, from which the tokens of a checkpoint follow."""
    first_token: int = Field(0, ge=0)
    """Tokens seen before this series began."""
    stage: Stage = "pretrain"
    """What kind of training made the checkpoints."""
    model: str | None = None
    """Name of the model, where it is another one than that of the suite."""

    @property
    def scheduled_steps(self) -> tuple[int, ...]:
        """The steps of `schedule` in their order, each once."""
        return tuple(sorted({step for entry in self.schedule for step in _steps(entry)}))

    @model_validator(mode="after")
    def _revisions_are_chosen_in_one_way(self) -> "HubSeries":
        if self.revisions and self.pattern is not None:
            raise ValueError("give either revisions or a pattern, not both")
        if len(set(self.revisions)) < len(self.revisions):
            twice = next(name for name in self.revisions if self.revisions.count(name) > 1)
            raise ValueError(f"the revision '{twice}' is listed twice")
        if self.steps is not None and len(self.steps) != len(self.revisions):
            raise ValueError(
                f"steps has {len(self.steps)} members and revisions {len(self.revisions)}: "
                "give one step per revision"
            )
        if self.pattern is None and self.schedule:
            raise ValueError("a schedule needs a pattern, as in step{step}")
        if self.pattern is not None and self.pattern.count("{step}") != 1:
            raise ValueError(f"the pattern '{self.pattern}' must hold {{step}} exactly once")
        if self.first_token and self.tokens_per_step is None:
            raise ValueError("first_token needs tokens_per_step")
        for entry in self.schedule:
            _steps(entry)
        return self


_MOST_SCHEDULED = 100_000


def _steps(entry: int | str) -> range:
    """Returns the steps that a member of a schedule stands for."""
    match = re.fullmatch(r"(\d+)(?::(\d+):(\d+))?", str(entry))
    if match is None:
        raise ValueError(f"the schedule's member {entry!r} is neither a step nor first:last:stride")
    first = int(match[1])
    last, stride = (first, 1) if match[2] is None else (int(match[2]), int(match[3]))
    if stride == 0 or last < first or (last - first) // stride >= _MOST_SCHEDULED:
        raise ValueError(
            f"the schedule's member {entry!r} must be first:last:stride with a stride above 0 "
            f"and between 1 and {_MOST_SCHEDULED} steps"
        )
    return range(first, last + 1, stride)


class HubSuite(HubSeries):
    """Checkpoints of a model on the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    name: str
    """Name in every row."""
    model: str | None = None
    """Name of the model; the suite's name where it is left out."""
    more: tuple[HubSeries, ...] = ()
    """Further series of the model, such as its early training in a repository of its own."""
    tokenizer: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+(@.+)?$")
    """Repository of the tokenizer, `@` and a revision; each checkpoint's own if left out."""
    allow_bin: bool = False
    """Take a revision that has no safetensors but PyTorch files, read as plain tensors alone."""
    measure_duplicates: bool = False
    """Measure a checkpoint also where its weights are those of another step."""
