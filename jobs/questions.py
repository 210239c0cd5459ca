"""Tasks as a cell knows them: where the questions come from, and what identifies them."""

from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from jobs.sources import TextFiles

_HARNESS = "lm_eval"


@dataclass(frozen=True)
class HubData:
    """A dataset on the hub, at a commit.

    Attributes:
        repository: The repository.
        commit: The commit, which never changes.
    """

    repository: str
    commit: str

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed."""
        return {"repository": self.repository, "commit": self.commit}


@dataclass(frozen=True)
class HarnessQuestions:
    """A task of lm-eval.

    Attributes:
        name: The study's name for it.
        task: lm-eval's name of it; None where `config` defines it.
        config: The user's task file for lm-eval.
        data: The records, on disk or on the hub.
        shots: Solved examples before each question.
        limit: Ask only so many of the first questions.
    """

    name: str
    task: str | None
    config: TextFiles | None
    data: TextFiles | HubData
    shots: int
    limit: int | None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: the definition, the records and how they are asked; not the name."""
        return {
            "task": self.task,
            "config": None if self.config is None else self.config.identity,
            "data": self.data.identity,
            "shots": self.shots,
            "limit": self.limit,
            "harness": metadata.version(_HARNESS),
        }


@dataclass(frozen=True)
class PicoQuestions:
    """Questions about the facts of a pico corpus.

    Attributes:
        name: The study's name for the task.
        corpus: The corpus cell.
        form: Four options, free text, or the last word of a statement.
        questions: Which facts are asked for.
        limit: Ask only so many.
    """

    name: str
    corpus: str
    form: Literal["choice", "open", "last_word"]
    questions: Literal["heldout", "train"]
    limit: int | None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {
            "corpus": self.corpus,
            "form": self.form,
            "questions": self.questions,
            "limit": self.limit,
            "harness": metadata.version(_HARNESS),
        }


Questions = HarnessQuestions | PicoQuestions
