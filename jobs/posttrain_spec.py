"""What can be asked about post-training: chains of stages, and what is sampled from checkpoints."""

import math
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen

StageMethod = Literal["sft", "dpo", "rlvr"]

_DATA_FILE = r"^[^/@*?\[\]][^@*?\[\]]*\.(parquet|jsonl?(\.gz)?)$"


class LocalExamples(Frozen):
    """JSON or JSONL files: chats, instructions, preference pairs or problems.

    The format is told by the fields of the records: `messages` or `conversations`; `instruction`,
    `input` and `output`; `prompt` and `completion`; `chosen` and `rejected`, with or without
    `prompt` or `conversations`; `problem` (or `question`) and `answer`.
    """

    kind: Literal["local"] = "local"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files: `.json` (a list of records) or `.jsonl`."""
    limit: int | None = Field(None, ge=1)
    """Take only the first records; all where it is left out."""


class HubExamples(Frozen):
    """Records of a dataset on the hub, in one of the formats of local files."""

    kind: Literal["hub"] = "hub"
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository, as in `Anthropic/hh-rlhf`."""
    config: str | None = None
    """Name of the subset; may be left out where there is only one."""
    split: str = "train"
    """Split of the subset."""
    revision: str = "main"
    """Branch, tag or commit; the plan pins its commit."""
    files: tuple[Annotated[str, Field(pattern=_DATA_FILE)], ...] = ()
    """Instead of `config` and `split`: JSON, JSONL or Parquet files of the repository, for one
    that would need code of its own."""
    where: dict[str, tuple[str, ...]] = Field({})
    """Take only records whose fields have one of these values each; case is ignored."""
    limit: int | None = Field(None, ge=1)
    """Take only the first records; all where it is left out."""
    records: int | None = Field(None, ge=1)
    """How many there are after `where` and before `limit`: a plan counts epochs and problems by it,
    and a run that finds another number stops."""

    @model_validator(mode="after")
    def _read_in_one_way(self) -> "HubExamples":
        if self.files and (self.config is not None or self.split != "train"):
            raise ValueError("`files` stand instead of `config` and `split`: leave those out")
        if len({_ending(name) for name in self.files}) > 1:
            raise ValueError("`files` must all be Parquet, or all JSON")
        return self


class PicoExamples(Frozen):
    """Generated examples of a pico suite's corpus."""

    kind: Literal["pico"] = "pico"
    suite: str = "pico"
    """The pico suite."""
    form: Literal[
        "instructions", "heldout_instructions", "preferences", "problems", "heldout_problems"
    ]
    """Questions and sums with their answers; such as no model has been asked; those to train on
    with a right and a wrong answer; sums to train on; sums of which no model has seen any."""
    limit: int | None = Field(None, ge=1)
    """Take only the first records; all where it is left out."""


TrainingData = Annotated[LocalExamples | HubExamples | PicoExamples, Field(discriminator="kind")]


def _ending(name: str) -> str:
    return "parquet" if name.endswith(".parquet") else "json"


class Adapters(Frozen):
    """LoRA instead of full weights; checkpoints have it merged."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """LoRA's α."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ("attention",)
    """Adapted modules, as in fine-tuning."""


