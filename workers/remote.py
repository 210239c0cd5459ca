"""Files of nodes that cannot reach the results as a folder: fetched into the node cache, uploaded.

What a node makes is uploaded before its rows exist, and what it reads is what was published: a file
that doesn't match the artifact's manifest is never used.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from jobs.errors import UsageError
from jobs.identity import cache_folder, digest
from jobs.outage import outlast
from jobs.place import Place
from jobs.records import MARKER
from jobs.sizes import parse_size
from jobs.sources import Folder, TextFiles
from workers.artifacts import Files, Hub, NamedFiles, SharedFiles, StudyFiles, move, sweep
from workers.cache import NodeCache
from workers.manifest import MANIFEST, Entry, describe, entries
from workers.supply import HubCache

_CHUNK_BYTES = 16 * 2**20
_KEY_LETTERS = 16


class Remote(Protocol):
    """Results that this node cannot reach as a folder. What cannot be reached is an OSError."""

    def manifest(self, cell_id: str) -> bytes | None:
        """Returns the manifest of a published artifact; None if there is none."""

    def chunks(self, cell_id: str, name: str) -> Iterator[bytes]:
        """Yields the bytes of a published artifact's file; FileNotFoundError if it is gone."""

    def publish(self, folder: Path, cell_id: str, manifest: bytes) -> None:
        """Uploads a finished folder, so that it appears whole; an earlier publication wins."""


class DriverNode(Remote, Protocol):
    """The node of the driver, where the results may be and where the study's files are."""

    def study_chunks(self, path: str, sha256: str) -> Iterator[bytes]:
        """Yields the bytes of a file that the study names; DataError if they have changed."""


class PlaceRemote:
    """Results at a place that every node reaches, such as a URL; an outage of it is waited for.

    Args:
        place: The results.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def manifest(self, cell_id: str) -> bytes | None:
        """Returns an artifact's manifest, which is written last."""
        try:
            return outlast(lambda: self._place.read(f"artifacts/{cell_id}/{MANIFEST}"))
        except FileNotFoundError:
            return None

    def chunks(self, cell_id: str, name: str) -> Iterator[bytes]:
        """Yields the bytes of an artifact's file."""
        path = self._place.within(f"artifacts/{cell_id}/{name}")
        with outlast(lambda: self._place.filesystem.open_input_file(path)) as file:
            for start in range(0, file.size(), _CHUNK_BYTES):
                yield outlast(partial(file.read_at, _CHUNK_BYTES, start))

    def publish(self, folder: Path, cell_id: str, manifest: bytes) -> None:
        """Uploads the files, then the manifest."""
        for name in entries(manifest):
            # Asked each time: a straggler must not write over what another attempt has published.
            if self.manifest(cell_id) is not None:
                return
            outlast(partial(self._place.upload, folder / name, f"artifacts/{cell_id}/{name}"))
        outlast(lambda: self._place.write(f"artifacts/{cell_id}/{MANIFEST}", manifest))


class CachedFiles:
    """The node cache, where this node cannot reach the results as a folder.

    Args:
        remote: The results.
        cache: The cache folder.
        store_id: Id of the results, so that two of them share no unfinished work.
        study: Where the study's files are.
        hub: Where this node finds files of the hub.
    """

    def __init__(
        self,
        remote: Remote,
        cache: Path,
        store_id: str,
        study: StudyFiles | None = None,
        hub: Hub | None = None,
    ) -> None:
        study = study or NamedFiles()
        self.hub = hub or HubCache(cache)
        self._remote, self._cache = remote, NodeCache(cache)
        self.work = cache / "work" / store_id
        self.folder, self.text = study.folder, study.text

    def artifact(self, cell_id: str, within: str = "") -> Path | None:
        """Returns the cache's folder of a published artifact, holding what is needed of it.

        Raises:
            DataError: One of its files is gone or damaged.
            OSError: The results cannot be reached, or the cache cannot be written.
        """
        manifest = self._remote.manifest(cell_id)
        if manifest is None:
            return None
        wanted = {
            name: entry
            for name, entry in entries(manifest).items()
            if not within or PurePosixPath(name).is_relative_to(within)
        }
        return self._cache.folder(
            _key(cell_id, manifest),
            wanted,
            lambda name: self._remote.chunks(cell_id, name),
            f"artifacts/{cell_id}",
            f"remove artifacts/{cell_id} from the results, then `retry`: it is made again",
        )

    def publish(self, folder: Path, cell_id: str) -> None:
        """Uploads a finished folder, and keeps it in the cache."""
        manifest = describe(folder)
        self._remote.publish(folder, cell_id, manifest)
        move(folder, self._cache.root / _key(cell_id, manifest))
        sweep(self.work, cell_id)


