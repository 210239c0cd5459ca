"""Numbers that the papers print, and whether a study's models are the papers' models.

Invariant: a published number stands beside one of ours only where the weights come from the very
repository that the paper used; everything else that must be equal, each table asks for itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NORM = "norm heterogeneity"
"""The paper on norm heterogeneity of the LM head."""

TRACING = "tracing geometry"
"""The paper that traces representation geometry from pretraining to post-training."""


@dataclass(frozen=True)
class Value:
    """One number as a paper prints it.

    Attributes:
        model: The model as the paper calls it; empty where it names none.
        row: What else names its row.
        column: Name of its column.
        value: The number.
        n: Points that it is of, as printed or implied; None where the paper doesn't say.
        pvalue: Its p, where printed.
    """

    model: str
    row: str
    column: str
    value: float
    n: int | None = None
    pvalue: float | None = None


@dataclass(frozen=True)
class Source:
    """One table, or one passage, of a paper.

    Attributes:
        paper: `NORM` or `TRACING`.
        place: Where it was read.
        values: Its numbers.
        note: What the paper leaves open about them.
    """

    paper: str
    place: str
    values: tuple[Value, ...]
    note: str = ""

    def find(self, model: str, row: str, column: str) -> Value | None:
        """Returns one number; None where it isn't printed. A model left open fits every model."""
        for value in self.values:
            if (value.row, value.column) == (row, column) and value.model in ("", model):
                return value
        return None


@dataclass(frozen=True)
class PaperModel:
    """A model of a paper.

    Attributes:
        name: What the paper calls it.
        repository: Its repository on the hub.
        last_step: The step of the last checkpoint of its pretraining.
    """

    name: str
    repository: str
    last_step: int


MODELS = (
    PaperModel("Pythia-410M", "EleutherAI/pythia-410m-deduped", 143_000),
    PaperModel("Pythia-1.4B", "EleutherAI/pythia-1.4b-deduped", 143_000),
    PaperModel("Pythia-1B", "EleutherAI/pythia-1b", 143_000),
    PaperModel("Pythia-1.4B", "EleutherAI/pythia-1.4b", 143_000),
    PaperModel("Pythia-2.8B", "EleutherAI/pythia-2.8b", 143_000),
    PaperModel("Pythia-6.9B", "EleutherAI/pythia-6.9b", 143_000),
    PaperModel("Pythia-12B", "EleutherAI/pythia-12b", 143_000),
    PaperModel("OLMo-2-1B", "allenai/OLMo-2-0425-1B", 1_907_359),
    PaperModel("OLMo-2-7B", "allenai/OLMo-2-1124-7B", 928_646),
)
"""Deduped Pythia models are the norm paper's, the others the tracing paper's; of the latter the
paper says "the Pythia suite" and doesn't mention deduplication."""

_OF = {True: NORM, False: TRACING}


def papers_models(checkpoints: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], PaperModel]:
    """Finds the papers' models among those of a study.

    A model counts only where every checkpoint that was loaded names a repository, and the paper's
    is among them: OLMo 2 has its early checkpoints in another one.

    Args:
        checkpoints: Rows of `checkpoints` that were loaded.

    Returns:
        The paper's model by suite and model.
    """
    repositories: dict[tuple[str, str], set[str | None]] = {}
    for row in checkpoints:
        key = (row["suite"], row["model"])
        repositories.setdefault(key, set()).add(row["repository"])
    known = {model.repository: model for model in MODELS}
    found = {}
    for key, names in repositories.items():
        usable = [known[name] for name in names if name in known]
        strange = [
            name
            for name in names
            if name is None or not any(name.startswith(m.repository) for m in usable)
        ]
        if len(usable) == 1 and not strange:
            found[key] = usable[0]
    return found


def belongs_to(model: PaperModel) -> str:
    """Tells which paper a model is of."""
    return _OF[model.repository.endswith("-deduped")]
