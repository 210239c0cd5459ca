"""The kinds of work that ask what a checkpoint can do."""

from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar, Literal

from jobs.frozen import DType
from jobs.posttrain_work import Records
from jobs.questions import Questions
from jobs.sources import Produced, Source, TextFiles
from jobs.text_spec import Draw


@dataclass(frozen=True)
class EvalWork:
    """Answer the questions of a task."""

    kind: ClassVar[str] = "eval"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "evals"
    stage: ClassVar[Literal["evals"]] = "evals"
    patience: ClassVar[float] = 3600.0

    questions: Questions
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"questions": self.questions.identity, "dtype": self.dtype}


@dataclass(frozen=True)
class ChatsWork:
    """Tokenize chats and mark their answers, once for all checkpoints of a tokenizer.

    Attributes:
        dataset: The study's name for them.
        records: The chats.
        draw: How many, and where they are cut.
        tokenizer: The tokenizer's folder.
    """

    kind: ClassVar[str] = "chats"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "sequences"
    stage: ClassVar[Literal["fetch"]] = "fetch"
    patience: ClassVar[float] = 1800.0

    dataset: str
    records: Records
    draw: Draw
    tokenizer: Source

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the name; the trainer's release decides what an answer is."""
        return {
            "records": self.records.identity,
            "draw": self.draw.model_dump(mode="json", include=set(Draw.model_fields)),
            "tokenizer": self.tokenizer.identity,
            "trl": metadata.version("trl"),
        }


@dataclass(frozen=True)
class AblationWork:
    """Answer a task's multiple-choice questions without some directions of the features.

    Attributes:
        dataset: Label of the text whose features have the eigenvectors.
        sequences: The cell that drew it.
        questions: The task.
        ranks: How many of the top eigenvectors are removed, and retained.
        mean: Whether the features' mean stays, or is projected as well.
        dtype: Precision of the forward pass.
    """

    kind: ClassVar[str] = "ablation"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "ablation"
    stage: ClassVar[Literal["ablation"]] = "ablation"
    patience: ClassVar[float] = 3600.0

    dataset: str
    sequences: str
    questions: Questions
    ranks: tuple[int, ...]
    mean: Literal["keep", "drop"]
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {
            "sequences": self.sequences,
            "questions": self.questions.identity,
            "ranks": self.ranks,
            "mean": self.mean,
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class IndexWork:
    """Build the ∞-gram index of a corpus in a tokenizer's tokens."""

    kind: ClassVar[str] = "index"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "indexes"
    stage: ClassVar[Literal["memorization"]] = "memorization"
    patience: ClassVar[float] = 7200.0

    corpus: TextFiles | Produced
    tokenizer: Source

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"corpus": self.corpus.identity, "tokenizer": self.tokenizer.identity}


@dataclass(frozen=True)
class ForeignIndex:
    """An ∞-gram index that was built elsewhere.

    Attributes:
        path: Its folder.
        files: Name, size and hash of the beginning of each of its files; they are too large to be
            read whole.
        token_bytes: Bytes of one token in it.
    """

    path: str
    files: tuple[tuple[str, int, str], ...]
    token_bytes: Literal[1, 2, 4]

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: not the place."""
        return {"files": self.files, "token_bytes": self.token_bytes}


@dataclass(frozen=True)
class InfinigramWork:
    """Look a task's answers up in an ∞-gram index, once for all checkpoints of a tokenizer."""

    kind: ClassVar[str] = "infinigram"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "infinigram"
    stage: ClassVar[Literal["memorization"]] = "memorization"
    patience: ClassVar[float] = 7200.0

    questions: Questions
    index: Produced | ForeignIndex
    tokenizer: Source

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {
            "questions": self.questions.identity,
            "index": self.index.identity,
            "tokenizer": self.tokenizer.identity,
        }


@dataclass(frozen=True)
class MemorizationWork:
    """Compare the likelihoods of a task's answers with those of the ∞-gram model.

    Attributes:
        task: The study's name for the task.
        answers: The cell that looked them up; its artifact has the tokens.
        dtype: Precision of the forward pass.
    """

    kind: ClassVar[str] = "memorization"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "memorization"
    stage: ClassVar[Literal["memorization"]] = "memorization"
    patience: ClassVar[float] = 3600.0

    task: str
    answers: str
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"answers": self.answers, "dtype": self.dtype}


@dataclass(frozen=True)
class GenerateWork:
    """Continue prompts greedily."""

    kind: ClassVar[str] = "generate"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "generations"
    stage: ClassVar[Literal["generate"]] = "generate"
    patience: ClassVar[float] = 3600.0

    prompts: tuple[str, ...]
    new_tokens: int
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"prompts": self.prompts, "new_tokens": self.new_tokens, "dtype": self.dtype}
