"""What the hub refuses, or what must not be asked for, is told in words without secrets."""

import logging
import multiprocessing
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from jobs.errors import DataError
from jobs.sources import HubFile, HubFolder
from tests.hub.server import LocalHub
from tests.workers.supplied import FILES, NAME, TOKEN, fetch, source
from workers.download import HubError
from workers.supply import HubCache

_PROCESSES = multiprocessing.get_context("spawn")


pytestmark = pytest.mark.usefixtures("waits")


def test_a_file_that_is_gone_is_named(local_hub: LocalHub, tmp_path: Path) -> None:
    wanted = source(local_hub, FILES)
    gone = HubFolder(NAME, wanted.commit, (HubFile("gone.json", 1, "0" * 40),))
    with pytest.raises(DataError, match=f"no gone.json of {NAME} at {wanted.commit}"):
        fetch(HubCache(tmp_path), gone)
    assert len(local_hub.requests) == 1


def test_a_gated_repository_needs_a_token(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = source(local_hub, FILES)
    local_hub.model(NAME).gate(TOKEN)
    with pytest.raises(DataError, match=r"gated or private → accept the licence .* HF_TOKEN"):
        fetch(HubCache(tmp_path), wanted)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(HubCache(tmp_path), wanted) == FILES


def test_offline_is_said_at_once(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, cache = source(local_hub, FILES), HubCache(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        fetch(cache, wanted)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fetch(cache, wanted)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch(cache, wanted) == FILES


class _Echo(BaseHTTPRequestHandler):
    """Says in every place of an answer what it was asked, the token too."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        told = self.headers["Authorization"]
        status = int(self.path.rsplit("/", 1)[1])
        if status == 0:
            self.wfile.write(f"{told}\r\n\r\n".encode())
            self.close_connection = True
            return
        self.send_response(status, told)
        self.send_header("X-Error-Message", told)
        self.send_header("Location", f"nowhere://{told.split()[-1]}")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())


@contextmanager
def echoing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [0, 200, 302, 400, 401, 403, 404, 416, 418, 429, 500])
def test_a_token_is_never_shown(
    local_hub: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level(logging.INFO, logger="workers")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    wanted = HubFolder(NAME, "c" * 40, (HubFile(str(status), 5, "0" * 40),))
    with echoing() as address:
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        with pytest.raises((DataError, HubError)) as caught:
            fetch(HubCache(tmp_path), wanted)
        assert not HubCache(tmp_path).prefetch(wanted)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert f"{status} of {NAME} at" in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    "file",
    [
        *(
            HubFile(path, 1, "0" * 40)
            for path in ("../x", "a/../../x", "/etc/x", "..\\x", "", ".", "a\0b")
        ),
        HubFile("x", 1, "../../../x"),
        HubFile("x", 1, "0" * 40, "../" * 20 + "x"),
    ],
    ids=repr,
)
def test_a_path_that_escapes_is_refused(local_hub: LocalHub, tmp_path: Path, file: HubFile) -> None:
    cache = HubCache(tmp_path / "cache")
    wanted = HubFolder(NAME, "c" * 40, (file,))
    with pytest.raises(DataError, match=f"{NAME} at c* lists"):
        fetch(cache, wanted)
    assert not cache.prefetch(wanted)
    assert not local_hub.requests
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "commit"), [("../../x", "c"), (NAME, "../c"), ("/x", "c"), ("a/b/c", "c")]
)
def test_a_repository_that_escapes_is_refused(tmp_path: Path, name: str, commit: str) -> None:
    with pytest.raises(DataError, match="is no commit of a repository"):
        fetch(HubCache(tmp_path), HubFolder(name, commit, ()))
