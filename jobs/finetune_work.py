"""The work of fine-tuning a checkpoint once: examples, adapters, and how they are trained."""

from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar, Literal

from jobs.finetune_spec import InterventionName, Method
from jobs.frozen import DType
from jobs.questions import HubData
from jobs.sources import TextFiles


@dataclass(frozen=True)
class PairFiles:
    """Prompts and answers in JSONL files.

    Attributes:
        name: The study's name for the task.
        training: Files of the examples to train on.
        validation: Files of those that the loss is measured on.
        prompt: Field of a record that holds the prompt.
        answer: Field that holds the answer; a space leads it unless either side has one.
    """

    name: str
    training: TextFiles
    validation: TextFiles
    prompt: str
    answer: str

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {
            "training": self.training.identity,
            "validation": self.validation.identity,
            "prompt": self.prompt,
            "answer": self.answer,
        }


@dataclass(frozen=True)
class PicoPairs:
    """Questions about the facts of a pico corpus, or its sums, with their answers.

    Training examples are those that pretraining asked as well, validation ones are held out.

    Attributes:
        name: The study's name for the task.
        corpus: The corpus cell.
        form: Four options in the prompt, the bare question, a statement up to its last word, or a
            sum.
    """

    name: str
    corpus: str
    form: Literal["choice", "open", "last_word", "sum"]

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {"corpus": self.corpus, "form": self.form}


@dataclass(frozen=True)
class HarnessPairs:
    """The prompts of an lm-eval task with their right answers, of two of its splits.

    Attributes:
        name: The study's name for the task.
        task: lm-eval's name of it; None where `config` defines it.
        config: The user's task file for lm-eval.
        training: Records to train on; on the hub, the task's training split.
        validation: Records to measure the loss on; on the hub, its validation split.
    """

    name: str
    task: str | None
    config: TextFiles | None
    training: TextFiles | HubData
    validation: TextFiles | HubData

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {
            "task": self.task,
            "config": None if self.config is None else self.config.identity,
            "training": self.training.identity,
            "validation": self.validation.identity,
            "harness": metadata.version("lm_eval"),
        }


Examples = PairFiles | PicoPairs | HarnessPairs


@dataclass(frozen=True)
class Recipe:
    """How adapters are made and trained, whatever the examples.

    Attributes:
        method: How adapters learn.
        intervention: What is done to the head's norms first.
        clip: Quantile of the intervention `clip`; None for others.
        rank: Rank of the adapters.
        targets: Adapted modules, as the study names them.
        groups: Groups of `norm_group_lora`; None for others.
        alpha: LoRA's α.
        dropout: Dropout before the adapters.
        epochs: Passes over the training examples.
        batch_size: Examples of an optimizer step.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        seed: Of adapters, order and dropout.
        threads: CPU threads.
        dtype: Precision of the frozen weights; adapters are float32.
    """

    method: Method
    intervention: InterventionName
    clip: float | None
    rank: int
    targets: tuple[str, ...]
    groups: int | None
    alpha: float
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    threads: int
    dtype: DType

    @property
    def label(self) -> str:
        """Name for people."""
        changed = "" if self.intervention == "none" else f" {self.intervention}"
        where = "" if self.targets == ("attention",) else f" on {'+'.join(self.targets)}"
        return (
            f"{self.method}{changed} rank {self.rank}{where} lr {self.learning_rate:g} "
            f"seed {self.seed}"
        )


@dataclass(frozen=True)
class Halving:
    """When a trial of a search is stopped; see `jobs.finetune_spec.Search`."""

    grace_epochs: int
    reduction: int


@dataclass(frozen=True)
class FinetuneWork:
    """Fine-tune a checkpoint once, with the loss before and after.

    Attributes:
        examples: What is learned.
        recipe: How.
        training_examples: Most of them to train on.
        validation_examples: Most of them to measure on.
        max_length: Longest example in tokens.
        template: What is read before the answer.
        dataset: Label of the text whose loss is the forgetting.
        sequences: The cell that drew it.
        dataset_sequences: So many of its first sequences are read.
        halving: Of a trial of a search: when it is stopped.
        rivals: The trials of the same search that came before.
    """

    kind: ClassVar[str] = "finetune"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "finetunes"
    stage: ClassVar[Literal["finetune"]] = "finetune"
    patience: ClassVar[float] = 3600.0

    examples: Examples
    recipe: Recipe
    training_examples: int | None
    validation_examples: int | None
    max_length: int
    template: str
    dataset: str | None
    sequences: str | None
    dataset_sequences: int
    halving: Halving | None = None
    rivals: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but labels; of a search, where there is one."""
        recipe = {name: value for name, value in vars(self.recipe).items() if value is not None}
        search = {} if self.halving is None else {"halving": vars(self.halving)}
        return {
            "examples": self.examples.identity,
            "recipe": recipe,
            "training_examples": self.training_examples,
            "validation_examples": self.validation_examples,
            "max_length": self.max_length,
            "template": self.template,
            "sequences": self.sequences,
            "dataset_sequences": None if self.sequences is None else self.dataset_sequences,
            **search,
            **({"rivals": self.rivals} if self.rivals else {}),
        }


@dataclass(frozen=True)
class SensitivityWork:
    """Measure how the loss of a text rises when noise is added to the weights.

    Attributes:
        dataset: Label of the text.
        sequences: The cell that drew it.
        dataset_sequences: So many of its first sequences are read.
        scales: Noise of each tensor relative to its root mean square, γ.
        seeds: Draws of the noise.
        dtype: Precision of the forward pass.
    """

    kind: ClassVar[str] = "sensitivity"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "sensitivity"
    stage: ClassVar[Literal["finetune"]] = "finetune"
    patience: ClassVar[float] = 3600.0

    dataset: str
    sequences: str
    dataset_sequences: int
    scales: tuple[float, ...]
    seeds: tuple[int, ...]
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {
            "sequences": self.sequences,
            "dataset_sequences": self.dataset_sequences,
            "scales": self.scales,
            "seeds": self.seeds,
            "dtype": self.dtype,
        }
