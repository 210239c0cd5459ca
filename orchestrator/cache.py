"""The driver's node as a place of files, for nodes without its disk: an actor serves them.

It keeps no state but files, and serves only published artifacts and files whose SHA-256 the asker
knows. Uploads lie among the unfinished work, where the next attempt at the cell removes what a dead
one left, and are renamed into place once every file is what its manifest says.
"""

import errno
import os
import re
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import DataError, StudyError
from jobs.identity import FileHashes
from jobs.place import Place
from workers.artifacts import SharedFiles
from workers.cache import naming
from workers.manifest import MANIFEST, check_inside, describe, entries

_CHUNK_BYTES = 4 * 2**20
_IN_FLIGHT = 4
"""Chunks on their way at once, for one file."""

_CALLS_AT_ONCE = 8
_RESTARTS = 3
_CELL = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}")


@dataclass(frozen=True)
class DriverFiles:
    """What other nodes hold of the driver's node. Anything unreachable is a ConnectionError.

    Attributes:
        server: Handle of the actor that serves the files.
    """

    server: Any

    def manifest(self, cell_id: str) -> bytes | None:
        """Returns the manifest of a published artifact; None if there is none."""
        found: bytes | None = _get(self.server.manifest.remote(cell_id))
        return found

    def chunks(self, cell_id: str, name: str) -> Iterator[bytes]:
        """Yields the bytes of a published artifact's file."""
        return _pipelined(lambda offset: self.server.read.remote(cell_id, name, offset))

    def study_chunks(self, path: str, sha256: str) -> Iterator[bytes]:
        """Yields the bytes of a file that the study names."""
        return _pipelined(lambda offset: self.server.read_study.remote(path, sha256, offset))

    def publish(self, folder: Path, cell_id: str, manifest: bytes) -> None:
        """Uploads a finished folder, so that it appears whole."""
        upload = _get(self.server.begin.remote(cell_id, manifest))
        if upload is None:
            return
        try:
            pending: deque[Any] = deque()
            for name in entries(manifest):
                for offset, chunk in _chunks(folder / name):
                    pending.append(self.server.write.remote(upload, name, offset, chunk))
                    if len(pending) == _IN_FLIGHT:
                        _get(pending.popleft())
            while pending:
                _get(pending.popleft())
            _get(self.server.commit.remote(upload, manifest))
        finally:
            self.server.forget.remote(upload)


class FileServer:
    """The actor's body; Ray wraps it.

    Args:
        results: The results folder; None if the results are elsewhere.
    """

    def __init__(self, results: Path | None) -> None:
        self._shared = SharedFiles(results) if results else None
        self._hashes = FileHashes()

    def manifest(self, cell_id: str) -> bytes | None:
        """Returns an artifact's manifest, made now if an earlier version published it without."""
        folder = self._artifact(cell_id)
        if folder is None:
            return None
        if not (folder / MANIFEST).is_file():
            Place(folder).write(MANIFEST, describe(folder))
        return (folder / MANIFEST).read_bytes()

    def read(self, cell_id: str, name: str, offset: int) -> bytes:
        """Returns a chunk of an artifact's file."""
        check_inside(name)
        folder = self._artifact(cell_id)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), cell_id)
        return _chunk(folder / name, offset)

    def read_study(self, path: str, sha256: str, offset: int) -> bytes:
        """Returns a chunk of any file, to those who know its SHA-256."""
        try:
            found = self._hashes.sha256(Path(path))
        except StudyError as error:
            raise DataError(error.message, error.remedy) from error
        if found != sha256:
            raise DataError(f"{path} changed since it was planned", "run the command again")
        return _chunk(Path(path), offset)

    def begin(self, cell_id: str, manifest: bytes) -> str | None:
        """Returns the name of a new upload; None if the artifact is published already."""
        if self._artifact(cell_id) is not None:
            return None
        upload = f"{cell_id}.{uuid.uuid4().hex}"
        folder = self._upload(upload)
        folder.mkdir(parents=True)
        for name in entries(manifest):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return upload

    def write(self, upload: str, name: str, offset: int, chunk: bytes) -> None:
        """Writes a chunk of an upload's file; what was removed is not made again."""
        check_inside(name)
        path = self._upload(upload) / name
        with naming(path), path.open("r+b") as file:
            file.seek(offset)
            file.write(chunk)

    def commit(self, upload: str, manifest: bytes) -> None:
        """Publishes an upload if it is what its manifest says."""
        folder = self._upload(upload)
        if entries(describe(folder)) != entries(manifest):
            raise OSError(f"the upload to {folder} came damaged")
        self._files.put(folder, upload.partition(".")[0], manifest)

    def forget(self, upload: str) -> None:
        """Removes what is left of an upload."""
        shutil.rmtree(self._upload(upload), ignore_errors=True)

    @property
    def _files(self) -> SharedFiles:
        if self._shared is None:
            raise ValueError("the results are not on this node")
        return self._shared

    def _artifact(self, cell_id: str) -> Path | None:
        return self._files.artifact(_one_name(cell_id, _CELL))

    def _upload(self, upload: str) -> Path:
        return self._files.work / _one_name(upload, _UPLOAD)


def serve_files(results: Place) -> DriverFiles:
    """Starts serving files of this node, which is the driver's; it ends with the driver.

    Args:
        results: The results; served if they are a folder, while a URL needs no server. The study's
            files are served in any case.
    """
    # Imported here: orchestrator.cluster settles first what Ray reads while it is imported.
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(FileServer).options(
        num_cpus=0,
        max_restarts=_RESTARTS,
        max_concurrency=_CALLS_AT_ONCE,
        scheduling_strategy=here,
    )
    return DriverFiles(actor.remote(results.path if results.is_local else None))


def _get(reference: Any) -> Any:
    """Returns the server's answer, or raises its error as if it had come up here."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise ConnectionError(
            f"the driver's node cannot be reached for files: {type(error).__name__}: {error}"
        ) from error


def _pipelined(ask: Callable[[int], Any]) -> Iterator[bytes]:
    """Yields a file's chunks in order while the next few are on their way."""
    pending = deque([ask(0)])
    following = _CHUNK_BYTES
    while pending:
        chunk: bytes = _get(pending.popleft())
        yield chunk
        if len(chunk) < _CHUNK_BYTES:
            return
        while len(pending) < _IN_FLIGHT:
            pending.append(ask(following))
            following += _CHUNK_BYTES


def _chunk(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(_CHUNK_BYTES)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields a file's chunks with their offsets."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield file.tell() - len(chunk), chunk


def _one_name(name: str, pattern: re.Pattern[str]) -> str:
    """Refuses what would name anything but one artifact or upload."""
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} names no artifact")
    return name
