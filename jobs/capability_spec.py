"""What can be asked about the capabilities of a checkpoint, besides the tasks themselves."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen
from jobs.text_spec import Draw

PAPER_PROMPTS = (
    "Sunlight filtered through dense canopy, dappling the forest floor",
    "An old, weathered map lay spread across the wooden table.",
    "A lone ship sailed silently towards the crimson horizon",
    "Intricate carvings covered the surface of the ancient stone tablet",
    "A faint melody drifted from an open window down the cobblestone street",
    "An unspoken tension filled the crowded room, heavy and palpable",
    "A single drop of rain landed on the dusty, parched earth",
)
"""The prompts of Figure 7 of the tracing paper (arXiv 2509.23024)."""


class Loss(Frozen):
    """Held-out loss of plain text, from the geometry's forward pass where both read a dataset."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Names of the study's datasets."""


class ChatLoss(Draw):
    """Loss of the answers in chats, given all before them: of what supervised fine-tuning learns.

    A model without a chat template reads chats in the one that fine-tuning gives it.
    """

    data: tuple[str, ...] = Field(min_length=1)
    """Names of the study's training data."""
    sequences: int = Field(10_000, ge=4)
    """Number of chats, at random; all where there are no more."""
    sequence_length: int = Field(1024, ge=2)
    """Where a chat is cut, in tokens."""


class Evals(Frozen):
    """What a checkpoint can do."""

    loss: Loss | None = None
    """Held-out loss."""
    chats: ChatLoss | None = None
    """Loss of answers."""
    tasks: tuple[str, ...] = ()
    """Names of the study's tasks."""


class PicoIndex(Frozen):
    """The very tokens that a pico suite's models were trained on."""

    kind: Literal["pico"] = "pico"
    suite: str = "pico"
    """The pico suite."""


class LocalIndex(Frozen):
    """Text files on disk, in the tokens of each checkpoint's tokenizer."""

    kind: Literal["local"] = "local"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files: `.txt` (documents parted by `separator`) or `.jsonl`/`.json`."""
    field: str = "text"
    """Field of a JSONL record that holds the text."""
    separator: str = Field("\n\n", min_length=1)
    """What stands between the documents of a text file."""


class PublishedIndex(Frozen):
    """An index that the infini-gram package reads, built elsewhere."""

    kind: Literal["published"] = "published"
    path: str
    """Folder with `tokenized.*`, `table.*` and `offset.*`."""
    tokenizer: str
    """Folder of the tokenizer whose ids it holds; a suite with another one is refused."""
    token_bytes: Literal[1, 2, 4] = 2
    """Bytes of one token in it."""


Index = Annotated[PicoIndex | LocalIndex | PublishedIndex, Field(discriminator="kind")]


class Memorization(Frozen):
    """Rank correlation of the model's answer likelihoods with those of an ∞-gram model."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of the study's tasks; those with free answers fit best."""
    corpus: Index = PicoIndex()
    """Which text the ∞-gram model counts in."""


class Ablation(Frozen):
    """Accuracy without, and with nothing but, the top eigenvectors of the features."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of the study's multiple-choice tasks."""
    dataset: str
    """Dataset whose features' covariance has the eigenvectors."""
    ranks: tuple[Annotated[int, Field(ge=0)], ...] = Field((10, 50), min_length=1)
    """How many of the top eigenvectors are removed, and retained; those above d are left out."""
    mean: Literal["keep", "drop"] = "keep"
    """Whether the features' mean stays, or is projected as well."""


class Generate(Frozen):
    """Greedy continuations of fixed prompts, and how much they repeat themselves."""

    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Prompts of the user's."""
    paper_prompts: bool = True
    """Whether the prompts of the tracing paper's Figure 7 come first."""
    new_tokens: int = Field(64, ge=1)
    """Longest continuation, in tokens."""

    @property
    def all_prompts(self) -> tuple[str, ...]:
        """The paper's prompts if they are wanted, then the user's."""
        return (*(PAPER_PROMPTS if self.paper_prompts else ()), *self.prompts)

    @model_validator(mode="after")
    def _something_to_continue(self) -> "Generate":
        if not self.all_prompts:
            raise ValueError("without paper_prompts, give `prompts`")
        return self
