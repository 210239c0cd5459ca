"""Identity: what a thing is, as a SHA-256 over canonical JSON (RFC 8785) or over its bytes.

Equal inputs give equal identities on every machine; a value without stable bytes is an error.
"""

import hashlib
import json
import os
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
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise StudyError(
            f"a value has no stable bytes, so it cannot identify a cell: {error}",
            "use finite numbers, strings, lists and tables",
        ) from error


class FileHashes:
    """SHA-256 of files, remembered by path, size and time of the last change."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or cache_folder()) / "file-hashes.json"
        self._changed = False
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
            resolved = path.resolve(strict=True)
            state = resolved.stat()
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
