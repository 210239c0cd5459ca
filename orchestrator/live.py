"""The live state of a run, beside its results: what the driver last said of itself, and when.

It is no ledger: what is done is told by the rows alone, and what this file says is worth only as
long as its driver goes on saying it.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from jobs.errors import StoreError
from jobs.place import Place
from orchestrator.progress import Running, Snapshot

_NAME = ".live.json"
_EVERY_SECONDS = {True: 1.0, False: 5.0}  # On disk, and behind a URL.
_SILENT_SECONDS = 60.0


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

    Args:
        place: The results.
        study: Name of the study.
        note: Told once if the state cannot be published; the run goes on without.
    """
    about = {
        "study": study,
        "host": platform.node(),
        "pid": os.getpid(),
        "job": submitted_job(),
    }
    due = 0.0
    failed = False

    def publish(snapshot: Callable[[], Snapshot]) -> None:
        nonlocal due, failed
        now = time.monotonic()
        if failed or now < due:
            return
        due = now + _EVERY_SECONDS[place.is_local]
        state = {**about, "written": time.time(), "snapshot": asdict(snapshot())}
        try:
            place.write(_NAME, json.dumps(state).encode())
        except OSError as error:
            failed = True
            note(f"`status` cannot show this run: {error}")

    try:
        yield publish
    finally:
        try:
            place.delete(_NAME)
        except OSError as error:
            note(f"cannot remove {place}/{_NAME}: {error}")


def read_live(place: Place) -> Live | None:
    """Returns what a driver at work last said; None if there is none.

    Raises:
        StoreError: The place cannot be read, or another version is at work there.
    """
    try:
        found = json.loads(place.read(_NAME))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise place.failure("cannot read", error, "check its permissions", _NAME) from error
    try:
        state = found.pop("snapshot")
        parts = {
            "stages": tuple(map(tuple, state["stages"])),
            "running": tuple(Running(**cell) for cell in state["running"]),
            "failures": tuple(map(tuple, state["failures"])),
        }
        age = max(0.0, time.time() - found.pop("written"))
        return Live(**found, age=age, snapshot=Snapshot(**state | parts))
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{place}/{_NAME} is of another version: {error}", "ask with the version that runs"
        ) from error
