"""Folders on disk that others write to and remove from meanwhile: what vanishes is no error."""

import os
from collections.abc import Iterator
from pathlib import Path


def listed_files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yields the files directly within a folder; none if it is missing."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return


def size_of(entry: "os.DirEntry[str]") -> int:
    """Returns a file's size; 0 if it has vanished since it was listed.

    It is kept in the listing, so that whoever goes on to read it sees that one is gone, and looks
    for what has taken its place.
    """
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def flush_folder(folder: Path) -> None:
    """Makes a rename last, so that what is deleted after it is not all that a power cut leaves."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