class FetchedFiles:
    """The files that a study names: at the paths that it names, or else from the driver's node.

    Args:
        driver: The driver's node.
        cache: The cache folder.
    """

    def __init__(self, driver: DriverNode, cache: Path) -> None:
        self._driver, self._cache = driver, NodeCache(cache)

    def folder(self, source: Folder) -> Path:
        """Returns the folder as the study names it, or the cache's."""
        named = Path(source.path)
        if all((named / name).is_file() for name, _ in source.files):
            return named
        return self._fetch(f"folders/{digest(source.identity)}", named, dict(source.files))

    def text(self, text: TextFiles) -> TextFiles:
        """Returns the text with each file at the path that the study names, or the cache's."""
        files = []
        for name, sha256 in text.files:
            path = Path(name)
            if not path.is_file():
                path = self._fetch(f"texts/{sha256}", path.parent, {path.name: sha256}) / path.name
            files.append((str(path), sha256))
        return replace(text, files=tuple(files))

    def _fetch(self, key: str, named: Path, files: Mapping[str, str]) -> Path:
        return self._cache.folder(
            key,
            {name: Entry(sha256) for name, sha256 in files.items()},
            lambda name: self._driver.study_chunks(str(named / name), files[name]),
            str(named),
            "run the command again",
        )


def open_files(
    results: Place,
    store_id: str,
    driver: DriverNode | None = None,
    *,
    disk_budget: int | None = None,
) -> Files:
    """Returns how this node finds and gives away files.

    Args:
        results: The results.
        store_id: Their id, by which a node knows that it reaches them and not others.
        driver: The driver's node; None in the driver's own process.
        disk_budget: Most bytes of the node's cache of hub files; None leaves it to the node.
    """
    cache = cache_folder()
    hub = HubCache(cache, disk_budget or _own_disk_budget())
    study = FetchedFiles(driver, cache) if driver else NamedFiles()
    if not results.is_local:
        return CachedFiles(PlaceRemote(results), cache, store_id, study, hub)
    if driver is None or _reaches(results.path, store_id):
        return SharedFiles(results.path, study, hub)
    return CachedFiles(driver, cache, store_id, study, hub)


def _own_disk_budget() -> int | None:
    """Returns the bytes that this node's environment allows; None if it says nothing.

    Raises:
        UsageError: It says what is no size.
    """
    given = os.environ.get("EIGENTRACE_DISK_BUDGET")
    try:
        return parse_size(given) if given else None
    except ValueError as error:
        raise UsageError(
            f"EIGENTRACE_DISK_BUDGET on {platform.node()}: {error}", "set it to a size"
        ) from error


def _reaches(results: Path, store_id: str) -> bool:
    """Tells whether a folder of this node is the very results folder, and can be written."""
    try:
        found = json.loads((results / MARKER).read_text())["store"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == store_id and os.access(results, os.W_OK))


def _key(cell_id: str, manifest: bytes) -> str:
    """Returns an artifact's path in the cache: another one if the cell was run again."""
    return f"artifacts/{cell_id}/{hashlib.sha256(manifest).hexdigest()[:_KEY_LETTERS]}"
