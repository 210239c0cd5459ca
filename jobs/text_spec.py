"""Texts to measure on, as a study asks for them, and how sequences are drawn from them."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.frozen import Frozen


class Draw(Frozen):
    """How much is drawn, once for all checkpoints of a tokenizer."""

    sequences: int = Field(1500, ge=4)
    """Number of sequences M."""
    sequence_length: int = Field(64, ge=1)
    """Longest length L of a sequence, in tokens, special tokens included."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the draw."""


class Sequences(Draw):
    """How sequences are drawn from a text."""

    mode: Literal["document", "packed"] = "document"
    """One sequence per document, cut at L; or all text joined and cut into pieces of L."""
    special_tokens: bool = True
    """Whether the tokenizer adds its special tokens (packed: its end-of-text between documents)."""
    minimum_length: int = Field(1, ge=1)
    """Documents with fewer tokens are passed over."""


class PicoText(Sequences):
    """Held-out English of a pico suite's corpus."""

    kind: Literal["pico"] = "pico"
    suite: str = "pico"
    """The pico suite whose held-out text is read."""
    mode: Literal["document", "packed"] = "packed"


class LocalText(Sequences):
    """Text or JSONL files on disk."""

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
