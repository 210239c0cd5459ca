"""What the local hub answers: what the client's `huggingface_hub` and `datasets` ask, and no more.

That is what a repository is at a revision, its references, its tree in pages, and its files, whole
or in ranges; errors are told as the hub tells them.
"""

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from tests.hub.faults import Corruption, Cut, Hold, Refusal, Shortening
from tests.hub.repositories import Blob, Repository

if TYPE_CHECKING:
    from tests.hub.server import HubServer


@dataclass
class Request:
    """A request, as it was answered.

    Attributes:
        method: Such as `GET`.
        path: Path, without its query.
        range: The range of bytes that was asked for, as the client wrote it.
        authorized: Whether it showed a token; the token itself is not kept.
        status: Status of the answer.
        sent: Bytes of a file that were sent.
        together: How many files were being sent when this one began, itself included.
    """

    method: str
    path: str
    range: str | None
    authorized: bool
    status: int = 0
    sent: int = 0
    together: int = 0


class _Refused(Exception):  # noqa: N818
    """A request that gets an error for its answer."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Answers(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "HubServer"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        self.token = token if scheme == "Bearer" else ""
        path = unquote(url.path)
        self.noted = Request(self.command, path, self.headers.get("Range"), bool(self.token))
        hub.note(self.noted)
        refusal = hub.faults.take(Refusal, path, self.command)
        try:
            if refusal is not None:
                wait = refusal.retry_after
                headers = {} if wait is None else {"Retry_After": str(wait)}
                raise _Refused(refusal.status, "", "refused on demand", **headers)
            self._route([unquote(part) for part in url.path.strip("/").split("/")])
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            headers = {name: value for name, value in headers.items() if value}
            self._json({"error": refused.message}, refused.status, headers | refused.headers)

    def _route(self, parts: list[str]) -> None:
        match parts:
            case ["api", ("models" | "datasets") as kind, *rest]:
                repository, rest = self._repository(kind, rest)
                self._api(repository, rest)
            case ["datasets", *rest]:
                self._file(*self._repository("datasets", rest))
            case rest:
                self._file(*self._repository("models", rest))

    def _repository(self, kind: str, parts: list[str]) -> tuple[Repository, list[str]]:
        """Returns the repository that a path begins with, and the rest of the path."""
        for length in (2, 1):
            found = self.server.hub.find(kind, "/".join(parts[:length]))
            if found is not None and found.private in {None, self.token}:
                return found, parts[length:]
        # The hub doesn't tell strangers what exists.
        raise _Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _api(self, repository: Repository, parts: list[str]) -> None:
        expand = "true" in (self.query.get("expand", "").lower(), *self._form("expand"))
        match parts:
            case []:
                self._info(repository, "main")
            case ["revision", revision]:
                self._info(repository, revision)
            case ["refs"]:
                self._json(repository.refs())
            case ["tree", revision, *folder]:
                commit = self._commit(repository, revision)
                recursive = self.query.get("recursive", "").lower() == "true"
                entries = repository.tree(commit, "/".join(folder), recursive, expand)
                if entries is None:
                    raise _Refused(404, "EntryNotFound", "no such folder", X_Repo_Commit=commit)
                self._page(entries)
            case ["paths-info", revision]:
                commit = self._commit(repository, revision)
                self._json(repository.entries(commit, self.form.get("paths", []), expand))
            case _:
                raise _Refused(404, "", "the local hub doesn't know this request")

    def _form(self, name: str) -> list[str]:
        return [value.lower() for value in self.form.get(name, [])]

    def _info(self, repository: Repository, revision: str) -> None:
        commit = self._commit(repository, revision)
        self._json(repository.info(commit, self.query.get("blobs", "").lower() == "true"))

    def _page(self, entries: list[dict[str, Any]]) -> None:
        """Answers with a page of a list, and tells where the next one is."""
        hub = self.server.hub
        start = int(self.query.get("cursor", 0))
        end = start + hub.page_size
        headers = {}
        if end < len(entries):
            query = urlencode({**self.query, "cursor": end})
            path = urlsplit(self.path).path
            headers["Link"] = f'<{hub.address}{path}?{query}>; rel="next"'
        self._json(entries[start:end], headers=headers)

    def _file(self, repository: Repository, parts: list[str]) -> None:
        """Answers with a file, or a range of it."""
        match parts:
            case ["resolve", revision, *path] if path:
                commit, name = self._commit(repository, revision), "/".join(path)
            case _:
                raise _Refused(404, "", "the local hub doesn't know this request")
        if repository.gated not in {None, self.token}:
            status = 403 if self.token else 401
            raise _Refused(status, "GatedRepo", f"Access to {repository.kind} is restricted")
        blob = repository.commits[commit].get(name)
        if blob is None:
            raise _Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{blob.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if blob.sha256 is not None:
            headers["X-Linked-Etag"] = f'"{blob.sha256}"'
            headers["X-Linked-Size"] = str(len(blob.data))
        self._bytes(blob, headers)

    def _bytes(self, blob: Blob, headers: dict[str, str]) -> None:
        size = len(blob.data)
        start, end = _range(self.noted.range, size)
        if start >= end and self.noted.range is not None:
            raise _Refused(416, "", "no such range", Content_Range=f"bytes */{size}")
        whole = (start, end) == (0, size) and self.noted.range is None
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        body, take = blob.data[start:end], self.server.hub.faults.take
        if self.command == "GET":
            if (short := take(Shortening, self.noted.path)) is not None:
                body = body[: short.to]
            if take(Corruption, self.noted.path) is not None and body:
                body = body[:-1] + bytes([body[-1] ^ 0xFF])
        self._head(200 if whole else 206, {**headers, "Content-Length": str(len(body))})
        if self.command == "GET":
            self.noted.together = self.server.hub.sending(1)
            try:
                self._send(memoryview(body))
            finally:
                self.server.hub.sending(-1)

    def _send(self, body: memoryview) -> None:
        """Sends bytes in pieces, up to where something goes wrong."""
        hub, take = self.server.hub, self.server.hub.faults.take
        cut, hold = take(Cut, self.noted.path), take(Hold, self.noted.path)
        stops: list[tuple[int, Callable[[], None]]] = [(len(body), lambda: None)]
        if hold is not None:
            stops.append((min(hold.after, len(body)), lambda: _wait(hold)))
        if cut is not None:
            stops = [(at, act) for at, act in stops if at <= cut.after]
            stops.append((min(cut.after, len(body)), lambda: self._end(cut.reset)))
        place = 0
        for at, act in sorted(stops, key=lambda stop: stop[0]):
            while place < at:
                piece = body[place : min(place + hub.bandwidth.piece, at)]
                hub.bandwidth.wait(len(piece), hub.stopped)
                # Noted first, so that whoever has the bytes finds them noted.
                self.noted.sent += len(piece)
                self.wfile.write(piece)
                place += len(piece)
            act()

    def _end(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Closed below the streams that still hold it, which would end it in order.
            socket.close(self.connection.detach())

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        about = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._head(status, about | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.noted.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _wait(hold: Hold) -> None:
    hold.reached.set()
    hold.released.wait()


def _range(wanted: str | None, size: int) -> tuple[int, int]:
    """Returns the first byte that is wanted, and the one behind the last."""
    if wanted is None:
        return 0, size
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
