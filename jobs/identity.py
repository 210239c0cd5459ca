"""Identity: what a thing is, as a SHA-256 over canonical JSON (RFC 8785) or over its bytes.

Equal inputs give equal identities on every machine; a value without stable bytes is an error.
"""

import hashlib
import json
import os
import stat
import uuid
from pathlib import Path
from typing import Any

import rfc8785

from jobs.errors import StudyError


def cache_folder() -> Path:
    """Returns the user's cache folder, `$EIGENTRACE_CACHE` or `~/.cache/eigentrace`."""
    return Path(os.environ.get("EIGENTRACE_CACHE") or Path.home() / ".cache" / "eigentrace")


def digest(value: Any) -> str:
    """Returns the SHA-256 of the canonical JSON of a value.

    Args:
        value: Nested dicts with string keys, lists, strings, numbers, booleans and None.

    Raises:
        StudyError: The value has no canonical JSON: not a number, infinite, an integer
            beyond 2⁵³, or a type that JSON doesn't know.
    """
    try:
        canonical = _plain_json(value) if _is_plain(value) else rfc8785.dumps(value)
        return hashlib.sha256(canonical).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise StudyError(
            f"a value has no stable bytes, so it cannot identify a cell: {error}",
            "use finite numbers, strings, lists and tables",
        ) from error


_LARGEST_INTEGER = 2**53 - 1
"""The largest integer with a canonical form."""


def _is_plain(value: Any) -> bool:
    """Tells whether the standard library's JSON of a value is the canonical one.

    It is for all but numbers that aren't integers, and keys beyond ASCII, which RFC 8785 sorts by
    their UTF-16 code units. Writing it takes a tenth of the time, which counts in a large plan.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_LARGEST_INTEGER <= value <= _LARGEST_INTEGER)
    if kind is dict:
        return all(type(k) is str and k.isascii() and _is_plain(v) for k, v in value.items())
    return (kind is list or kind is tuple) and all(map(_is_plain, value))


def _plain_json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


class FileHashes:
    """SHA-256 of files, remembered by path, size and time of the last change."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or cache_folder()) / "file-hashes.json"
        self._changed = False
        self._folders: dict[Path, Path] = {}
        self._known: dict[str, list[Any]] = {}
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # No memory yet, or a torn one: hash again.
            return
        if isinstance(known, dict):
            self._known = {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 3}

    def sha256(self, path: Path) -> str:
        """Returns the SHA-256 of a file's bytes, read only if the file changed.

        Raises:
            StudyError: The file cannot be read.
        """
        try:
            resolved, state = self._find(path)
            stamp = [state.st_size, state.st_mtime_ns]
            known = self._known.get(str(resolved))
            if known is not None and known[:2] == stamp:
                return str(known[2])
            with resolved.open("rb") as file:
                value = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StudyError(f"cannot read {path}: {error.strerror}", "check the path") from error
        self._known[str(resolved)] = [*stamp, value]
        self._changed = True
        return value

    def resolve(self, folder: Path) -> Path:
        """Returns where a folder really lies; it is looked for once.

        Raises:
            OSError: There is none.
        """
        if folder not in self._folders:
            self._folders[folder] = folder.resolve(strict=True)
        return self._folders[folder]

    def _find(self, path: Path) -> tuple[Path, os.stat_result]:
        """Returns where a file really lies, and its state."""
        found = self.resolve(path.parent) / path.name
        state = found.lstat()
        if stat.S_ISLNK(state.st_mode):
            found = found.resolve(strict=True)
            state = found.stat()
        return found, state

    def save(self) -> None:
        """Keeps what was hashed; an unwritable cache only costs the next plan some time."""
        if not self._changed:
            return
        temporary = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(self._known), encoding="utf-8")
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError:
            return
        self._changed = False
