"""What a process does to the world is noticed: writes, connections, programs, foreign code."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.children import run_cases
from tests.fuzz.watch import Watch


def _connect(host: str, port: int) -> None:
    with socket.socket() as connection:
        connection.settimeout(1)
        connection.connect_ex((host, port))


def _replace(folder: Path) -> None:
    (folder / "mine" / "a").write_text("x")
    (folder / "mine" / "a").rename(folder / "mine" / "b")


def _link(folder: Path) -> None:
    link = folder / "mine" / "link"
    link.symlink_to(folder / "foreign.py")
    link.read_text()
    link.unlink()


def _temporary(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder / "mine") as made:
        (Path(made) / "x").write_text("x")
    (folder / "mine" / "deep").mkdir()
    shutil.rmtree(folder / "mine" / "deep")


_HARMLESS: list[Callable[[Path], Any]] = [
    lambda folder: (folder / "foreign.py").read_text(),
    lambda folder: (folder / "mine" / "x").write_text("x"),
    lambda folder: Path("/dev/null").write_text("x"),
    lambda folder: _connect("127.0.0.1", 1),
    lambda folder: exec("1 + 1"),
    _replace,
    _link,
    _temporary,
]
_HARMFUL: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / "x").write_text("x"), "open"),
    (lambda folder: os.close(os.open(folder / "x", os.O_RDWR | os.O_CREAT)), "open"),
    (lambda folder: (folder / "mine" / ".." / "x").write_text("x"), "open"),
    (lambda folder: (folder / "out" / "x").write_text("x"), "open"),
    (lambda folder: (folder / "made").mkdir(), "os.mkdir"),
    (lambda folder: (folder / "gone").unlink(), "os.remove"),
    (lambda folder: (folder / "gone").rename(folder / "mine" / "y"), "os.rename"),
    (lambda folder: (folder / "link").symlink_to("x"), "os.symlink"),
    (lambda folder: _connect("127.0.0.1", 2), "socket.connect"),
    (lambda folder: socket.getaddrinfo("localhost.invalid", 80), "socket.getaddrinfo"),
    (lambda folder: subprocess.run([sys.executable, "-c", ""], check=False), "subprocess.Popen"),
    (lambda folder: os.system("true"), "os.system"),
    (
        lambda folder: exec(compile("1", folder / "foreign.py", "exec")),
        "runs",
    ),
]


def _seen(tmp_path: Path, acts: list[Callable[[Path], Any]]) -> list[list[str]]:
    (tmp_path / "mine").mkdir()
    (tmp_path / "gone").write_text("x")
    (tmp_path / "foreign.py").write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")

    def prepare() -> Callable[[int], dict[str, Any]]:
        watch = Watch([tmp_path / "mine"], tmp_path, [("127.0.0.1", 1)])

        def body(case: int) -> dict[str, Any]:
            watch.seen.clear()
            with contextlib.suppress(OSError):
                acts[case](tmp_path)
            return {"seen": list(watch.seen)}

        return body

    outcomes = run_cases(range(len(acts)), prepare, tmp_path / "log", 5.0)
    return [outcome["seen"] for _, outcome in outcomes]


def test_what_is_allowed_is_not_noticed(tmp_path: Path) -> None:
    assert _seen(tmp_path, _HARMLESS) == [[] for _ in _HARMLESS]


def test_what_is_not_allowed_is_noticed(tmp_path: Path) -> None:
    seen = _seen(tmp_path, [act for act, _ in _HARMFUL])
    for found, (_, event) in zip(seen, _HARMFUL, strict=True):
        assert any(what.startswith(event) for what in found), (event, found)


@pytest.fixture(autouse=True)
def _same_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
