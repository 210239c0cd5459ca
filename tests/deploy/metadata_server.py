"""The metadata servers of AWS and Google on loopback, as far as notices go."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer(ThreadingHTTPServer):
    """Answers as both clouds do, by their documents on instance metadata.

    Attributes:
        notice: What AWS says under `spot/instance-action`; None without a notice.
        preempted: What Google says.
        refused: Requests that a cloud would have refused.
        asked: Requests that were answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notice: str | None = None
        self.preempted = False
        self.tokens: set[str] = set()
        self.refused: list[str] = []
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_PUT(self) -> None:
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token" or not seconds.isdecimal() or int(seconds) > 21600:
            self._answer(400, "")
            return
        token = secrets.token_hex(8)
        self.server.tokens.add(token)
        self._answer(200, token)

    def do_GET(self) -> None:
        match self.path:
            case "/latest/meta-data/spot/instance-action":
                if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens:
                    self._answer(401, "")
                elif self.server.notice is None:
                    self._answer(404, "<html>404 - Not Found</html>")
                else:
                    self._answer(200, self.server.notice)
            case "/computeMetadata/v1/instance/preempted":
                google = self.headers.get("Metadata-Flavor") == "Google"
                self._answer(200 if google else 403, "TRUE" if self.server.preempted else "FALSE")
            case _:
                self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        noted = self.server.refused if status in {400, 401, 403} else self.server.asked
        noted.append(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    """Gives a server, and ends it."""
    with MetadataServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
