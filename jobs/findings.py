"""What an audit finds in a suite, before any of its weights are read."""

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from jobs.frozen import Stage

Verdict = Literal["duplicate", "swapped_shard", "no_safetensors", "incomplete", "gap"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a suite, or that its reader should know.

    Attributes:
        verdict: Its kind.
        sentence: What was found, in words.
        refused: Whether the checkpoint is not measured.
        model: Model of the suite.
        stage: Kind of training.
        revision: The checkpoint; None for one that isn't there.
        step: Its step, where known.
        other_revision: The checkpoint that it shares weights with.
        other_step: That checkpoint's step.
        file: The file that it is about.
    """

    verdict: Verdict
    sentence: str
    refused: bool
    model: str
    stage: Stage
    revision: str | None = None
    step: int | None = None
    other_revision: str | None = None
    other_step: int | None = None
    file: str | None = None

    @property
    def label(self) -> str:
        """Name for people of what it is about."""
        place = f"step {self.step}" if self.revision is None else self.revision
        return f"{self.model}@{place}"


@dataclass(frozen=True)
class Refusal:
    """Why a checkpoint isn't measured, and what is known of it all the same.

    Attributes:
        finding: What was found.
        tokens: Training tokens seen, where known.
        fingerprint: Of its weights; None where there are none.
        repository: Its repository on the hub; None for other checkpoints.
        commit: Commit of that repository.
    """

    finding: Finding
    tokens: int | None
    fingerprint: str | None
    repository: str | None
    commit: str | None

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed."""
        return {
            "verdict": self.finding.verdict,
            "finding": self.finding.sentence,
            "revision": self.finding.revision,
            "step": self.finding.step,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class AuditWork:
    """Record what the audit of a suite found; it is all known when the plan is made.

    Attributes:
        series: SHA-256 of what was looked at.
        checkpoints: Number of checkpoints that were looked at.
        refused: Number of those that are not measured.
        findings: Everything that was found.
    """

    kind: ClassVar[str] = "audit"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "audit"
    stage: ClassVar[Literal["fetch"]] = "fetch"
    patience: ClassVar[float] = 600.0

    series: str
    checkpoints: int
    refused: int
    findings: tuple[Finding, ...]

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the models' names."""
        found = [asdict(finding) for finding in self.findings]
        return {
            "series": self.series,
            "findings": [{k: v for k, v in f.items() if k != "model"} for f in found],
        }