class TrainingStage(Frozen):
    """One stage of post-training, from the last checkpoint of the stage before."""

    method: StageMethod
    """Supervised fine-tuning, direct preference optimization, or reinforcement learning with
    verifiable rewards (GRPO)."""
    data: str
    """Name of the study's training data."""
    steps: int = Field(0, ge=0)
    """Optimizer steps; or give `epochs`."""
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Instead of `steps`: passes over the data, rounded up to whole steps."""
    save_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps whose checkpoints are kept besides the last."""
    learning_rate: float = Field(1e-5, gt=0, allow_inf_nan=False)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """Learning rate after the warm-up."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps with a rising learning rate."""
    batch_size: int = Field(16, ge=1)
    """Examples of a forward and backward pass; completions, for RLVR."""
    accumulation: int = Field(1, ge=1)
    """Such passes of an optimizer step."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_length: int = Field(1024, ge=2)
    """Longest example in tokens."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Of SFT's token losses within a batch."""
    beta: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Weight of the divergence from the first checkpoint: 0.1 for DPO and 0 for RLVR where it is
    left out; of no use for SFT."""
    length_normalized: bool = False
    """Divide the log-probability of each answer by its tokens, for DPO: Tülu 3's `dpo_norm`."""
    completions: int = Field(16, ge=2)
    """Completions of a problem, for RLVR."""
    completion_tokens: int = Field(64, ge=1)
    """Longest completion, for RLVR."""
    temperature: float = Field(1.0, gt=0)
    """Of the sampling, for RLVR."""
    adapters: Adapters | None = None
    """LoRA instead of full weights."""

    @model_validator(mode="after")
    def _steps_are_taken(self) -> "TrainingStage":
        if bool(self.steps) == (self.epochs is not None):
            raise ValueError("give either `steps`, at least 1, or `epochs`")
        if self.steps and (late := [step for step in self.save_steps if step > self.steps]):
            raise ValueError(f"save_steps names {late[0]}, beyond the last step {self.steps}")
        if self.length_normalized and self.method != "dpo":
            raise ValueError(f"length_normalized is of no use for {self.method}: leave it out")
        if self.method == "rlvr" and self.batch_size * self.accumulation % self.completions:
            raise ValueError(
                f"batch_size × accumulation = {self.batch_size * self.accumulation} must be a "
                f"multiple of completions = {self.completions}"
            )
        return self

    def counted(self, examples: int) -> "TrainingStage":
        """Returns the stage with its steps, where it gives epochs, over so many examples.

        Raises:
            ValueError: It saves a step that it doesn't take.
        """
        if self.epochs is None:
            return self
        passes = self.completions if self.method == "rlvr" else 1
        steps = math.ceil(
            Fraction(str(self.epochs)) * examples * passes / (self.batch_size * self.accumulation)
        )
        return TrainingStage.model_validate({**self.model_dump(), "steps": steps, "epochs": None})

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are kept, the last included."""
        return tuple(sorted({*self.save_steps, self.steps}))


class Chain(Frozen):
    """Stages of post-training, one from the last checkpoint of the other, traced throughout."""

    name: str
    """Name in every row: the suite of its checkpoints."""
    suite: str
    """The suite that it begins from."""
    models: tuple[str, ...] = ()
    """Its models; all where it is empty."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps of the checkpoints that it begins from; the last one of each model where it is
    empty."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...] = Field((0,), min_length=1)
    """Seeds of the order of the data, of dropout and of sampling."""
    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    """The stages."""
    threads: int = Field(1, ge=1)
    """CPU threads; part of the identity, since gradients differ by it."""
    processes: int = Field(1, ge=1)
    """Processes that train together, a GPU each where there are any: weights, gradients and
    optimizer state are split among them, and so is each batch. Part of the identity, since
    gradients differ by it."""

    @model_validator(mode="after")
    def _processes_share_batches(self) -> "Chain":
        for stage in self.stages:
            if stage.batch_size % self.processes:
                raise ValueError(
                    f"batch_size = {stage.batch_size} of stage {stage.method} must be a multiple "
                    f"of processes = {self.processes}"
                )
            if stage.method == "rlvr":
                share = stage.batch_size // self.processes * stage.accumulation
                if share % stage.completions:
                    raise ValueError(
                        f"batch_size × accumulation / processes = {share} of stage rlvr must be a "
                        f"multiple of completions = {stage.completions}: each process rewards "
                        "whole problems"
                    )
        return self


class PassK(Frozen):
    """Samples of answers to verifiable problems, and pass@k."""

    problems: tuple[str, ...] = Field(min_length=1)
    """Names of the study's training data whose records are problems."""
    suites: tuple[str, ...] = ()
    """Suites and chains that are sampled; all where it is empty."""
    models: tuple[str, ...] = ()
    """Models that are sampled; all where it is empty."""
    last_only: bool = True
    """Only the last checkpoint of each model and stage; the one that a chain begins from is among
    them."""
    samples: int = Field(512, ge=1)
    """Samples N of each problem."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8, 16, 32, 64, 128, 256), min_length=1
    )
    """How many tries; none may exceed N."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the sampling."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of the sampling."""
    new_tokens: int = Field(512, ge=1)
    """Longest answer, in tokens."""
    batch: int = Field(32, ge=1)
    """Problems of a cell: what a lost worker costs."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the sampling."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """What samples; part of the identity."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs of one worker among which vLLM splits the weights, for a model that one can't hold;
    processes, on a CPU. Part of the identity, since sums differ by it."""
    time_limit: float = Field(5.0, gt=0)
    """Seconds in which an answer must be graded; else it is wrong."""

    @model_validator(mode="after")
    def _tries_are_sampled(self) -> "PassK":
        if max(self.k) > self.samples:
            raise ValueError(
                f"pass@{max(self.k)} needs {max(self.k)} samples of each problem, and samples is "
                f"{self.samples}: raise samples, or lower k"
            )
        if self.tensor_parallel > 1 and self.engine != "vllm":
            raise ValueError(
                f"tensor_parallel = {self.tensor_parallel} is for vLLM alone, and engine is "
                f"{self.engine}"
            )
        return self
