"""Serves one page on this machine's loopback: the page and its digest, and nothing of the disk."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jobs.errors import UsageError

HOST = "127.0.0.1"

_IDLE_SECONDS = 10.0
_JOIN_SECONDS = 5.0


@dataclass
class Served:
    """What is served, replaced as a whole whenever there is a newer page.

    Attributes:
        page: The page and its digest.
        url: Where it is.
    """

    page: tuple[str, str]
    url: str = ""


@contextmanager
def serving(page: str, digest: str, port: int = 0) -> Iterator[Served]:
    """Serves a page while the block runs.

    Args:
        page: The page, which asks for `digest` beside it and loads itself anew when that changes.
        digest: Names the page's state.
        port: Where to listen; a free one where it is 0.

    Yields:
        What is served; assign its `page` to serve another.

    Raises:
        UsageError: The port is taken, or may not be listened on.
    """
    served = Served((page, digest))

    class Handler(_Handler):
        shown = served

    try:
        server = _Server((HOST, port), Handler)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {HOST}:{port}: {error.strerror}",
            "name another --port, or leave it out to take a free one",
        ) from error
    served.url = f"http://{HOST}:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="serving", daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_JOIN_SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = False  # Or another process could listen beside it.


class _Handler(BaseHTTPRequestHandler):
    shown: Served
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        page, digest = self.shown.page
        # A name elsewhere that leads to this machine must not read the page (DNS rebinding).
        name, _, port = self.headers.get("Host", "").rpartition(":")
        if name not in (HOST, "localhost") or not self.shown.url.endswith(f":{port}/"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._send(page, "text/html")
        elif self.path == "/digest":
            self._send(digest, "text/plain")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        # The page's own policy, which it has in any case, can't say who may frame it.
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a line every second would bury what the command has to say."""
