"""What is wrong with a suite, told from names and hashes alone: no byte of a weight is read.

A checkpoint is refused where it may carry weights of another step: a false step is worse than a
missing one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from jobs.cells import Checkpoint
from jobs.findings import AuditWork, Finding, Refusal, Verdict
from jobs.frozen import Stage
from jobs.identity import digest
from jobs.sources import HubFolder, Produced, Source
from workers.strides import holes
from workers.twins import Weights, duplicates, is_main, swapped_shards
from workers.weight_files import fingerprint, lacking_file, loaded_files, weights_of


class Missing(Protocol):
    """A step that was expected and for which there is no revision."""

    @property
    def model(self) -> str:
        """Model of the suite."""

    @property
    def stage(self) -> Stage:
        """Kind of training."""

    @property
    def step(self) -> int:
        """Optimizer steps taken."""

    @property
    def repository(self) -> str:
        """Where it was looked for."""

    @property
    def revision(self) -> str:
        """What it would be called."""


@dataclass(frozen=True)
class Audit:
    """What was found in a suite.

    Attributes:
        checkpoints: Those to be measured, in their order.
        refused: Those that are not, each with the reason.
        findings: Everything that was found, by checkpoint, gaps last.
    """

    checkpoints: tuple[Checkpoint, ...]
    refused: tuple[tuple[Checkpoint, Finding], ...]
    findings: tuple[Finding, ...]

    @property
    def work(self) -> AuditWork:
        """What is recorded of it."""
        seen = [*self.checkpoints, *(checkpoint for checkpoint, _ in self.refused)]
        series = digest([[c.stage, c.step, fingerprint(c.source)] for c in seen])
        return AuditWork(series, len(seen), len(self.refused), self.findings)


def audit(
    checkpoints: Sequence[Checkpoint],
    *,
    missing: Sequence[Missing] = (),
    scheduled: Collection[str] = (),
    last_steps: Mapping[str, int] | None = None,
    damage: Mapping[Source, str] | None = None,
    allow_bin: bool = False,
    measure_duplicates: bool = False,
) -> Audit:
    """Looks for checkpoints that are not what they claim, and for those that are not there.

    Args:
        checkpoints: Those of a suite, in natural order.
        missing: Scheduled steps without a revision.
        scheduled: Repositories that have a schedule, so that their holes are known by it.
        last_steps: The last step that was published of a model, where that is known: it keeps its
            claim on weights that others serve as well.
        damage: What is wrong with a source that the names of its files don't show.
        allow_bin: Take weights that are not in safetensors.
        measure_duplicates: Report a checkpoint whose weights are those of another step, but measure
            it too, under an alias that tells it from the other.
    """
    found: dict[int, Finding] = {}
    models: dict[str, list[int]] = {}
    for place, checkpoint in enumerate(checkpoints):
        wrong = _unusable(checkpoint, (damage or {}).get(checkpoint.source), allow_bin)
        if wrong is not None:
            found[place] = wrong
        else:
            models.setdefault(checkpoint.model, []).append(place)
    aliased: dict[int, Checkpoint] = {}
    for model, places in models.items():
        last = (last_steps or {}).get(model)
        listed = [c.step for c in map(checkpoints.__getitem__, places) if c.step is not None]
        end = max(listed, default=None) if last is None else last
        series = [_weights(place, checkpoints[place], end, last) for place in places]
        same = duplicates(series)
        swapped = swapped_shards(series, same)
        if measure_duplicates:
            refused_twins = [place for place, finding in same.items() if finding.refused]
            for place in refused_twins:
                same[place] = replace(same[place], refused=False)
                aliased[place] = replace(checkpoints[place], alias=checkpoints[place].revision)
        found |= swapped | {p: f for p, f in same.items() if f.refused or p not in swapped}
    refused = {place for place, finding in found.items() if finding.refused}
    return Audit(
        checkpoints=tuple(
            aliased.get(place, c) for place, c in enumerate(checkpoints) if place not in refused
        ),
        refused=tuple((checkpoints[place], found[place]) for place in sorted(refused)),
        findings=(
            *(found[place] for place in sorted(found)),
            *(_scheduled_gap(step) for step in missing),
            *_stride_gaps(checkpoints, scheduled),
        ),
    )


def known_rows(work: AuditWork | Refusal) -> list[dict[str, Any]]:
    """Returns the rows of what the plan knows: of table `audit`, or one of `checkpoints`."""
    if isinstance(work, Refusal):
        finding = work.finding
        return [
            {
                **{name: getattr(finding, name) for name in ("revision", "step", "stage")},
                "tokens": work.tokens,
                "repository": work.repository,
                "commit": work.commit,
                "fingerprint": work.fingerprint,
                "refused": True,
                "finding": finding.sentence,
            }
        ]
    summary = {
        "verdict": "summary",
        "n_checkpoints": work.checkpoints,
        "n_refused": work.refused,
        "n_findings": len(work.findings),
    }
    about = ("model", "stage", "revision", "step")
    told = ("verdict", "refused", "other_revision", "other_step", "file")
    return [
        summary,
        *(
            {
                **{name: getattr(finding, name) for name in (*about, *told)},
                "finding": finding.sentence,
            }
            for finding in work.findings
        ),
    ]


def refusal(checkpoint: Checkpoint, finding: Finding) -> Refusal:
    """Returns what is recorded of a checkpoint that is not measured."""
    source = checkpoint.source
    hub = source if isinstance(source, HubFolder) else None
    return Refusal(
        finding,
        checkpoint.tokens,
        fingerprint(source),
        None if hub is None else hub.repository,
        None if hub is None else hub.commit,
    )


def _weights(place: int, checkpoint: Checkpoint, end: int | None, last: int | None) -> Weights:
    files, sizes = weights_of(checkpoint.source)
    is_last = last is not None and checkpoint.step == last
    return Weights(place, checkpoint, files, sizes, end, is_main(checkpoint) or is_last)


def _unusable(checkpoint: Checkpoint, damage: str | None, allow_bin: bool) -> Finding | None:
    """Returns why a checkpoint could not be loaded, if its files show that."""
    source = checkpoint.source
    if isinstance(source, Produced):
        return None
    paths = [f.path if not isinstance(f, tuple) else f[0] for f in source.files]
    weights = loaded_files(paths)

    def finding(verdict: Verdict, sentence: str, file: str | None = None) -> Finding:
        return Finding(
            verdict=verdict,
            sentence=sentence,
            refused=True,
            model=checkpoint.model,
            stage=checkpoint.stage,
            revision=checkpoint.revision,
            step=checkpoint.step,
            file=file,
        )

    if weights and weights[0].endswith(".bin") and not allow_bin:
        return finding(
            "no_safetensors", f"its weights are in {weights[0]}, not in safetensors", weights[0]
        )
    if damage is not None:
        return finding("incomplete", damage)
    if not weights:
        return finding("incomplete", "it has no weights in safetensors")
    if "config.json" not in paths:
        return finding("incomplete", "it has no config.json", "config.json")
    lacking = lacking_file(weights, paths)
    return None if lacking is None else finding("incomplete", f"it lacks {lacking}", lacking)


def _scheduled_gap(missing: Missing) -> Finding:
    return Finding(
        verdict="gap",
        sentence=f"{missing.repository} has no revision {missing.revision}, which is scheduled",
        refused=False,
        model=missing.model,
        stage=missing.stage,
        step=missing.step,
    )


def _stride_gaps(checkpoints: Iterable[Checkpoint], scheduled: Collection[str]) -> list[Finding]:
    """Returns the holes in those series that have no schedule."""
    series: dict[tuple[str, Stage, str], list[int]] = {}
    for checkpoint in checkpoints:
        source = checkpoint.source
        repository = source.repository if isinstance(source, HubFolder) else ""
        if checkpoint.step is not None and repository not in scheduled:
            key = (checkpoint.model, checkpoint.stage, repository)
            series.setdefault(key, []).append(checkpoint.step)
    return [
        Finding(
            verdict="gap",
            sentence=f"there is no checkpoint between steps {before} and {after}, though most are "
            f"{stride} steps apart",
            refused=False,
            model=model,
            stage=stage,
            step=before + stride,
        )
        for (model, stage, _), steps in series.items()
        for before, after, stride in holes(steps)
    ]
