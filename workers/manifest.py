"""Manifests: every file of a published artifact, by its path, its size and its SHA-256.

A manifest is written when the files it names are there, so an artifact is there if its manifest is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.errors import DataError

MANIFEST = "manifest.json"
"""Name of the manifest in an artifact."""


@dataclass(frozen=True)
class Entry:
    """What is known of a file.

    Attributes:
        sha256: SHA-256 of its bytes.
        size: Their number; None where it isn't known.
    """

    sha256: str
    size: int | None = None


def describe(folder: Path) -> bytes:
    """Returns the manifest of a finished folder; equal files have equal manifests.

    Raises:
        OSError: A file cannot be read.
    """
    files = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                files[name] = {"size": file.tell(), "sha256": sha256}
    return json.dumps({"files": files}, indent=1, sort_keys=True).encode()


def entries(manifest: bytes) -> dict[str, Entry]:
    """Returns the files that a manifest names.

    Raises:
        DataError: It is malformed, or names a file that would lie outside of its artifact.
    """
    try:
        found = {
            str(name): Entry(str(entry["sha256"]), int(entry["size"]))
            for name, entry in json.loads(manifest)["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"an artifact's {MANIFEST} is malformed: {error}",
            "remove that artifact from the results, then `retry`: it is made again",
        ) from error
    for name in found:
        check_inside(name)
    return found


def check_inside(name: str) -> None:
    """Refuses a path that would lead out of the folder that it is relative to.

    Raises:
        DataError: It is absolute, or steps up.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(f"'{name}' is no path within an artifact", "check who wrote the results")
