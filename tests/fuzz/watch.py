"""What a process does to the world around it, noted by Python's own audit events."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {  # Event: which of its arguments are paths that are changed, and their folders.
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
}
_STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
)


class Watch:
    """Notes, from now until the process ends, what it must not do.

    Args:
        writable: Folders and files that may be written.
        foreign: A folder of which nothing may be executed.
        hosts: Addresses that may be connected to.

    Attributes:
        seen: What was done against that; it may be emptied.
    """

    def __init__(
        self, writable: Iterable[Path], foreign: Path, hosts: Iterable[tuple[str, int]] = ()
    ) -> None:
        self.seen: list[str] = []
        self._writable = tuple(os.path.realpath(path) for path in (*writable, Path("/dev/null")))
        self._foreign = os.path.realpath(foreign) + os.sep
        self._hosts = frozenset(hosts)
        # No bytecode beside the sources: that would be a write outside.
        sys.dont_write_bytecode = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._note_write(event, path)
        elif event in _CHANGES:
            for path, folder in _CHANGES[event]:
                self._note_write(
                    event, arguments[path], -1 if folder is None else arguments[folder]
                )
        elif event == "socket.connect":
            address = arguments[1]
            if not isinstance(address, tuple) or address[:2] not in self._hosts:
                self.seen.append(f"{event} {address}")
        elif event == "socket.getaddrinfo":
            if str(arguments[0]) not in {host for host, _ in self._hosts}:
                self.seen.append(f"{event} {arguments[0]}")
        elif event in _STARTS:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "exec":
            self._note_code(getattr(arguments[0], "co_filename", ""))
        elif event == "import":
            self._note_code(arguments[1])

    def _note_write(self, event: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int):
            return
        above = f"/proc/self/fd/{folder}" if folder >= 0 else ""
        named = Path(above, os.fsdecode(path))
        # What is removed or renamed is the link itself, what is opened is behind it.
        place = os.path.realpath(named)
        if event != "open":
            place = str(Path(os.path.realpath(named.parent), named.name))
        if not any(place == root or place.startswith(root + os.sep) for root in self._writable):
            self.seen.append(f"{event} {place}")

    def _note_code(self, name: Any) -> None:
        real = isinstance(name, str) and not name.startswith("<")
        if real and os.path.realpath(name).startswith(self._foreign):
            self.seen.append(f"runs {name}")
