"""What can be asked for: the frozen models behind a study file. Unknown keys are refused."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import DType, Frozen, Stage
from jobs.hub_spec import HubSeries, HubSuite

__all__ = ["DType", "Frozen", "HubSeries", "HubSuite", "Stage"]


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


class LocalSuite(Frozen):
    """Checkpoints on disk: transformers folders of a causal language model, in safetensors."""

    kind: Literal["local"] = "local"
    name: str
    """Name in every row."""
    model: str | None = None
    """Name of the model; the suite's name where it is left out."""
    path: str | None = None
    """A checkpoint folder, or a folder of checkpoint folders."""
    paths: tuple[str, ...] = ()
    """Instead of `path`: the checkpoint folders, one by one."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Training step of each of `paths`; read from the folders' names where it is left out."""
    tokens_per_step: int | None = Field(None, ge=1)
    """Batch size in tokens, from which the tokens of a checkpoint follow."""
    tokenizer: str | None = None
    """Folder of the tokenizer; the checkpoint's own folder where it is left out."""
    stage: Stage = "pretrain"
    """What kind of training made the checkpoints."""
    measure_duplicates: bool = False
    """Measure a checkpoint also where its weights are those of another step."""


Suite = Annotated[PicoSuite | LocalSuite | HubSuite, Field(discriminator="kind")]


class Sequences(Frozen):
    """How sequences are drawn from a text, once for all checkpoints of a tokenizer."""

    sequences: int = Field(1500, ge=4)
    """Number of sequences M."""
    sequence_length: int = Field(64, ge=1)
    """Longest length L of a sequence, in tokens, special tokens included."""
    mode: Literal["document", "packed"] = "document"
    """One sequence per document, cut at L; or all text joined and cut into pieces of L."""
    special_tokens: bool = True
    """Whether the tokenizer adds its special tokens (packed: its end-of-text between documents)."""
    minimum_length: int = Field(1, ge=1)
    """Documents with fewer tokens are passed over."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the draw."""


class PicoText(Sequences):
    """Held-out English of a pico suite's corpus."""

    kind: Literal["pico"] = "pico"
    suite: str = "pico"
    """The pico suite whose held-out text is read."""
    mode: Literal["document", "packed"] = "packed"


class LocalText(Sequences):
    """Text or JSONL files on disk, read through the `datasets` library."""

    kind: Literal["local"] = "local"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files: `.txt` (one document per paragraph block) or `.jsonl`/`.json`."""
    field: str = "text"
    """Field of a JSONL record that holds the text."""
    separator: str = Field("\n\n", min_length=1)
    """What stands between the documents of a text file."""


class HubText(Sequences):
    """The beginning of a dataset on the Hugging Face hub, streamed from there."""

    kind: Literal["hub"] = "hub"
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository, as in `HuggingFaceFW/fineweb`."""
    config: str | None = None
    """Name of the subset, as in `sample-10BT`; may be left out where there is only one."""
    split: str = "train"
    """Split of the subset."""
    revision: str = "main"
    """Branch, tag or commit; the plan pins its commit."""
    field: str = "text"
    """Field of a record that holds the text."""
    documents: int | None = Field(None, ge=1)
    """Draw from so many documents, the first ones; from 4 × `sequences` where it is left out."""


Dataset = Annotated[PicoText | LocalText | HubText, Field(discriminator="kind")]


class Forward(Frozen):
    """How a checkpoint is run over sequences; everything that shares it shares the pass."""

    dtype: DType = "float32"
    """Precision of the weights and of the forward pass; features are upcast at once."""
    batch_size: int = Field(32, ge=1)
    """Sequences per forward pass. Not part of any identity: it changes no number."""


class Geometry(Frozen):
    """Spectrum of the last-token features."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Names of the study's datasets to measure on."""
    layers: Literal["last", "all"] = "last"
    """Only the final hidden state, or the embedding and every block's residual stream too."""


class Head(Frozen):
    """Geometry of the output embedding's rows."""

    unigram_dataset: str | None = None
    """Dataset whose token counts are compared with the norms."""
    extreme_tokens: int = Field(20, ge=1)
    """How many of the highest- and lowest-norm tokens are recorded."""
    drop_zero_rows: bool = False
    """Leave rows of norm zero out instead of refusing them."""


class Loss(Frozen):
    """Held-out loss of plain text, from the geometry's forward pass where both read a dataset."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Names of the study's datasets."""


class Evals(Frozen):
    """What a checkpoint can do."""

    loss: Loss | None = None
    """Held-out loss."""


class Study(Frozen):
    """Which checkpoints, which texts, and what to measure."""

    name: str
    """Name of the study."""
    description: str = ""
    """One line on what it shows."""
    suites: tuple[Suite, ...] = Field(min_length=1)
    """The series of checkpoints."""
    datasets: dict[str, Dataset] = Field({})
    """The texts to measure on, by name."""
    forward: Forward = Forward()
    """How checkpoints are run."""
    geometry: Geometry | None = None
    """Spectra of the features."""
    head: Head | None = None
    """Geometry of the LM head."""
    evals: Evals | None = None
    """Capabilities."""
