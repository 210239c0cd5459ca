"""Cells: one unit of work each, identified by its inputs alone, so that a plan needs no weights."""

from dataclasses import dataclass, field
from functools import cached_property

from jobs.capability_work import (
    AblationWork,
    ChatsWork,
    EvalWork,
    InfinigramWork,
    MemorizationWork,
)
from jobs.finetune_work import FinetuneWork
from jobs.frozen import Stage
from jobs.identity import digest
from jobs.posttrain_work import PassKWork, PosttrainWork, SampleWork
from jobs.sources import Source
from jobs.winrate_work import RespondWork, WinrateWork
from jobs.work import CheckpointWork, SequencesWork, Work


@dataclass(frozen=True)
class Checkpoint:
    """One state of a model, with the labels that its rows carry.

    Attributes:
        suite: Series of checkpoints.
        model: Model of the suite.
        revision: Name of the checkpoint.
        step: Optimizer steps taken, where known.
        tokens: Training tokens seen, where known.
        stage: Kind of training that made it.
        source: The weights' folder.
        tokenizer: The tokenizer's folder.
        alias: Tells it from another checkpoint with the same weights that is measured as well.
    """

    suite: str
    model: str
    revision: str
    step: int | None
    tokens: int | None
    stage: Stage
    source: Source
    tokenizer: Source
    alias: str | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: the weights, the tokenizer, and the alias if there is one."""
        found: dict[str, object] = {
            "weights": self.source.identity,
            "tokenizer": self.tokenizer.identity,
        }
        return found if self.alias is None else {**found, "alias": self.alias}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.suite}/{self.model}@{self.revision}"


PRIMARY_TABLES = (
    "audit",
    "corpora",
    "training_log",
    "sequences",
    "checkpoints",
    "geometry",
    "evals",
    "head",
    "ablation",
    "indexes",
    "infinigram",
    "memorization",
    "generations",
    "sensitivity",
    "finetunes",
    "posttrain",
    "samples",
    "passk",
    "responses",
    "winrates",
    "toy",
)
"""Tables whose rows say that a cell is done."""


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    Attributes:
        work: What to do.
        needs: Cells whose artifacts it reads.
        checkpoint: What it measures; cells of one checkpoint are run together.
        suite: Label of the rows of a cell without a checkpoint.
        model: Likewise.
    """

    work: Work
    needs: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    suite: str = field(default="", compare=False)
    model: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """SHA-256 of kind, version, checkpoint and parameters."""
        checkpoint = self.checkpoint
        return digest(
            {
                "kind": self.work.kind,
                "version": self.work.version,
                "parameters": self.work.parameters,
                "checkpoint": None if checkpoint is None else checkpoint.identity,
            }
        )

    @cached_property
    def group(self) -> str:
        """Cells with the same group are run together by one worker, from one load."""
        if self.checkpoint is None:
            return self.id
        if isinstance(self.work, FinetuneWork):
            # What is compared in pairs: apart from the measurements, and from other seeds.
            points = {"examples": self.work.examples.identity, "seed": self.work.recipe.seed}
            return digest({"finetune": self.checkpoint.digest, **points})
        match self.work:
            case PosttrainWork():
                return self.id
            case SampleWork() | PassKWork():
                # From one engine, which holds weights of its own.
                return digest({"sampled": self.checkpoint.digest})
            case _:
                return self.checkpoint.digest

    @property
    def label(self) -> str:
        """Name for people: kind and what it is done to."""
        asked = _asked(self.work)
        kind = self.work.kind + (f" {asked}" if asked else "")
        if self.checkpoint is not None:
            return f"{kind} {self.checkpoint.label}"
        if isinstance(self.work, SequencesWork | ChatsWork):
            return f"{self.work.kind} {self.work.dataset}"
        if isinstance(self.work, CheckpointWork) and self.work.refusal is not None:
            refused = self.work.refusal.finding
            return f"refused checkpoint {self.suite}/{self.model}@{refused.revision}"
        return f"{kind} {self.suite}" + (f"/{self.model}" if self.model else "")


def _asked(work: Work) -> str:
    """Returns the name of the task that a work asks; empty where it asks none."""
    match work:
        case EvalWork() | AblationWork() | InfinigramWork():
            return work.questions.name
        case MemorizationWork():
            return work.task
        case FinetuneWork():
            return f"{work.examples.name} {work.recipe.label}"
        case PosttrainWork():
            return f"{work.training.method} on {work.records.name} seed {work.seed}"
        case SampleWork():
            return f"{work.records.name} from {work.first}"
        case PassKWork():
            return work.problems
        case RespondWork():
            return work.records.name
        case WinrateWork():
            baseline, compared = work.sides
            return f"{work.instructions} {compared.revision} over {baseline.suite}/{baseline.model}"
        case _:
            return ""
