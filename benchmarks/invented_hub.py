"""A hub that has whatever a study names there, so that studies of public models plan offline.

Revisions are those of the suites' schedules, and weights are as large as a model's name says, two
bytes a parameter; nothing of it can be fetched.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from jobs.hub_spec import HubSeries, HubSuite
from jobs.sources import HubFile
from jobs.spec import Study
from orchestrator.hub_index import HubIndex

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)
_SMALL = 1000
_GPT2 = {"gpt2": 0.124e9, "gpt2-medium": 0.355e9, "gpt2-large": 0.774e9, "gpt2-xl": 1.558e9}
_UNKNOWN = 1e9


class InventedHub(HubIndex):
    """Answers from a study's own names.

    Args:
        study: The study.
        folder: An empty folder, which stays empty.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        super().__init__(folder)
        self._names: dict[str, set[str]] = {}
        for suite in study.suites:
            if isinstance(suite, HubSuite):
                for series in (suite, *suite.more):
                    self._names.setdefault(series.repository, {"main"}).update(_revisions(series))

    def refs(self, repository: str) -> dict[str, str]:
        """Returns a commit for each revision that the study's suites name."""
        return {name: _hash(repository, name)[:40] for name in self._names[repository]}

    def fresh_refs(self, repository: str) -> dict[str, str]:
        """Returns the same as `refs`."""
        return self.refs(repository)

    def commit(self, repository: str, revision: str) -> str:
        """Returns a commit for any name."""
        return _hash(repository, revision)[:40]

    def dataset_commit(self, repository: str, revision: str) -> str:
        """Returns a commit for any name."""
        return _hash(repository, revision)[:40]

    def trees(self, repository: str, commits: Iterable[str]) -> dict[str, tuple[HubFile, ...]]:
        """Returns a config, a tokenizer, and weights of their own for each commit."""
        size = round(2 * _parameters(repository))
        return {
            commit: (
                _file("config.json", _SMALL, repository),
                _file("model.safetensors", size, repository, commit),
                _file("tokenizer.json", _SMALL, repository),
            )
            for commit in commits
        }


def _revisions(series: HubSeries) -> tuple[str, ...]:
    if series.pattern is None:
        return series.revisions
    pattern = series.pattern.replace("*", "1B")
    return tuple(pattern.replace("{step}", str(step)) for step in series.scheduled_steps)


def _parameters(repository: str) -> float:
    name = repository.partition("/")[2]
    found = _PARAMETERS.findall(name)
    if not found:
        return _GPT2.get(name, _UNKNOWN)
    number, unit = found[-1]
    return float(number) * {"m": 1e6, "b": 1e9}[unit.lower()]


def _file(path: str, size: int, *about: str) -> HubFile:
    return HubFile(path, size, _hash(path, *about)[:40], _hash(path, *about))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
