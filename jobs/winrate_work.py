"""The work of win rates: the answers of a checkpoint, and which of two checkpoints' are preferred.

Where the judge is reached, what it may cost and how often it is asked are no part of an identity.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jobs.frozen import DType
from jobs.posttrain_work import Records
from jobs.sources import Source, TextFiles
from jobs.winrate_spec import EndpointJudge

_JUDGEMENT = {"model", "prompt", "temperature", "answer_tokens", "logprobs"}


@dataclass(frozen=True)
class RespondWork:
    """Answer instructions; its artifact holds the answers.

    Attributes:
        records: The instructions.
        new_tokens: Longest answer in tokens.
        temperature: Of the sampling; 0 takes the likeliest token.
        seed: Of the sampling.
        dtype: Precision of the weights.
    """

    kind: ClassVar[str] = "respond"
    version: ClassVar[int] = 2
    table: ClassVar[str] = "responses"
    stage: ClassVar[Literal["posttrain"]] = "posttrain"
    patience: ClassVar[float] = 3600.0

    records: Records
    new_tokens: int
    temperature: float
    seed: int
    dtype: DType

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the instructions' name; a seed only where something is drawn."""
        drawn = {"temperature": self.temperature, "seed": self.seed} if self.temperature else {}
        return {
            "records": self.records.identity,
            "new_tokens": self.new_tokens,
            "dtype": self.dtype,
            **drawn,
        }


@dataclass(frozen=True)
class JudgeCheckpoint:
    """A local judge: a checkpoint that prefers what is likelier to it.

    Attributes:
        source: The weights' folder.
        tokenizer: The tokenizer's folder.
        dtype: Precision of the weights.
    """

    source: Source
    tokenizer: Source
    dtype: DType


@dataclass(frozen=True)
class Side:
    """One of two compared checkpoints, by the labels that rows carry.

    Attributes:
        suite: Its series of checkpoints.
        model: Its model.
        revision: Its name.
        step: Its optimizer steps.
        stage: What kind of training made it.
        start: Step of the checkpoint that its chain began from; None where there is no chain.
    """

    suite: str
    model: str
    revision: str
    step: int | None
    stage: str
    start: int | None


@dataclass(frozen=True)
class WinrateWork:
    """Have the answers of two checkpoints judged, in both orders.

    Attributes:
        comparison: Whether two chains are compared, or a start with the last one.
        instructions: The study's name for the instructions.
        sides: The baseline and what is compared with it.
        responses: The cells that answered, the baseline's first.
        judge: Who judges.
        difficulties: How hard each instruction is, for the length-controlled rate.
    """

    kind: ClassVar[str] = "winrate"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "winrates"
    stage: ClassVar[Literal["posttrain"]] = "posttrain"
    patience: ClassVar[float] = 3600.0

    comparison: Literal["pair", "last"]
    instructions: str
    sides: tuple[Side, Side]
    responses: tuple[str, str]
    judge: EndpointJudge | JudgeCheckpoint
    difficulties: TextFiles | None

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: the answers, the judge, and what the length is controlled with."""
        judge: dict[str, object]
        match self.judge:
            case EndpointJudge():
                judge = self.judge.model_dump(mode="json", include=_JUDGEMENT)
            case JudgeCheckpoint(source, tokenizer, dtype):
                judge = {
                    "weights": source.identity,
                    "tokenizer": tokenizer.identity,
                    "dtype": dtype,
                }
        return {
            "responses": self.responses,
            "judge": judge,
            "difficulties": self.difficulties.identity if self.difficulties else None,
        }
