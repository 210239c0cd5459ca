"""The kinds of work: what each one does, which table it fills, and what identifies it.

Labels (names of texts and models) are carried for the rows but are no part of `parameters`;
neither are paths, devices and batch sizes. A kind whose numbers change gets a new version.

A cell that tells nothing for the `patience` of its kind, in seconds, is taken to hang. Kinds that
load a checkpoint get the most: hundreds of gigabytes from a slow disk are loaded without a word.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jobs.capability_work import (
    AblationWork,
    ChatsWork,
    EvalWork,
    GenerateWork,
    IndexWork,
    InfinigramWork,
    MemorizationWork,
)
from jobs.findings import AuditWork, Refusal
from jobs.finetune_work import FinetuneWork, SensitivityWork
from jobs.frozen import DType
from jobs.pico_spec import PicoCorpus, PicoModel
from jobs.posttrain_work import PassKWork, PosttrainWork, SampleWork
from jobs.sources import Produced, Source, TextFiles
from jobs.streams import HubStream
from jobs.text_spec import Sequences
from jobs.toy_work import ToyWork
from jobs.winrate_work import RespondWork, WinrateWork

StageName = Literal[
    "fetch",
    "geometry",
    "head",
    "evals",
    "ablation",
    "memorization",
    "generate",
    "finetune",
    "posttrain",
    "passk",
    "toy",
]


@dataclass(frozen=True)
class CorpusWork:
    """Make a pico suite's corpus and tokenizer."""

    kind: ClassVar[str] = "corpus"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "corpora"
    stage: ClassVar[StageName] = "fetch"
    patience: ClassVar[float] = 1800.0

    corpus: PicoCorpus
    source: str

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {**self.corpus.model_dump(mode="json"), "source": self.source}


@dataclass(frozen=True)
class PretrainWork:
    """Pretrain a pico model on a corpus cell's artifact."""

    kind: ClassVar[str] = "pretrain"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "training_log"
    stage: ClassVar[StageName] = "fetch"
    patience: ClassVar[float] = 600.0

    model: PicoModel
    corpus: str

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the model's name; weights of tokens where they differ."""
        left_out = {"name"} | (
            {"target_weights"} if self.model.target_weights == "equal" else set()
        )
        return {**self.model.model_dump(mode="json", exclude=left_out), "corpus": self.corpus}


@dataclass(frozen=True)
class SequencesWork:
    """Draw and tokenize the sequences of a text, once for all checkpoints of a tokenizer."""

    kind: ClassVar[str] = "sequences"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "sequences"
    stage: ClassVar[StageName] = "fetch"
    patience: ClassVar[float] = 1800.0

    dataset: str
    text: TextFiles | Produced | HubStream
    draw: Sequences
    tokenizer: Source

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: the text, the draw and the tokenizer."""
        names = set(Sequences.model_fields)
        return {
            "text": self.text.identity,
            "draw": self.draw.model_dump(mode="json", include=names),
            "tokenizer": self.tokenizer.identity,
        }


@dataclass(frozen=True)
class CheckpointWork:
    """Record what a checkpoint is: shapes, sizes and the hash of its weights; or why it is refused.

    Attributes:
        refusal: Why it isn't loaded; its cell has no checkpoint then.
    """

    kind: ClassVar[str] = "checkpoint"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "checkpoints"
    stage: ClassVar[StageName] = "fetch"
    patience: ClassVar[float] = 3600.0

    refusal: Refusal | None = None

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: nothing, but for a refusal."""
        return {} if self.refusal is None else self.refusal.parameters


@dataclass(frozen=True)
class GeometryWork:
    """Measure the spectra of the features on a sequences cell's artifact."""

    kind: ClassVar[str] = "geometry"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "geometry"
    stage: ClassVar[StageName] = "geometry"
    patience: ClassVar[float] = 3600.0

    dataset: str
    sequences: str
    layers: Literal["last", "all"]
    dtype: DType
    sample_counts: tuple[int, ...] = ()
    sequence_lengths: tuple[int, ...] = ()

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed; sweeps where there are any."""
        sweeps = {
            "sample_counts": self.sample_counts,
            "sequence_lengths": self.sequence_lengths,
        }
        return {
            "sequences": self.sequences,
            "layers": self.layers,
            "dtype": self.dtype,
            **{name: points for name, points in sweeps.items() if points},
        }


@dataclass(frozen=True)
class LossWork:
    """Measure the held-out loss on a sequences or chats cell's artifact."""

    kind: ClassVar[str] = "loss"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "evals"
    stage: ClassVar[StageName] = "evals"
    patience: ClassVar[float] = 3600.0

    dataset: str
    sequences: str
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"sequences": self.sequences, "dtype": self.dtype}


@dataclass(frozen=True)
class HeadWork:
    """Measure the rows of the LM head.

    Attributes:
        overlaps: Whether to measure overlaps, whose cost grows with the square of the vocabulary.
    """

    kind: ClassVar[str] = "head"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "head"
    stage: ClassVar[StageName] = "head"
    patience: ClassVar[float] = 3600.0

    unigram_dataset: str | None
    sequences: str | None
    extreme_tokens: int
    drop_zero_rows: bool
    overlaps: bool = True

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed; overlaps where they are left out."""
        return {
            "sequences": self.sequences,
            "extreme_tokens": self.extreme_tokens,
            "drop_zero_rows": self.drop_zero_rows,
            **({} if self.overlaps else {"overlaps": False}),
        }


Work = (
    AuditWork
    | CorpusWork
    | PretrainWork
    | SequencesWork
    | ChatsWork
    | CheckpointWork
    | GeometryWork
    | LossWork
    | HeadWork
    | EvalWork
    | AblationWork
    | IndexWork
    | InfinigramWork
    | MemorizationWork
    | GenerateWork
    | SensitivityWork
    | FinetuneWork
    | PosttrainWork
    | SampleWork
    | PassKWork
    | RespondWork
    | WinrateWork
    | ToyWork
)
KINDS: tuple[str, ...] = tuple(work.kind for work in get_args(Work))
"""Name of every kind of work."""


def trains(work: Work) -> bool:
    """Tells whether a work trains a given checkpoint further: its cell is a trial of Ray Tune."""
    return isinstance(work, FinetuneWork | PosttrainWork)


def gpus(work: Work) -> int:
    """Returns how many GPUs a work needs at once, where it is done on GPUs."""
    match work:
        case PosttrainWork():
            return work.processes
        case SampleWork():
            return work.sampling.tensor_parallel
        case _:
            return 1


def precision(work: Work) -> DType | None:
    """Returns the precision of a work's forward pass; None where it runs the model through none."""
    match work:
        case (
            GeometryWork()
            | LossWork()
            | EvalWork()
            | AblationWork()
            | MemorizationWork()
            | GenerateWork()
            | SensitivityWork()
        ):
            return work.dtype
        case FinetuneWork():
            return work.recipe.dtype
        case PosttrainWork() | RespondWork():
            return work.dtype
        case SampleWork():
            return work.sampling.dtype
        case _:
            return None
