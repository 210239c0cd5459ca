"""What repositories on the hub hold, asked once and remembered: names and hashes, never weights.

A commit never changes, so its files are remembered for ever. Branches move, so what they point to
is asked anew only on demand: a plan and the run after it see the same checkpoints, and a second
plan needs no network.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from jobs.errors import StudyError, nearest
from jobs.identity import cache_folder
from jobs.sources import HubFile
from orchestrator.hub_questions import HubUnreachableError, ask, check_token

AT_ONCE = 8
"""Most listings that are asked for at the same time."""

Kind = Literal["model", "dataset"]
Progress = Callable[[str, int, int], None]
"""Told a repository, and how many of how many of its commits are listed."""

_SHOWN = 5
_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_HEXADECIMAL = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class _Refs:
    """What the hub tells of a repository apart from its files.

    Attributes:
        commits: Commits by the full names of branches and tags.
        gated: Whether it serves files only to those who accepted its licence.
    """

    commits: dict[str, str]
    gated: bool


class HubIndex:
    """The memory of the hub, shared by every process that uses its folder.

    Args:
        folder: Where it lies; below the user's cache folder by default.
        refresh: Ask anew what branches and tags point to, once for each repository.
        progress: Told of every listing that was fetched.
    """

    def __init__(
        self,
        folder: Path | None = None,
        refresh: bool = False,
        progress: Progress = lambda _repository, _done, _total: None,
    ) -> None:
        self._folder = folder or cache_folder() / "hub-index"
        self._refresh = refresh
        self._progress = progress
        self._asked: dict[tuple[Kind, str], _Refs] = {}

    def refs(self, repository: str) -> dict[str, str]:
        """Returns the commit of each branch and tag of a model; a branch outranks a tag.

        Raises:
            StudyError: There is no such repository, it may not be read, or it is not remembered
                and the hub cannot be reached.
        """
        return _short(self._refs("model", repository))

    def fresh_refs(self, repository: str) -> dict[str, str]:
        """Returns the same as `refs`, as the hub has it now if it can be asked.

        Raises:
            StudyError: There is no such repository, or it may not be read.
        """
        return _short(self._fresh_refs("model", repository))

    def commit(self, repository: str, revision: str) -> str:
        """Returns the commit of a model's branch, tag or commit.

        A revision that is not remembered may be new: the hub is asked before it is refused.

        Raises:
            StudyError: There is no such repository or revision, it may not be read, or it is not
                remembered and the hub cannot be reached.
        """
        return self._commit("model", repository, revision)

    def dataset_commit(self, repository: str, revision: str) -> str:
        """Returns the commit of a dataset's branch, tag or commit.

        Raises:
            StudyError: There is no such repository or revision, it may not be read, or it is not
                remembered and the hub cannot be reached.
        """
        return self._commit("dataset", repository, revision)

    def trees(self, repository: str, commits: Iterable[str]) -> dict[str, tuple[HubFile, ...]]:
        """Returns the files of a model at each of some commits, sorted by path.

        Raises:
            StudyError: There is no such repository or commit, it may not be read, or it is not
                remembered and the hub cannot be reached.
        """
        wanted = dict.fromkeys(commits)
        found = {commit: self._remembered_tree(repository, commit) for commit in wanted}
        todo = [commit for commit, files in found.items() if files is None]
        if not todo:
            return {commit: files for commit, files in found.items() if files is not None}
        stop = threading.Event()
        with ThreadPoolExecutor(min(AT_ONCE, len(todo)), "hub-index") as threads:
            asked = {
                threads.submit(self._ask_tree, repository, commit, stop.wait): commit
                for commit in todo
            }
            try:
                for done, future in enumerate(as_completed(asked), start=1):
                    found[asked[future]] = future.result()
                    self._progress(repository, done, len(todo))
            except BaseException:
                stop.set()  # Nobody waits for an answer any more.
                threads.shutdown(cancel_futures=True)
                raise
        return {commit: files for commit, files in found.items() if files is not None}

    def _commit(self, kind: Kind, repository: str, revision: str) -> str:
        if len(revision) == 40 and _HEXADECIMAL.issuperset(revision):
            return revision  # It is one already.
        found = _resolve(self._refs(kind, repository), revision)
        if found is not None:
            return found
        known = self._fresh_refs(kind, repository)
        found = _resolve(known, revision)
        if found is None:
            names = list(_short(known))
            asked = (kind, repository) in self._asked
            new = "" if asked else ", or connect to the hub if it is new"
            raise StudyError(
                f"{repository} has no revision '{revision}'{nearest(revision, names)}",
                f"use one that it has, such as {some_of(names)}{new}",
            )
        return found

    def _refs(self, kind: Kind, repository: str) -> dict[str, str]:
        """Returns the commits by the full names of branches and tags."""
        known = self._asked.get((kind, repository))
        if known is None and not self._refresh:
            known = self._remembered_refs(kind, repository)
        if known is None:
            known = self._ask_refs(kind, repository)
        check_token(repository, known.gated)
        return known.commits

    def _fresh_refs(self, kind: Kind, repository: str) -> dict[str, str]:
        if (kind, repository) not in self._asked:
            with suppress(HubUnreachableError):  # What is remembered has to do.
                self._ask_refs(kind, repository)
        return self._refs(kind, repository)

    def _remembered_refs(self, kind: Kind, repository: str) -> _Refs | None:
        found = _read(self._place(kind, repository) / "refs.json")
        try:
            commits = {str(name): str(commit) for name, commit in found["refs"].items()}
            return _Refs(commits, bool(found["gated"]))
        except (TypeError, KeyError, AttributeError):  # Not there, or not what was written.
            return None

    def _ask_refs(self, kind: Kind, repository: str) -> _Refs:
        def question() -> _Refs:
            from huggingface_hub import HfApi
            from huggingface_hub.errors import RevisionNotFoundError

            hub = HfApi()
            listed = hub.list_repo_refs(repository, repo_type=kind)
            every = [*listed.branches, *listed.converts, *listed.tags]
            try:
                about = (
                    hub.dataset_info(repository, expand=["gated"])
                    if kind == "dataset"
                    else hub.model_info(repository, expand=["gated"])
                )
                gated = bool(about.gated)
            except RevisionNotFoundError:  # There is no branch `main` to ask about.
                gated = False
            return _Refs({ref.ref: ref.target_commit for ref in every}, gated)

        found = ask(question, f"{kind} {repository}", repository)
        self._asked[kind, repository] = found
        remembered = {"refs": found.commits, "gated": found.gated}
        _write(self._place(kind, repository) / "refs.json", remembered)
        return found

    def _remembered_tree(self, repository: str, commit: str) -> tuple[HubFile, ...] | None:
        found = _read(self._tree_file(repository, commit))
        try:
            return tuple(
                HubFile(str(path), int(size), str(oid), None if sha256 is None else str(sha256))
                for path, size, oid, sha256 in found["files"]
            )
        except (TypeError, ValueError, KeyError):  # Not there, or not what was written.
            return None

    def _ask_tree(
        self, repository: str, commit: str, pause: Callable[[float], object]
    ) -> tuple[HubFile, ...]:
        def question() -> tuple[HubFile, ...]:
            from huggingface_hub import HfApi
            from huggingface_hub.hf_api import RepoFile

            entries = HfApi().list_repo_tree(repository, recursive=True, revision=commit)
            files = [
                HubFile(e.path, e.size, e.blob_id, e.lfs.sha256 if e.lfs else None)
                for e in entries
                if isinstance(e, RepoFile)
            ]
            return tuple(sorted(files, key=lambda file: file.path))

        found = ask(question, f"model {repository} at {commit}", repository, pause)
        rows = [[file.path, file.size, file.oid, file.sha256] for file in found]
        _write(self._tree_file(repository, commit), {"files": rows})
        return found

    def _tree_file(self, repository: str, commit: str) -> Path:
        return self._place("model", repository) / f"{quote(commit, safe='')}.json"

    def _place(self, kind: Kind, repository: str) -> Path:
        """Returns the folder of a repository: another one for another hub."""
        from huggingface_hub import constants

        hub = urlsplit(constants.ENDPOINT)
        host = quote(f"{hub.hostname}{hub.path}" + (f"_{hub.port}" if hub.port else ""), safe="")
        return self._folder / host / f"{kind}s" / quote(repository, safe="")


def some_of(names: Iterable[str]) -> str:
    """Returns a few names, and how many more there are."""
    known = sorted(names)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return (", ".join(known[:_SHOWN]) or "none") + more


def _short(known: Mapping[str, str]) -> dict[str, str]:
    """Returns commits by the names that people use; a branch outranks a tag of its name."""
    tags = {n.removeprefix(_TAGS): c for n, c in known.items() if n.startswith(_TAGS)}
    heads = {n.removeprefix(_HEADS): c for n, c in known.items() if n.startswith(_HEADS)}
    return tags | heads


def _resolve(known: Mapping[str, str], revision: str) -> str | None:
    """Returns the commit of a branch or tag, by its short name or its full one."""
    names = (f"{_HEADS}{revision}", f"{_TAGS}{revision}", revision)
    return next((known[name] for name in names if name in known), None)


def _read(path: Path) -> Any:
    """Returns what a file of the memory holds; None if there is none, or it is torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Any) -> None:
    """Writes a file of the memory whole; if it cannot be written, the hub is asked again."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(value), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return
