"""Files of the hub on this node: held while they are needed, within a disk budget.

Who holds files finds in their folder those files and no others, each whole and with the hash that
the hub lists. They are fetched once, by one process of the node at a time, and no more bytes lie
in the cache than its budget allows.

    hub/models--<owner>--<name>/blobs/<hash>            files, stored once
    hub/models--<owner>--<name>/snapshots/<commit>.<…>  folders of links to them

What the user's own cache of the hub has whole is used there. It counts nothing and is never
deleted.
"""

import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from jobs.errors import CellError, DataError
from jobs.identity import digest
from jobs.sources import HubFile, HubFolder
from workers.disk import LEDGER, Disk
from workers.download import Wanted, Watch, download, hash_of
from workers.network import Network, at_once
from workers.tally import count

Progress = Callable[[int, int], None]
"""Told how much of how much is done."""

_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile("[0-9A-Za-z]+")
_NAME_LETTERS = 16
_log = logging.getLogger(__name__)


class HubCache:
    """The node cache's part for files of the hub.

    Args:
        cache: The cache folder.
        budget: Most bytes of it. None: what lies in it and four fifths of what the disk has free.
    """

    def __init__(self, cache: Path, budget: int | None = None) -> None:
        self._root = cache / "hub"
        self._disk = Disk(self._root, budget)
        self._network = Network(self._root / LEDGER)

    @contextmanager
    def hold(self, source: HubFolder, progress: Progress) -> Iterator[Path]:
        """Gives a folder with the files, fetched if need be; it stays until the block ends.

        Args:
            source: The files.
            progress: Told at least once a second how many bytes of how many are here, also while
                others use the network or the disk budget.

        Raises:
            DataError: The hub doesn't have a file, refuses it, or serves other bytes than it lists;
                or the files are larger than the disk budget.
            OSError: The hub cannot be reached, or the cache cannot be written.
        """
        _check(source)
        there = self._found_elsewhere(source, progress)
        if there is not None:
            count("cache_files", "hit", len(there))
            yield self._folder(source, there)
            return
        blobs = _blobs(source)
        sizes = {key: wanted.file.size for key, wanted in blobs.items()}
        total = sum(sizes.values())
        with self._disk.holder() as holder:
            self._disk.reserve(sizes, holder, waiting=lambda: progress(0, total))
            self._supply(blobs, progress, needed=True)
            there = {file.path: self._root / _key(source, file) for file in source.files}
            yield self._folder(source, there)

    def prefetch(self, source: HubFolder) -> bool | None:
        """Fetches files that will be needed, if the disk budget has room for them now.

        It lets those go first that are needed already, and what goes wrong is only logged.

        Returns:
            Whether there was room, so that they are here; None if something went wrong.
        """
        try:
            _check(source)
            if self._found_elsewhere(source, _unheard) is not None:
                return True
            blobs = _blobs(source)
            sizes = {key: wanted.file.size for key, wanted in blobs.items()}
            with self._disk.holder() as holder:
                if not self._disk.reserve(sizes, holder, voluntary=True):
                    return False
                self._supply(blobs, _unheard, needed=False)
        except (CellError, OSError) as error:
            _log.info("did not fetch %s ahead: %s", source.repository, error)
            return None
        return True

    def usage(self) -> tuple[int, int]:
        """Returns the bytes that lie in the cache of hub files, and the most that may.

        Raises:
            OSError: The cache cannot be read.
        """
        return self._disk.usage()

    def _supply(self, blobs: Mapping[str, Wanted], progress: Progress, *, needed: bool) -> None:
        """Sees to it that the files are here, whole and right."""
        total = sum(wanted.file.size for wanted in blobs.values())
        done = dict.fromkeys(blobs, 0)

        def tell() -> None:
            progress(sum(done.values()), total)

        lacking = self._lacking(blobs)
        if needed:
            count("cache_files", "hit", len(blobs) - len(lacking))
            count("cache_files", "miss", len(lacking))
        while lacking:
            with self._network.turn(needed, tell) as overtaken:
                # Looked at again: another process may have fetched them while this one waited.
                lacking = self._lacking(blobs)
                done |= {key: w.file.size for key, w in blobs.items() if key not in lacking}
                # The largest first, so that no long one is left alone at the end.
                order = sorted(lacking, key=lambda key: -blobs[key].file.size)
                jobs = {key: self._fetching(key, blobs[key]) for key in order}
                if at_once(jobs, done, tell, overtaken):
                    break
            lacking = self._lacking(blobs)
        progress(total, total)

    def _lacking(self, blobs: Mapping[str, Wanted]) -> set[str]:
        """Returns which files are not here, or not known to be right."""
        files = {self._root / key: wanted.hash for key, wanted in blobs.items()}
        verified = self._disk.verified(files)
        return {key for key in blobs if self._root / key not in verified}

    def _fetching(self, key: str, wanted: Wanted) -> Callable[[Watch], None]:
        target = self._root / key

        def fetch(watch: Watch) -> None:
            # There, but not in the ledger: which was lost, or the file has changed.
            if target.exists() and hash_of(target, wanted, watch) != wanted.hash:
                target.unlink()
            if not target.exists():
                download(wanted, target, watch)
            self._disk.remember(target, wanted.hash)

        return fetch

    def _found_elsewhere(self, source: HubFolder, progress: Progress) -> dict[str, Path] | None:
        """Returns where the user's own cache has the files; None if it lacks one or has it wrong.

        What it has is hashed once, since anything may have written there.
        """
        from huggingface_hub import try_to_load_from_cache

        found: dict[Path, Wanted] = {}
        for file in source.files:
            path = try_to_load_from_cache(source.repository, file.path, revision=source.commit)
            if not isinstance(path, str):
                return None
            found[Path(path)] = Wanted(source.repository, source.commit, file)
        verified = self._disk.verified({path: wanted.hash for path, wanted in found.items()})
        done = {str(path): wanted.file.size * (path in verified) for path, wanted in found.items()}
        jobs = {
            str(path): self._checking(path, wanted)
            for path, wanted in found.items()
            if path not in verified
        }
        try:
            at_once(jobs, done, lambda: progress(sum(done.values()), source.size))
        except (DataError, OSError) as error:
            _log.info("the user's own cache of the hub is not used: %s", error)
            return None
        return {wanted.file.path: path for path, wanted in found.items()}

    def _checking(self, path: Path, wanted: Wanted) -> Callable[[Watch], None]:
        def check(watch: Watch) -> None:
            if (
                path.stat().st_size != wanted.file.size
                or hash_of(path, wanted, watch) != wanted.hash
            ):
                raise DataError(f"{path} is not {wanted}", "remove it")
            self._disk.remember(path, wanted.hash)

        return check

    def _folder(self, source: HubFolder, targets: Mapping[str, Path]) -> Path:
        """Returns a folder with links to the files and nothing else, which appears whole.

        The snapshot of a commit may hold more, such as the same weights in two formats.
        """
        name = digest({path: str(target) for path, target in targets.items()})[:_NAME_LETTERS]
        snapshots = self._root / _repository_folder(source) / "snapshots"
        folder = snapshots / f"{source.commit}.{name}"
        if folder.exists():
            if all((folder / path).exists() for path in targets):
                return folder
            shutil.rmtree(folder)
        making = snapshots / f".{uuid.uuid4().hex}"
        for path, target in targets.items():
            link = making / path
            link.parent.mkdir(parents=True, exist_ok=True)
            inside = target.is_relative_to(self._root)
            link.symlink_to(os.path.relpath(target, link.parent) if inside else target)
        making.mkdir(parents=True, exist_ok=True)
        try:
            making.rename(folder)
        except OSError:
            shutil.rmtree(making)
            if not folder.is_dir():
                raise
        return folder


