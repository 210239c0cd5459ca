"""Artifacts: what a cell makes besides rows. A published one is whole and never changes."""

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from jobs.errors import DataError
from jobs.identity import cache_folder
from jobs.sources import Folder, HubFolder, Produced, Source, TextFiles
from jobs.streams import HubStream
from workers.manifest import MANIFEST, describe
from workers.supply import HubCache, Progress
from workers.tally import phase

ROWS = "rows.json"
"""The file of an artifact that holds its cell's rows: a kill before they are committed then costs
no second making."""


class StudyFiles(Protocol):
    """Where this node finds the files that a study names."""

    def folder(self, source: Folder) -> Path:
        """Returns where the files of a folder that the study names lie on this node."""

    def text(self, text: TextFiles) -> TextFiles:
        """Returns a text that the study names, with the paths that it has on this node."""


class Hub(Protocol):
    """Where this node finds files of the hub, within its disk budget."""

    def hold(self, source: HubFolder, progress: Progress) -> AbstractContextManager[Path]:
        """Gives a folder with the files, fetched if need be; it stays until the block ends.

        It waits while others hold what the disk budget has.
        """

    def prefetch(self, source: HubFolder) -> bool | None:
        """Fetches files that will be needed, if the disk budget has room for them now.

        Returns:
            Whether there was room, so that they are here; None if something went wrong, which is
            told when they are held.
        """

    def usage(self) -> tuple[int, int]:
        """Returns the bytes that lie in the cache of hub files, and the most that may."""


class Files(StudyFiles, Protocol):
    """Where this node finds what cells read, and where it puts what they make."""

    @property
    def hub(self) -> Hub:
        """Where this node finds files of the hub."""

    @property
    def work(self) -> Path:
        """The folder, on this node, of what is still being made."""

    def artifact(self, cell_id: str, within: str = "") -> Path | None:
        """Returns the folder, on this node, of a published artifact; None if there is none.

        Args:
            cell_id: The cell that made it.
            within: File or folder in the artifact that is needed; the rest may be missing.
        """

    def publish(self, folder: Path, cell_id: str) -> None:
        """Gives a finished folder away as a cell's artifact; an earlier publication wins."""


class NamedFiles:
    """The files that a study names, at the paths that it names."""

    def folder(self, source: Folder) -> Path:
        """Returns the folder as the study names it."""
        return Path(source.path)

    def text(self, text: TextFiles) -> TextFiles:
        """Returns the text as the study names it."""
        return text


class SharedFiles:
    """The results folder, where this node can reach it.

    Args:
        results: The folder.
        study: Where the study's files are.
        hub: Where this node finds files of the hub.
    """

    def __init__(
        self, results: Path, study: StudyFiles | None = None, hub: Hub | None = None
    ) -> None:
        study = study or NamedFiles()
        self.hub = hub or HubCache(cache_folder())
        self._artifacts = results / "artifacts"
        self.work = results / "work"
        self.folder, self.text = study.folder, study.text

    def artifact(self, cell_id: str, within: str = "") -> Path | None:
        """Returns the folder of a published artifact, also of one without a manifest."""
        folder = self._artifacts / cell_id
        return folder if folder.is_dir() else None

    def publish(self, folder: Path, cell_id: str) -> None:
        """Moves a finished folder to its place."""
        self.put(folder, cell_id, describe(folder))

    def put(self, folder: Path, cell_id: str, manifest: bytes) -> None:
        """Moves a finished folder, whose manifest is known, to its place."""
        if self.artifact(cell_id) is None:
            (folder / MANIFEST).write_bytes(manifest)
        move(folder, self._artifacts / cell_id)
        sweep(self.work, cell_id)


def move(folder: Path, target: Path) -> None:
    """Renames a folder; where the target is there already, the folder goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)


def sweep(work: Path, cell_id: str) -> None:
    """Removes what killed attempts at a published artifact left: nobody needs it now."""
    for left in work.glob(f"{cell_id}.*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def held(files: Files, source: Source, progress: Progress) -> Iterator[Path]:
    """Gives the path of a source, which stays on this node until the block ends.

    Args:
        files: Where this node finds files.
        source: A folder, a place in an artifact, or files on the hub, which are fetched.
        progress: Told how many bytes of how many are here.

    Raises:
        DataError: It is gone, or not what it should be.
        OSError: It cannot be reached.
    """
    if isinstance(source, HubFolder):
        with ExitStack() as stack:
            with phase("fetch"):
                path = stack.enter_context(files.hub.hold(source, progress))
            yield path
    else:
        yield locate(files, source)


def locate(files: Files, source: Folder | Produced) -> Path:
    """Returns the path of a source: its own folder, or its place in the producer's artifact.

    Raises:
        DataError: It is gone from the artifact.
    """
    if isinstance(source, Produced):
        return whole(files, source.cell_id, (source.folder,)) / source.folder
    return files.folder(source)


def text_of(files: Files, text: TextFiles | Produced | HubStream) -> TextFiles | Path | HubStream:
    """Returns a text as it is found on this node; one on the hub stays there.

    Raises:
        DataError: It is gone from the artifact, or changed since it was planned.
    """
    match text:
        case Produced():
            return locate(files, text)
        case TextFiles():
            return files.text(text)
        case HubStream():
            return text


@phase("fetch")
def whole(files: Files, cell_id: str, names: Sequence[str] = ("",)) -> Path:
    """Returns where a cell's artifact lies on this node.

    Args:
        files: Where this node finds artifacts.
        cell_id: The cell that made it.
        names: The files and folders in it that are needed; all, unless told.

    Raises:
        DataError: It, or one of its named files or folders, is gone.
    """
    folder = None
    for name in names:
        folder = files.artifact(cell_id, name)
        if folder is not None and not (folder / name).exists():
            raise DataError(
                f"the artifact {cell_id} lacks {name}",
                f"remove artifacts/{cell_id} from the results, then `retry`: it is made again",
            )
    if folder is None:
        raise DataError(f"the artifact {cell_id} is gone", "`retry`: it is made again")
    return folder


def published_rows(files: Files, cell_id: str) -> Any:
    """Returns the rows that a cell has put into its artifact, by table where there are several.

    Raises:
        DataError: The artifact, or its rows, are gone.
    """
    return json.loads((whole(files, cell_id, (ROWS,)) / ROWS).read_text(encoding="utf-8"))


@contextmanager
def fresh_artifact(files: Files, cell_id: str) -> Iterator[Path]:
    """Gives an empty folder that is published when the block ends without an error."""
    folder = files.work / f"{cell_id}.{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
        files.publish(folder, cell_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def resumable_artifact(files: Files, cell_id: str) -> Iterator[Path]:
    """Gives the folder that an earlier, killed attempt left, and publishes it at the end.

    Unfinished work stays where `files.work` is: below the results, where nodes can reach them, and
    else in the cache of the node, so that only an attempt on the same node goes on with it.
    """
    folder = files.work / cell_id
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    files.publish(folder, cell_id)
