"""A hub on loopback, over real HTTP, for the real client: it notes each request that it answers."""

import socket
import threading
from fnmatch import fnmatchcase
from http.server import ThreadingHTTPServer
from typing import Any

from tests.hub.answers import Answers, Request
from tests.hub.faults import Bandwidth, Faults
from tests.hub.repositories import Repository


class LocalHub:
    """A hub on a port of its own, until it is closed.

    Args:
        rate: Bytes per second that all files share; None for no limit.
        page_size: Most entries of one page of a tree.

    Attributes:
        address: What the client takes for the hub, `http://127.0.0.1:…`.
        requests: Every request so far.
        faults: What shall go wrong.
        bandwidth: Its `rate` can be changed at any time.
    """

    def __init__(self, rate: float | None = None, page_size: int = 1000) -> None:
        self.requests: list[Request] = []
        self.faults, self.bandwidth = Faults(), Bandwidth(rate)
        self.page_size = page_size
        self.stopped = threading.Event()
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._sending, self._lock = 0, threading.Lock()
        self._server = HubServer(self)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def model(self, name: str) -> Repository:
        """Returns a model's repository, new at the first call."""
        return self._repository("models", name)

    def dataset(self, name: str) -> Repository:
        """Returns a dataset's repository, new at the first call."""
        return self._repository("datasets", name)

    def find(self, kind: str, name: str) -> Repository | None:
        """Returns a repository, or None if there is none."""
        return self._repositories.get((kind, name))

    def matching(self, pattern: str = "*", method: str | None = None) -> list[Request]:
        """Returns the requests whose path matches a pattern, in the order of their arrival."""
        return [
            request
            for request in list(self.requests)
            if fnmatchcase(request.path, pattern) and method in {None, request.method}
        ]

    def sent(self, pattern: str = "*") -> int:
        """Returns the bytes of files that were sent for matching paths."""
        return sum(request.sent for request in self.matching(pattern))

    def note(self, request: Request) -> None:
        """Notes a request."""
        with self._lock:
            self.requests.append(request)

    def sending(self, change: int) -> int:
        """Counts the files that are being sent, and returns how many there are now."""
        with self._lock:
            self._sending += change
            return self._sending

    def close(self) -> None:
        """Stops answering, ends open connections and frees the port."""
        if self.stopped.is_set():
            return
        self.stopped.set()
        self.faults.clear()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "LocalHub":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _repository(self, kind: str, name: str) -> Repository:
        return self._repositories.setdefault((kind, name), Repository(name, kind))


class HubServer(ThreadingHTTPServer):
    """Ends the connections that clients keep open, so that no thread outlives it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Answers)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # The client was quicker.
                continue
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""
