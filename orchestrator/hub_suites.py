"""From a suite on the hub to its checkpoints, in the order of their steps.

Nothing is fetched. A revision without usable weights is a checkpoint, too: the audit refuses it by
name. A scheduled step without a revision is no mistake of the study, so it is told, not refused.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from jobs.cells import Checkpoint
from jobs.errors import StudyError
from jobs.frozen import Stage
from jobs.hub_spec import HubSeries, HubSuite
from jobs.sources import TOKENIZER_FILES, HubFile, HubFolder
from orchestrator.hub_index import HubIndex, some_of
from orchestrator.suites import VOCABULARIES, step_of

_STAGES: tuple[Stage, ...] = get_args(Stage)
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_BIN = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


@dataclass(frozen=True)
class MissingStep:
    """A step of a schedule for which the hub has no revision.

    Attributes:
        suite: The suite.
        model: Its model.
        stage: Kind of training.
        step: Optimizer steps taken.
        repository: Where it was looked for.
        revision: What it would be called, `*` for any text.
    """

    suite: str
    model: str
    stage: Stage
    step: int
    repository: str
    revision: str


@dataclass(frozen=True)
class _Revision:
    """A revision of a series, and the step in its name."""

    series: HubSeries
    name: str
    commit: str
    step: int | None


def hub_checkpoints(
    suite: HubSuite, index: HubIndex
) -> tuple[tuple[Checkpoint, ...], tuple[MissingStep, ...]]:
    """Lists the checkpoints of a suite: model by model, stage by stage, step by step.

    Returns:
        The checkpoints, and the scheduled steps that the hub lacks.

    Raises:
        StudyError: An unknown repository or revision, or one that may not be read; a pattern or
            a schedule that nothing fits; steps that cannot be told, or that are there twice; no
            tokenizer; the hub is needed and cannot be reached.
    """
    revisions: list[_Revision] = []
    missing: list[MissingStep] = []
    for series in (suite, *suite.more):
        found, lacking = _revisions(suite, series, index)
        revisions += found
        missing += [_missing(suite, series, step) for step in lacking]
    trees = _trees(revisions, index)
    tokenizers = _Tokenizers(suite, index)
    checkpoints = [
        _checkpoint(suite, revision, trees[revision.series.repository, revision.commit], tokenizers)
        for revision in revisions
    ]
    _check_steps(suite, checkpoints)
    models = list(dict.fromkeys(checkpoint.model for checkpoint in checkpoints))
    checkpoints.sort(
        key=lambda checkpoint: (
            models.index(checkpoint.model),
            _STAGES.index(checkpoint.stage),
            -1 if checkpoint.step is None else checkpoint.step,
        )
    )
    return tuple(checkpoints), tuple(missing)


def _revisions(
    suite: HubSuite, series: HubSeries, index: HubIndex
) -> tuple[list[_Revision], list[int]]:
    """Returns the revisions of a series, and the scheduled steps that have none."""
    repository = series.repository
    if series.pattern is None:
        names = series.revisions or ("main",)
        steps = series.steps or [step_of(name) for name in names]
        return [
            _Revision(series, name, index.commit(repository, name), step)
            for name, step in zip(names, steps, strict=True)
        ], []
    wanted = dict.fromkeys(series.scheduled_steps)
    refs = index.refs(repository)
    found = _matching(series, refs)
    if not any(step in wanted or not wanted for _, step in found):
        refs = index.fresh_refs(repository)
        found = _matching(series, refs)
    if not found:
        raise StudyError(
            f"suite '{suite.name}': no revision of {repository} fits the pattern {series.pattern}",
            f"correct the pattern; its revisions are {some_of(refs)}",
        )
    chosen = [
        _Revision(series, name, refs[name], step)
        for name, step in found
        if step in wanted or not wanted
    ]
    if not chosen:
        raise StudyError(
            f"suite '{suite.name}': {repository} has no revision for any step of the schedule",
            f"correct the schedule; its revisions are {some_of(refs)}",
        )
    there = {revision.step for revision in chosen}
    return chosen, [step for step in wanted if step not in there]


def _missing(suite: HubSuite, series: HubSeries, step: int) -> MissingStep:
    return MissingStep(
        suite=suite.name,
        model=_model(suite, series),
        stage=series.stage,
        step=series.first_step + step,
        repository=series.repository,
        revision=(series.pattern or "").replace("{step}", str(step)),
    )


def _matching(series: HubSeries, refs: Iterable[str]) -> list[tuple[str, int]]:
    """Returns the names that fit the pattern of a series, and the steps in them."""
    parts = {"{step}": r"(?<!\d)(\d+)(?!\d)", "*": ".*"}
    pieces = re.split(r"(\{step\}|\*)", series.pattern or "")
    pattern = re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces))
    matches = ((name, pattern.fullmatch(name)) for name in refs)
    return [(name, int(match[1])) for name, match in matches if match is not None]


def _trees(
    revisions: Sequence[_Revision], index: HubIndex
) -> dict[tuple[str, str], tuple[HubFile, ...]]:
    """Returns the files of every revision by repository and commit."""
    commits: dict[str, list[str]] = {}
    for revision in revisions:
        commits.setdefault(revision.series.repository, []).append(revision.commit)
    return {
        (repository, commit): files
        for repository, wanted in commits.items()
        for commit, files in index.trees(repository, wanted).items()
    }


def _checkpoint(
    suite: HubSuite, revision: _Revision, files: Sequence[HubFile], tokenizers: "_Tokenizers"
) -> Checkpoint:
    series, step = revision.series, revision.step
    batch = series.tokens_per_step
    elsewhere = series.repository != suite.repository
    place = f"{series.repository.partition('/')[2]}@" if elsewhere else ""
    return Checkpoint(
        suite=suite.name,
        model=_model(suite, series),
        revision=f"{place}{revision.name}",
        step=None if step is None else series.first_step + step,
        tokens=None if step is None or batch is None else series.first_token + step * batch,
        stage=series.stage,
        source=HubFolder(series.repository, revision.commit, _weights(files)),
        tokenizer=tokenizers.of(series.repository, revision.commit, files),
    )


def _model(suite: HubSuite, series: HubSeries) -> str:
    return series.model or suite.model or suite.name


def _weights(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Returns the files that transformers loads: config, and the single file or the shards.

    PyTorch's files are listed where there are no others, so that the audit can name them.
    """
    by_path = {file.path: file for file in files}
    wanted: list[str] = []
    for pattern, single in (
        (_SAFETENSORS, "model.safetensors"),
        (_BIN, "pytorch_model.bin"),
    ):
        shards = [path for path in by_path if pattern.fullmatch(path)]
        if shards:
            wanted = [single] if single in by_path else [*shards, f"{single}.index.json"]
            break
    return tuple(by_path[path] for path in sorted(["config.json", *wanted]) if path in by_path)


