"""What can be asked for: the frozen models behind a study file. Unknown keys are refused."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from jobs.capability_spec import Ablation, Evals, Generate, Memorization
from jobs.finetune_spec import Finetune, Sensitivity
from jobs.frozen import DType, Frozen, Stage
from jobs.hub_spec import HubSuite
from jobs.pico_spec import PicoSuite
from jobs.posttrain_spec import Chain, PassK, TrainingData
from jobs.task_spec import Task
from jobs.text_spec import Dataset
from jobs.toy_spec import ToySweep
from jobs.winrate_spec import Winrates


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


class Forward(Frozen):
    """How a checkpoint is run over sequences; everything that shares it shares the pass."""

    dtype: DType = "float32"
    """Precision of the weights and of the forward pass; features are upcast at once."""
    batch_size: int = Field(32, ge=1, lt=2**53)
    """Sequences per forward pass. Not part of any identity: it changes no number."""


class Geometry(Frozen):
    """Spectrum of the last-token features."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Names of the study's datasets to measure on."""
    layers: Literal["last", "all"] = "last"
    """Only the final hidden state, or the embedding and every block's residual stream too."""
    sample_counts: tuple[Annotated[int, Field(ge=4)], ...] = ()
    """Sweep over M: the last layer on so many of the first sequences, too."""
    sequence_lengths: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sweep over L: the last layer as if sequences were cut at so many tokens, too."""


class Head(Frozen):
    """Geometry of the output embedding's rows."""

    unigram_dataset: str | None = None
    """Dataset whose token counts are compared with the norms."""
    extreme_tokens: int = Field(20, ge=1)
    """How many of the highest- and lowest-norm tokens are recorded."""
    drop_zero_rows: bool = False
    """Leave rows of norm zero out instead of refusing them."""


class Study(Frozen):
    """Which checkpoints, which texts, and what to measure."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["suites"]}, {"required": ["toy"]}]}
    )

    name: str
    """Name of the study."""
    description: str = ""
    """One line on what it shows."""
    suites: tuple[Suite, ...] = Field((), min_length=1)
    """The series of checkpoints."""
    datasets: dict[str, Dataset] = Field({})
    """The texts to measure on, by name."""
    tasks: dict[str, Task] = Field({})
    """Questions with answers, by name."""
    forward: Forward = Forward()
    """How checkpoints are run."""
    geometry: Geometry | None = None
    """Spectra of the features."""
    head: Head | None = None
    """Geometry of the LM head."""
    evals: Evals | None = None
    """Capabilities."""
    ablation: Ablation | None = None
    """What remains without some of the features' directions."""
    memorization: Memorization | None = None
    """How much the model follows the counts of its corpus."""
    generate: Generate | None = None
    """What the model says."""
    finetune: Finetune | None = None
    """How well the checkpoints can be fine-tuned."""
    sensitivity: Sensitivity | None = None
    """How the loss rises with noise on the weights."""
    training: dict[str, TrainingData] = Field({})
    """What post-training learns from, and problems to answer, by name."""
    posttrain: tuple[Chain, ...] = Field((), min_length=1)
    """Chains of post-training; their checkpoints are measured like any others."""
    passk: PassK | None = None
    """Answers sampled from the checkpoints."""
    winrates: Winrates | None = None
    """Whose answers a judge prefers."""
    toy: tuple[ToySweep, ...] = Field((), min_length=1)
    """Sweeps of the tractable model, which needs no checkpoints."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Study":
        if not (self.suites or self.toy):
            raise ValueError("a study needs suites or sweeps of the toy model")
        taken = {suite.name for suite in self.suites}
        for chain in self.posttrain:
            if chain.name in taken:
                raise ValueError(f"the chain '{chain.name}' has the name of a suite or chain")
            taken.add(chain.name)
        return self
