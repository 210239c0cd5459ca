"""Streams: texts that stay on the hub, known by the commit at which they are read."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class HubStream:
    """The first documents of a dataset on the hub, at a commit.

    Attributes:
        repository: The repository.
        config: Name of the subset; None if there is only one.
        split: Split of the subset.
        commit: The commit, which never changes.
        field: Field of a record that holds the text.
        documents: How many records are read.
    """

    repository: str
    config: str | None
    split: str
    commit: str
    field: str
    documents: int

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: everything."""
        return asdict(self)
