"""One file of the hub: fetched over whatever the network does, and right or not there at all.

A file has its name only once its bytes have the hash that the hub's listing tells. Until then they
lie beside it under another name, where the next attempt goes on from.

Errors are made of what was asked for and of status codes, never of what the hub or the network
said: that may repeat the request, and with it the user's token.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from jobs.errors import DataError
from jobs.sources import HubFile
from workers.cache import naming
from workers.disk import INCOMPLETE
from workers.tally import count

if TYPE_CHECKING:
    import httpx

_CHUNK_BYTES = 2**22
_TRIES = 5
_TRANSFERS = 3
_FIRST_WAIT_SECONDS = 1.0
_WAIT_GROWTH = 4.0
_LONGEST_WAIT_SECONDS = 60.0
_PARTIAL_CONTENT, _RANGE_REFUSED, _TOO_MANY = 206, 416, 429
_PASSING = {408, _RANGE_REFUSED, 425, _TOO_MANY}
_SERVERS_FAULT = 500


class HubError(OSError):
    """The hub didn't give a file, for a reason that may pass."""


class StoppedError(Exception):
    """The download was told to stop; the next one goes on where it was."""


@dataclass(frozen=True)
class Wanted:
    """A file of a repository on the hub.

    Attributes:
        repository: The repository.
        commit: The commit.
        file: The file.
    """

    repository: str
    commit: str
    file: HubFile

    def __str__(self) -> str:
        return f"{self.file.path} of {self.repository} at {self.commit}"

    @property
    def hash(self) -> str:
        """What its bytes must hash to: their SHA-256, or Git's hash of them."""
        return self.file.sha256 or self.file.oid


class Watch:
    """What a download tells, and by what it is stopped.

    Args:
        told: Takes the number of bytes that are here.
        stopped: Set when they are not wanted any more.
    """

    def __init__(self, told: Callable[[int], None], stopped: threading.Event) -> None:
        self._told, self._stopped = told, stopped

    def tell(self, done: int) -> None:
        """Tells how many bytes are here.

        Raises:
            StoppedError: No more are wanted.
        """
        self._told(done)
        self.wait(0)

    def wait(self, seconds: float) -> None:
        """Waits.

        Raises:
            StoppedError: No more bytes are wanted.
        """
        if self._stopped.wait(seconds) if seconds else self._stopped.is_set():
            raise StoppedError


def hash_of(path: Path, wanted: Wanted, watch: Watch) -> str:
    """Returns the hash of a file on disk, of the kind that is wanted.

    Raises:
        StoppedError: It isn't wanted any more.
        OSError: It cannot be read.
    """
    found, done = _new_hash(wanted), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            done += len(chunk)
            watch.tell(done)
    return found.hexdigest()


