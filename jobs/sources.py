"""Sources: where a cell's input lies, and what identifies it: contents, never a place."""

from dataclasses import dataclass

CHAT_TEMPLATE_FILE = "chat_template.jinja"
"""A tokenizer's chat template; post-training puts one beside weights whose tokenizer has none."""
TOKENIZER_FILES = (
    "added_tokens.json",
    CHAT_TEMPLATE_FILE,
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files of a tokenizer, in the order in which they are hashed."""


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
