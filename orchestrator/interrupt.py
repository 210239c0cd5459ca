"""Interrupts while cells run: the first asks the run to end well, the second ends it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `ray job stop` or a batch system, and a terminal that was closed."""


@contextmanager
def noticing_interrupts() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether an interrupt came.

    A second interrupt raises KeyboardInterrupt. Signals that were ignored before (as nohup does)
    stay ignored, and outside the main thread, where Python delivers none, nothing is ever noticed.
    """
    came = threading.Event()

    def notice(_signal: int, _frame: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, notice)
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