def download(wanted: Wanted, target: Path, watch: Watch) -> None:
    """Fetches a file, going on from what an earlier attempt left.

    Args:
        wanted: The file.
        target: Its path, where there is none. Nobody else may be fetching it.
        watch: What it tells, and by what it is stopped.

    Raises:
        DataError: The hub doesn't have it, refuses it, or serves other bytes than it lists.
        HubError: The hub cannot be reached, or fails, for longer than it is tried.
        StoppedError: It isn't wanted any more.
        OSError: It cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + INCOMPLETE)
    found = ""
    for _ in range(_TRANSFERS):
        with _Partial(partial, wanted, watch) as growing:
            _complete(growing, wanted, watch)
            found = growing.finish()
        if found == wanted.hash:
            partial.replace(target)
            return
        partial.unlink()
    raise DataError(
        f"{wanted} has the hash {found}, and the hub lists {wanted.hash}",
        "the hub, or a proxy before it, serves other bytes than it lists: tell the owner of the "
        "repository, or leave this revision out",
    )


class _Partial:
    """A file that grows, hashed as it does. What was there of it is kept."""

    def __init__(self, path: Path, wanted: Wanted, watch: Watch) -> None:
        self._path, self._wanted, self._watch = path, wanted, watch
        self._hash, self.size = _new_hash(wanted), 0
        self._file = path.open("a+b", buffering=0)

    def __enter__(self) -> Self:
        try:
            self._file.seek(0)
            while chunk := self._file.read(_CHUNK_BYTES):
                self._take(chunk)
            if self.size > self._wanted.file.size:
                self.restart()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def restart(self) -> None:
        """Forgets all bytes."""
        self._file.truncate(0)
        self._hash, self.size = _new_hash(self._wanted), 0

    def add(self, chunk: bytes) -> None:
        """Adds bytes; those beyond the size of the file are left out."""
        view = memoryview(chunk)[: self._wanted.file.size - self.size]
        with naming(self._path):
            while view:
                written = self._file.write(view)
                self._take(view[:written])
                view = view[written:]

    def finish(self) -> str:
        """Flushes the bytes to the disk, so that no power failure undoes them; returns the hash."""
        with naming(self._path):
            os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def _take(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        self._watch.tell(self.size)


def _new_hash(wanted: Wanted) -> "hashlib._Hash":
    if wanted.file.sha256 is not None:
        return hashlib.sha256()
    # Git's names of contents: no secret hangs on them, and there is no other hash to compare with.
    return hashlib.sha1(b"blob %d\0" % wanted.file.size, usedforsecurity=False)


def _complete(partial: _Partial, wanted: Wanted, watch: Watch) -> None:
    """Fetches what a file lacks. Only tries that bring nothing new count as failed."""
    failed, most = 0, partial.size
    while partial.size < wanted.file.size:
        problem, pause = _fetch(partial, wanted)
        if partial.size == wanted.file.size:
            return
        failed = 0 if partial.size > most else failed + 1
        most = max(most, partial.size)
        if failed == _TRIES:
            raise HubError(f"cannot fetch {wanted}: {problem}, {_TRIES} times in a row")
        if pause is None:
            pause = _FIRST_WAIT_SECONDS * _WAIT_GROWTH ** max(0, failed - 1)
            pause = min(_LONGEST_WAIT_SECONDS, pause)
        watch.wait(pause)


def _fetch(partial: _Partial, wanted: Wanted) -> tuple[str, float | None]:
    """Asks for the rest of a file once; returns what went wrong, and for how long to wait then."""
    import httpx
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    url = hf_hub_url(wanted.repository, wanted.file.path, revision=wanted.commit)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                if response.status_code == _RANGE_REFUSED:
                    partial.restart()
                return _refusal(response, wanted), _asked_pause(response)
            if partial.size and not _goes_on(response, partial.size):
                partial.restart()
            for chunk in response.iter_bytes():
                count("fetched_bytes", "hub", len(chunk))
                partial.add(chunk)
            return "the connection ended early", None
    except OfflineModeIsEnabled:
        raise HubError(f"cannot fetch {wanted}: HF_HUB_OFFLINE is set") from None
    except httpx.RequestError as error:
        return type(error).__name__, None


def _goes_on(response: "httpx.Response", start: int) -> bool:
    """Tells whether a response begins at a byte, and not at the first."""
    return bool(
        response.status_code == _PARTIAL_CONTENT
        and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    )


def _refusal(response: "httpx.Response", wanted: Wanted) -> str:
    """Returns what a response says, if that may pass.

    Raises:
        DataError: It will be the same another time.
    """
    status = response.status_code
    match status:
        case 401 | 403:
            raise DataError(
                f"the hub refuses {wanted} (status {status}): its repository is gated or private",
                "accept the licence on the model's page, and set HF_TOKEN to a token that may read "
                "it on all nodes",
            )
        case 404 | 410:
            raise DataError(
                f"the hub has no {wanted} (status {status})",
                "check the repository and the revision: it was removed since the study was planned",
            )
        case _ if status in _PASSING or status >= _SERVERS_FAULT:
            return f"status {status}"
    raise DataError(
        f"the hub refuses {wanted} (status {status})", "look at the model's page on the hub"
    )


def _asked_pause(response: "httpx.Response") -> float | None:
    """Returns for how many seconds the hub asks to be left alone."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == _TOO_MANY and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = response.headers.get("Retry-After", "")
    if asked.isdigit():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())
