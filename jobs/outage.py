"""Outages of an object store: what has work at hand waits for their end instead of failing."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from jobs import url
from jobs.errors import StoreError

OUTAGE_SECONDS = 600.0
"""For how long an object store may be out of reach before what needs it fails."""

_LOG = logging.getLogger("eigentrace")
_LONGEST_PAUSE_SECONDS = 15.0
_Found = TypeVar("_Found")


def outlast(do: Callable[[], _Found]) -> _Found:
    """Calls a function until it meets no outage, and returns what it returns.

    Args:
        do: What reaches the store, and can be called again.

    Raises:
        Exception: Whatever it raises that is no outage, or that one still is after
            `OUTAGE_SECONDS`.
    """
    deadline, pause = time.monotonic() + OUTAGE_SECONDS, 1.0
    while True:
        try:
            return do()
        except (StoreError, OSError, pa.ArrowException) as error:
            if not url.is_outage(error) or time.monotonic() + pause > deadline:
                raise
            _LOG.warning("the object store does not answer, waiting for it: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