def _unheard(_done: int, _total: int) -> None:
    """Takes the progress that nobody asked for."""


def _repository_folder(source: HubFolder) -> str:
    return f"models--{source.repository.replace('/', '--')}"


def _blobs(source: HubFolder) -> dict[str, Wanted]:
    """Returns the files by their paths in the cache, those with equal bytes once."""
    return {
        _key(source, file): Wanted(source.repository, source.commit, file) for file in source.files
    }


def _key(source: HubFolder, file: HubFile) -> str:
    return f"{_repository_folder(source)}/blobs/{file.sha256 or file.oid}"


def _check(source: HubFolder) -> None:
    """Refuses names, as the hub lists them, that would lead out of the cache.

    Raises:
        DataError: One would.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    where = f"{source.repository} at {source.commit}"
    try:
        validate_repo_id(source.repository)
        sound = _is_inside(source.repository) and _COMMIT.fullmatch(source.commit)
    except HFValidationError:
        sound = False
    if not sound:
        raise DataError(f"'{where}' is no commit of a repository", "mend the name in the study")
    for file in source.files:
        name = file.sha256 or file.oid
        if not _is_inside(file.path) or not _HASH.fullmatch(name):
            raise DataError(
                f"{where} lists {file.path!r} with the hash {name!r}, which is no file of a folder",
                "leave this revision out, and tell the owner of the repository",
            )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    stays = not path.is_absolute() and ".." not in path.parts
    return bool(stays and path.parts and not {"\\", "\0"} & {*name})
