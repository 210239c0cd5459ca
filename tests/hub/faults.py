"""What goes wrong on the local hub, on demand: each fault strikes as often as it was ordered."""

import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar


@dataclass(eq=False)
class Fault:
    """Something that goes wrong.

    Attributes:
        pattern: Which paths it strikes, as a shell writes patterns; `*` crosses slashes.
        times: How often it will strike; None for ever.
    """

    pattern: str
    times: int | None


@dataclass(eq=False)
class Refusal(Fault):
    """A request is answered with an error.

    Attributes:
        status: Status of the answer.
        retry_after: Seconds after which the client should ask again, if it is told.
        methods: Methods of the requests that are refused.
    """

    status: int = 500
    retry_after: int | None = None
    methods: tuple[str, ...] = ("HEAD", "GET", "POST")


@dataclass(eq=False)
class Cut(Fault):
    """The connection ends within an answer.

    Attributes:
        after: Bytes of the answer that are sent.
        reset: Whether the connection is reset, not closed.
    """

    after: int = 0
    reset: bool = False


@dataclass(eq=False)
class Shortening(Fault):
    """An answer that is too short and says that it is whole.

    Attributes:
        to: Bytes that are sent.
    """

    to: int = 0


@dataclass(eq=False)
class Corruption(Fault):
    """The last byte of an answer is another one, and everything else right."""


@dataclass(eq=False)
class Hold(Fault):
    """An answer waits until it is released.

    Attributes:
        after: Bytes of the answer that are sent first.
        reached: Set once an answer waits.
        released: Set by `release`.
    """

    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Lets all answers go on, those to come too."""
        self.released.set()


_F = TypeVar("_F", bound=Fault)


class Faults:
    """The faults that are ordered. All but refusals strike only the bytes of files."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def refuse(
        self,
        pattern: str,
        status: int = 500,
        *,
        times: int | None = 1,
        retry_after: int | None = None,
        methods: tuple[str, ...] = ("HEAD", "GET", "POST"),
    ) -> None:
        """Answers the next requests with an error, such as 429 or 500."""
        self._add(Refusal(pattern, times, status, retry_after, methods))

    def cut(self, pattern: str, after: int, *, times: int | None = 1, reset: bool = False) -> None:
        """Ends the connection after so many bytes of the next answers."""
        self._add(Cut(pattern, times, after, reset))

    def shorten(self, pattern: str, to: int, *, times: int | None = 1) -> None:
        """Serves the next answers too short, with a length that fits what is served."""
        self._add(Shortening(pattern, times, to))

    def corrupt(self, pattern: str, *, times: int | None = 1) -> None:
        """Changes a byte of the next answers."""
        self._add(Corruption(pattern, times))

    def hold(self, pattern: str, after: int = 0, *, times: int | None = 1) -> Hold:
        """Makes the next answers wait within their bytes, until the fault is released."""
        hold = Hold(pattern, times, after)
        self._add(hold)
        return hold

    def clear(self) -> None:
        """Lets nothing go wrong any more, and releases what waits."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            if isinstance(fault, Hold):
                fault.release()

    def take(self, kind: type[_F], path: str, method: str = "GET") -> _F | None:
        """Returns the first fault of a kind that strikes a request, and counts it."""
        with self._lock:
            for fault in self._faults:
                if not isinstance(fault, kind) or not fnmatchcase(path, fault.pattern):
                    continue
                if fault.times == 0 or (isinstance(fault, Refusal) and method not in fault.methods):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)


class Bandwidth:
    """The bytes per second that all answers share, first come, first served.

    Args:
        rate: Bytes per second; None for no limit.
    """

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._free = 0.0
        self._lock = threading.Lock()

    @property
    def piece(self) -> int:
        """Bytes after which another answer has its turn."""
        return 64 * 1024 if self.rate is None else max(1024, min(64 * 1024, int(self.rate / 50)))

    def wait(self, size: int, stop: threading.Event) -> None:
        """Waits until so many bytes may be sent, or the server stops."""
        if self.rate is None:
            return
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self.rate
            until = self._free
        stop.wait(max(0.0, until - time.monotonic()))
