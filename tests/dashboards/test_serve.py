"""The served page: on loopback, itself and its digest alone, and replaced as a whole."""

import http.client
import socket
from collections.abc import Iterator

import pytest

from dashboards.serve import HOST, Served, serving
from jobs.errors import UsageError


@pytest.fixture
def served() -> Iterator[Served]:
    with serving("<p>α</p>", "one") as page:
        yield page


def port(served: Served) -> int:
    return int(served.url.rstrip("/").rpartition(":")[2])


def ask(
    served: Served, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(HOST, port(served), timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_page_and_its_digest_are_served(served: Served) -> None:
    status, headers, body = ask(served, "/")
    assert (status, body) == (200, "<p>α</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert ask(served, "/digest")[2] == "one"
    served.page = ("<p>β</p>", "two")
    assert (ask(served, "/")[2], ask(served, "/digest")[2]) == ("<p>β</p>", "two")


@pytest.mark.parametrize(
    "path", ["/report.html", "/etc/passwd", "/../etc/passwd", "/%2e%2e/", "/digest/", "/?x"]
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    status, _, body = ask(served, path)
    assert status == 404
    assert "root:" not in body


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_get_is_answered(served: Served, method: str) -> None:
    assert ask(served, "/", method)[0] == 501


def test_other_names_for_this_machine_are_refused(served: Served) -> None:
    assert ask(served, "/", host=f"localhost:{port(served)}")[0] == 200
    for host in (f"evil.example:{port(served)}", "localhost", f"{HOST}:1", ""):
        assert ask(served, "/", host=host)[0] == 403, host


def test_only_loopback_listens_and_a_port_is_taken_once(served: Served) -> None:
    others = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
    for address in others - {HOST, "::1"}:
        with pytest.raises(OSError, match=r"refused|unreachable"):
            socket.create_connection((str(address), port(served)), timeout=5)
    with pytest.raises(UsageError, match=f"cannot listen on {HOST}:{port(served)}") as caught:
        serving("", "", port(served)).__enter__()
    assert "--port" in caught.value.remedy


def test_the_port_is_free_again_afterwards() -> None:
    with serving("a", "1") as first:
        number = port(first)
    with serving("b", "2", number) as second:
        assert ask(second, "/")[2] == "b"
