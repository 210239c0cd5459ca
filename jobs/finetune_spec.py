"""What can be asked about how well checkpoints can be fine-tuned."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen

Method = Literal["lora", "dora", "norm_lr", "inverse_norm_lr", "norm_group_lora"]
"""How adapters learn. `norm_lr` and `inverse_norm_lr` give each token of the head a learning rate
in proportion to its norm, or to the inverse; `norm_group_lora` gives each group of tokens of like
norm an adapter of its own."""

InterventionName = Literal["none", "equalize", "shuffle", "clip"]
"""What is done to the head's norms first: nothing; all to their mean; permuted across tokens; or
clipped to the quantiles [clip, 1 − clip]."""

ON_HEAD = frozenset({"norm_lr", "inverse_norm_lr", "norm_group_lora"})
"""Methods that act on the head, which must be among the targets then."""

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Arm(Frozen):
    """One way of fine-tuning, at one or more ranks."""

    method: Method = "lora"
    """How adapters learn."""
    intervention: InterventionName = "none"
    """What is done to the head's norms first."""
    clip: float = Field(0.05, ge=0, le=0.5)
    """Quantile of the intervention `clip`: 0 changes nothing, 0.5 puts all at the median."""
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = Field((8,), min_length=1)
    """Ranks of the adapters."""
    targets: tuple[str, ...] = Field(("attention",), min_length=1)
    """Adapted modules: `attention` (query, key and value projections of any architecture), `head`,
    or names of modules."""
    groups: int = Field(4, ge=1)
    """Norm quantile groups of `norm_group_lora`; with one group it is plain LoRA."""
    search: bool = False
    """Whether the learning-rate search, where there is one, is made for it."""

    @model_validator(mode="after")
    def _acts_on_its_targets(self) -> "Arm":
        if self.method in ON_HEAD and "head" not in self.targets:
            raise ValueError(f'{self.method} acts on the head: set targets = ["attention", "head"]')
        return self


class Search(Frozen):
    """A search for the best learning rate of a point, by asynchronous successive halving.

    The rates are tried in the order given, and at each rung one goes on only if it is among the
    best 1/`reduction` of those that came there before it, so that equal studies give equal rows
    whatever runs at the same time. The first should be the likeliest.
    """

    learning_rates: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (2e-4, 1e-3, 5e-5, 5e-3), min_length=2
    )
    """Rates to try, the likeliest first."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps of the checkpoints that it is made at; all that are fine-tuned where it is empty."""
    grace_epochs: int = Field(1, ge=1)
    """Epochs before the first rung; the next ones are at `reduction` times as many each."""
    reduction: int = Field(3, ge=2)
    """One in so many goes on."""


class Finetune(Frozen):
    """Fine-tunes of every checkpoint: each task × arm × rank × seed is a trial."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of the study's tasks; each needs training and validation examples."""
    models: tuple[str, ...] = ()
    """Models that are fine-tuned; all where it is empty."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps of the checkpoints that are fine-tuned; all where it is empty."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...] = Field((0,), min_length=1)
    """Seeds of adapters, order and dropout; arms with equal seeds are compared in pairs."""
    arms: tuple[Arm, ...] = Field((Arm(),), min_length=1)
    """The ways of fine-tuning."""
    alpha: float = Field(16.0, gt=0)
    """LoRA's α; updates are scaled by α/rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the adapters."""
    epochs: int = Field(3, ge=0)
    """Passes over the training examples; 0 trains nothing."""
    batch_size: int = Field(16, ge=1)
    """Examples of an optimizer step; part of the identity."""
    learning_rate: Rate = 2e-4
    """AdamW's learning rate, constant."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay, on all adapters."""
    training_examples: int | None = Field(None, ge=1)
    """Train on so many examples, spread over the task's; all where it is left out."""
    validation_examples: int | None = Field(None, ge=1)
    """Likewise for the validation loss."""
    max_length: int = Field(512, ge=2)
    """Longest example in tokens; longer prompts are cut from the left."""
    template: str = "{prompt}"
    """What the model reads before the answer, `{prompt}` standing for the task's own prompt."""
    dataset: str | None = None
    """Dataset whose loss before and after is the forgetting; none where it is left out."""
    dataset_sequences: int = Field(256, ge=1)
    """So many of its first sequences are read."""
    search: Search | None = None
    """A search for the best learning rate of each point."""
    threads: int = Field(1, ge=1)
    """CPU threads; part of the identity, since gradients differ by it."""

    @model_validator(mode="after")
    def _prompt_is_in_the_template(self) -> "Finetune":
        if self.template.count("{prompt}") != 1:
            raise ValueError(f"template {self.template!r} must hold {{prompt}} once")
        if self.search is not None and not any(arm.search for arm in self.arms):
            raise ValueError("a search needs an arm with search = true")
        return self


class Sensitivity(Frozen):
    """How the loss of a text rises when Gaussian noise is added to the weights."""

    dataset: str
    """Name of the study's dataset."""
    dataset_sequences: int = Field(256, ge=1)
    """So many of its first sequences are read."""
    scales: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (0.01, 0.03, 0.1), min_length=1
    )
    """Noise of each weight tensor relative to its root mean square, γ."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...] = Field((0, 1, 2), min_length=1)
    """Draws of the noise."""
