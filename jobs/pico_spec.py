"""The pico suite, as a study asks for it: its corpus, its models, and how they are pretrained."""

from typing import Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen

_MOST_CHECKPOINTS = 10_000


class PicoCorpus(Frozen):
    """The text that the pico models learn: Python's own English and a generated curriculum."""

    vocabulary_size: int = Field(2048, ge=300, le=65536)
    """Size of the BPE vocabulary, special tokens included."""
    training_tokens: int = Field(1_750_000, ge=10_000)
    """Length of the training stream, in tokens."""
    english_share: float = Field(0.4, ge=0, le=1)
    """Share of the training tokens that is English prose."""
    arithmetic_share: float = Field(0.4, ge=0, le=1)
    """Share of the training tokens that is worked sums; invented facts take the rest."""
    heldout_share: float = Field(0.2, gt=0, lt=0.5)
    """Share of the English documents that no model trains on."""
    training_problems: int = Field(8192, ge=1)
    """Number of arithmetic problems for post-training."""
    heldout_problems: int = Field(1024, ge=1)
    """Number of held-out arithmetic problems."""
    subjects: int = Field(256, ge=1, le=4096)
    """Number of invented people that the facts are about."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the split, of the curriculum and of the order of the documents."""

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "PicoCorpus":
        if self.english_share + self.arithmetic_share > 1:
            raise ValueError(
                f"english_share {self.english_share} and arithmetic_share "
                f"{self.arithmetic_share} must not exceed 1 together"
            )
        return self


class PicoModel(Frozen):
    """One GPT-NeoX model of the pico suite and how it is pretrained."""

    name: str = "pico-64"
    """Name in every row and figure."""
    hidden_size: int = Field(64, ge=32)
    """Width d of the residual stream."""
    layers: int = Field(4, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(2, ge=1)
    """Number of attention heads; vLLM refuses heads narrower than 32."""
    sequence_length: int = Field(64, ge=8)
    """Length of a training sequence, in tokens."""
    batch_size: int = Field(8, ge=1)
    """Sequences per optimizer step."""
    last_step: int = Field(3328, ge=1)
    """The last optimizer step, and the last checkpoint."""
    checkpoint_every: int = Field(256, ge=1)
    """After steps 0, 1, 2, 4 … 512, one checkpoint every this many steps."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up before the schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine decay to a tenth of the peak, or constant."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay on matrices."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the initial weights and of the order of the batches."""
    threads: int = Field(1, ge=1)
    """CPU threads; part of the identity, since gradients differ by it."""
    target_weights: Literal["equal", "inverse_frequency"] = "equal"
    """Weight of a target token in the loss. By 1/(its count in the corpus), all tokens of the
    vocabulary that occur weigh the same in all: the classes are balanced, the text is unchanged."""

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """Steps that are kept: 0, 1, 2, 4 … 512, every `checkpoint_every` after, and the last."""
        powers = {1 << exponent for exponent in range(10)}
        later = range(512 + self.checkpoint_every, self.last_step, self.checkpoint_every)
        kept = {0, self.last_step} | powers | set(later)
        return tuple(sorted(step for step in kept if step <= self.last_step))

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one optimizer step."""
        return self.batch_size * self.sequence_length

    @model_validator(mode="after")
    def _heads_divide(self) -> "PicoModel":
        if self.hidden_size % self.heads or self.hidden_size // self.heads < 32:
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.heads} heads must give "
                "whole heads of at least 32"
            )
        if (kept := (self.last_step - 512) // self.checkpoint_every) > _MOST_CHECKPOINTS:
            raise ValueError(
                f"a checkpoint every {self.checkpoint_every} steps up to last_step "
                f"{self.last_step} makes {kept}, more than {_MOST_CHECKPOINTS}"
            )
        return self


class PicoSuite(Frozen):
    """The small suite that is pretrained on the spot."""

    kind: Literal["pico"] = "pico"
    name: str = "pico"
    """Name in every row."""
    corpus: PicoCorpus = PicoCorpus()
    """What its models learn."""
    models: tuple[PicoModel, ...] = (
        PicoModel(),
        PicoModel(name="pico-128", hidden_size=128, heads=4, learning_rate=3e-3),
    )
    """Its models."""
