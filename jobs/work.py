"""The kinds of work: what each one does, which table it fills, and what identifies it.

Labels (names of texts and models) are carried for the rows but are no part of `parameters`;
neither are paths, devices and batch sizes. A kind whose numbers change gets a new version.

A cell that tells nothing for the `patience` of its kind, in seconds, is taken to hang. Kinds that
load a checkpoint get the most: hundreds of gigabytes from a slow disk are loaded without a word.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jobs.findings import AuditWork, Refusal
from jobs.spec import DType, PicoCorpus, PicoModel, Sequences
from jobs.streams import HubStream

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files of a tokenizer, in the order in which they are hashed."""

StageName = Literal["fetch", "geometry", "head", "evals"]


@dataclass(frozen=True)
class Folder:
    """A folder on disk, known by the SHA-256 of the files in it that count.

    Attributes:
        path: Where it lies.
        files: File name and SHA-256, sorted by name.
    """

    path: str
    files: tuple[tuple[str, str], ...]

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: names and contents, not the place."""
        return {"files": dict(self.files)}


@dataclass(frozen=True)
class Produced:
    """A folder within the artifact of a cell, known before the cell has run.

    Attributes:
        cell_id: The producing cell.
        folder: Folder within its artifact.
    """

    cell_id: str
    folder: str

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: the producer and the place within its artifact."""
        return {"cell": self.cell_id, "folder": self.folder}


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the hub, as its tree lists it.

    Attributes:
        path: Path in the repository.
        size: Bytes.
        oid: Git's hash of its content, or of the pointer that stands for it.
        sha256: SHA-256 of its bytes, where the hub tells it: for large files.
    """

    path: str
    size: int
    oid: str
    sha256: str | None = None


@dataclass(frozen=True)
class HubFolder:
    """Files of a repository on the hub, at a commit.

    Attributes:
        repository: The repository.
        commit: The commit, which never changes.
        files: The files that are needed, sorted by path.
    """

    repository: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: contents alone, so that a commit that changes no file changes nothing."""
        return {"files": {file.path: file.sha256 or file.oid for file in self.files}}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


Source = Folder | Produced | HubFolder


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
        """What is hashed: all but the model's name."""
        return {**self.model.model_dump(mode="json", exclude={"name"}), "corpus": self.corpus}


@dataclass(frozen=True)
class TextFiles:
    """Text on disk.

    Attributes:
        files: Path and SHA-256 of each file, in the order in which they are read.
        field: Field of a JSONL record that holds the text.
        separator: What stands between documents of a text file.
    """

    files: tuple[tuple[str, str], ...]
    field: str
    separator: str

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: contents, not places."""
        return {
            "files": [sha256 for _, sha256 in self.files],
            "field": self.field,
            "separator": self.separator,
        }


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

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {"sequences": self.sequences, "layers": self.layers, "dtype": self.dtype}


@dataclass(frozen=True)
class LossWork:
    """Measure the held-out loss on a sequences cell's artifact."""

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
    """Measure the rows of the LM head."""

    kind: ClassVar[str] = "head"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "head"
    stage: ClassVar[StageName] = "head"
    patience: ClassVar[float] = 3600.0

    unigram_dataset: str | None
    sequences: str | None
    extreme_tokens: int
    drop_zero_rows: bool

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {
            "sequences": self.sequences,
            "extreme_tokens": self.extreme_tokens,
            "drop_zero_rows": self.drop_zero_rows,
        }


Work = (
    AuditWork
    | CorpusWork
    | PretrainWork
    | SequencesWork
    | CheckpointWork
    | GeometryWork
    | LossWork
    | HeadWork
)
KINDS: tuple[str, ...] = tuple(work.kind for work in get_args(Work))
"""Name of every kind of work."""