class _Tokenizers:
    """Where the tokenizers of a suite's checkpoints lie.

    Args:
        suite: The suite.
        index: What the hub holds.
    """

    def __init__(self, suite: HubSuite, index: HubIndex) -> None:
        self._suite, self._index = suite, index
        self._common: dict[str, HubFolder] = {}

    def of(self, repository: str, commit: str, files: Iterable[HubFile]) -> HubFolder:
        """Returns the suite's tokenizer, else the checkpoint's own, else that of `main`.

        Raises:
            StudyError: There is none.
        """
        if self._suite.tokenizer is not None:
            name, _, revision = self._suite.tokenizer.partition("@")
            return self._at(name, revision or "main")
        own = _tokenizer_files(files)
        return HubFolder(repository, commit, own) if own else self._at(repository, "main")

    def _at(self, repository: str, revision: str) -> HubFolder:
        if repository not in self._common:
            commit = self._index.commit(repository, revision)
            files = _tokenizer_files(self._index.trees(repository, [commit])[commit])
            if not files:
                raise StudyError(
                    f"suite '{self._suite.name}': {repository} holds no tokenizer at {revision}",
                    "give the suite's `tokenizer`, a repository with tokenizer.json",
                )
            self._common[repository] = HubFolder(repository, commit, files)
        return self._common[repository]


def _tokenizer_files(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Returns the files of a tokenizer, sorted by path; none if there is no vocabulary."""
    found = tuple(file for file in files if file.path in TOKENIZER_FILES)
    return found if VOCABULARIES.intersection(file.path for file in found) else ()


def _check_steps(suite: HubSuite, checkpoints: Iterable[Checkpoint]) -> None:
    """Raises StudyError where the order of the checkpoints of a stage cannot be told."""
    seen: dict[tuple[str, Stage], dict[int | None, str]] = {}
    for checkpoint in checkpoints:
        name, step = checkpoint.revision, checkpoint.step
        steps = seen.setdefault((checkpoint.model, checkpoint.stage), {})
        if steps and (step is None or None in steps):
            unknown = name if step is None else steps[None]
            raise StudyError(
                f"suite '{suite.name}': cannot tell the training step of '{unknown}'",
                "give `revisions` and `steps`, or the series a `model` of its own",
            )
        if step in steps:
            raise StudyError(
                f"suite '{suite.name}': '{steps[step]}' and '{name}' are both step {step}",
                "narrow the pattern or the schedule, or give the series a `model` of its own",
            )
        steps[step] = name
