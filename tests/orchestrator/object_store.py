"""A real server of the S3 protocol on loopback. It notes requests, and refuses some on demand."""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

import pytest


@dataclass
class ObjectStore:
    """The server.

    Attributes:
        app: The server's own application.
        address: Its host and port.
        requests: Method, and path with query, of every request so far.
        refuses: Gives the status and the code with which a request is refused, or None.
    """

    app: Callable[..., Iterable[bytes]]
    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuses: Callable[[str, str], tuple[int, str] | None] = lambda _method, _path: None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = environ.get("QUERY_STRING", "")
        self.requests.append((method, f"{path}?{query}" if query else path))
        refusal = self.refuses(method, path)
        if refusal is None:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = refusal
        start_response(f"{status} Refused", [("Content-Type", "application/xml")])
        body = f"<Error><Code>{code}</Code><Message>refused by the test</Message></Error>"
        return [] if method == "HEAD" else [body.encode()]

    def names(self, bucket: str) -> list[str]:
        """Returns the keys of a bucket, as the server itself tells them."""
        return sorted(_backend().buckets[bucket].keys)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Puts an object there without a request."""
        _backend().put_object(bucket, name, content)


def _backend() -> Any:
    from moto.backends import get_backend

    return get_backend("s3")["123456789012"]["aws"]


@pytest.fixture(scope="session")
def _server() -> Iterator[ObjectStore]:
    # Imported here: most tests need no server.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    store = ObjectStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Silent)
    store.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield store
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def object_store(_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The server, which this process and its children take for S3."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{_server.address}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    refuses = _server.refuses
    yield _server
    _server.refuses = refuses
    _server.requests.clear()


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex}"
    with urlopen(Request(f"http://{object_store.address}/{name}", method="PUT")):
        return name
