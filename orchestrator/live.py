"""The live state of a run, beside its results: what the driver last said of itself, and when.

It is no ledger: what is done is told by the rows alone, and what this file says is worth only as
long as its driver goes on saying it.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from jobs.errors import StoreError
from jobs.place import Place
from orchestrator.progress import Running, Snapshot

_NAME = ".live.json"
_EVERY_SECONDS = {True: 1.0, False: 5.0}  # On disk, and behind a URL.
_SILENT_SECONDS = 60.0
_AGAIN_SECONDS = 30.0


@dataclass(frozen=True)
class Live:
    """What a driver said last.

    Attributes:
        study: Its study.
        host: Its machine.
        pid: Its process.
        job: Its Ray job, if it is one.
        age: Seconds since it said so.
        snapshot: The state of its run.
    """

    study: str
    host: str
    pid: int
    job: str
    age: float
    snapshot: Snapshot

    @property
    def silent(self) -> bool:
        """Whether the driver should have spoken again by now: it was killed, or is cut off."""
        return self.age > _SILENT_SECONDS


def submitted_job() -> str:
    """Returns the id that `ray job submit` gave this process; empty if it didn't start it."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return str(config.get("metadata", {}).get("job_submission_id", ""))


@contextmanager
def telling(
    place: Place, study: str, note: Callable[[str], None]
) -> Iterator[Callable[[Callable[[], Snapshot]], None]]:
    """Gives a function that publishes a run's state every few seconds; removes it at the end.

    Until it is called first, the run is told as `starting`; another run's state is left alone
    till then, since this one may yet have to wait for its end.

    Args:
        place: The results.
        study: Name of the study.
        note: Told once if the state cannot be published; the run goes on, and tries again.
    """
    about = {
        "study": study,
        "host": platform.node(),
        "pid": os.getpid(),
        "job": submitted_job(),
    }
    due = 0.0
    leads = failed = False
    begin, told = time.monotonic(), threading.Event()

    def write(snapshot: Snapshot) -> None:
        state = {**about, "written": time.time(), "snapshot": asdict(snapshot)}
        place.write(_NAME, json.dumps(state).encode())

    def start() -> None:
        while not told.is_set():
            with suppress(OSError, StoreError):  # Whoever leads will tell.
                found = read_live(place)
                if found is None or found.silent or _is_of(found, about):
                    write(_starting(time.monotonic() - begin))
            told.wait(_EVERY_SECONDS[place.is_local])

    starting = threading.Thread(target=start, name="starting", daemon=True)

    def publish(snapshot: Callable[[], Snapshot]) -> None:
        nonlocal due, leads, failed
        if not leads:
            leads = True
            told.set()
            starting.join()
        now = time.monotonic()
        if now < due:
            return
        due = now + _EVERY_SECONDS[place.is_local]
        try:
            write(snapshot())
        except OSError as error:
            if not failed:
                note(f"`status` cannot show this run: {error}")
            failed, due = True, time.monotonic() + _AGAIN_SECONDS

    starting.start()
    try:
        yield publish
    finally:
        told.set()
        starting.join()
        try:
            if leads or ((found := read_live(place)) is not None and _is_of(found, about)):
                place.delete(_NAME)
        except (OSError, StoreError) as error:
            note(f"cannot remove {place}/{_NAME}: {error}")


def _starting(seconds: float) -> Snapshot:
    """Returns the state of a run that has asked for no worker yet."""
    return Snapshot("starting", (), (), (), 0, 0, 0.0, 0, round(seconds, 1))


def _is_of(live: Live, about: dict[str, Any]) -> bool:
    """Whether a driver said so itself."""
    return (live.host, live.pid) == (about["host"], about["pid"])


def read_live(place: Place) -> Live | None:
    """Returns what a driver at work last said; None if there is none.

    Raises:
        StoreError: The place cannot be read, or another version is at work there.
    """
    try:
        told = place.read(_NAME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise place.failure("cannot read", error, "check its permissions", _NAME) from error
    try:
        found = json.loads(told)
        state = found.pop("snapshot")
        parts = {
            "stages": tuple(map(tuple, state["stages"])),
            "running": tuple(Running(**cell) for cell in state["running"]),
            "failures": tuple(map(tuple, state["failures"])),
        }
        age = max(0.0, time.time() - found.pop("written"))
        return Live(**found, age=age, snapshot=Snapshot(**state | parts))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{place}/{_NAME} is of another version: {error}", "ask with the version that runs"
        ) from error
