"""Artifacts: what a cell makes besides rows. A published one is whole and never changes."""

import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import DataError
from jobs.work import Folder, Produced


def artifact_folder(results: Path, cell_id: str) -> Path:
    """Returns where a cell's artifact lies once it is published."""
    return results / "artifacts" / cell_id


def locate(results: Path, source: Folder | Produced) -> Path:
    """Returns the path of a source: its own folder, or its place in the producer's artifact.

    Raises:
        DataError: It is gone from the artifact.
    """
    if isinstance(source, Produced):
        return whole(results, source.cell_id, (source.folder,)) / source.folder
    return Path(source.path)


def whole(results: Path, cell_id: str, names: Iterable[str]) -> Path:
    """Returns where a cell's artifact lies.

    Raises:
        DataError: One of its named files or folders is gone.
    """
    folder = artifact_folder(results, cell_id)
    for name in names:
        if not (folder / name).exists():
            raise DataError(
                f"the artifact {folder} lacks {name}",
                "remove that folder, then `retry`: it is made again",
            )
    return folder


@contextmanager
def fresh_artifact(results: Path, cell_id: str) -> Iterator[Path]:
    """Gives an empty folder that is published when the block ends without an error."""
    folder = results / "work" / f"{cell_id}.{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
        publish(folder, artifact_folder(results, cell_id))
        # What killed attempts left: nobody needs it now.
        for left in folder.parent.glob(f"{cell_id}.*"):
            shutil.rmtree(left, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def resumable_artifact(results: Path, cell_id: str) -> Iterator[Path]:
    """Gives the folder that an earlier, killed attempt left, and publishes it at the end."""
    folder = results / "work" / cell_id
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    publish(folder, artifact_folder(results, cell_id))


def publish(folder: Path, target: Path) -> None:
    """Moves a finished artifact to its place; an earlier publication of the same cell wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)
