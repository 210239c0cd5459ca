"""What other processes do with a cache in tests. It imports little, so that they start quickly."""

import fcntl
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.sources import HubFolder
from workers import disk, network
from workers.disk import INCOMPLETE, LEDGER, Disk
from workers.supply import HubCache

BUDGET = 100
SIZES = {"a/1": 60, "a/2": 40, "a/3": 30, "b/4": 30, "b/5": 20, "b/6": 10, "7": 5, "8": 0}
"""Entries of several sizes, and a budget that not all of them fit into."""


def put(root: Path, key: str, size: int) -> Path:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def files_in_cache(root: Path) -> Iterator[Path]:
    """Yields all files but those of the ledger."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and LEDGER not in path.parts:
            yield path


def bytes_in_cache(root: Path) -> int:
    """Returns the bytes of all files but the ledger's, each once though it be renamed meanwhile."""
    sizes: dict[Path, int] = {}
    for path in list(files_in_cache(root)):
        whole = path.with_name(path.name.removesuffix(INCOMPLETE))
        # A list that is read while a file gets its name may hold it under both.
        sizes[whole] = size_of_either(whole)
    return sum(sizes.values())


def size_of_either(whole: Path) -> int:
    """Returns the size of a file that is finished, or being written."""
    for path in (whole.with_name(whole.name + INCOMPLETE), whole):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def hold_for_ever(root: Path, told: Path) -> None:
    """Reserves an entry and writes a part of it."""
    with Disk(root, BUDGET).holder() as holder:
        Disk(root, BUDGET).reserve({"a/1": 60}, holder)
        put(root, "a/1" + INCOMPLETE, 10)
        told.touch()
        time.sleep(600)


@contextmanager
def _turn(root: Path, key: str) -> Iterator[None]:
    """Lets one process at a time write an entry that several have pinned, as downloads do."""
    with (root / LEDGER / f"turn-{key.replace('/', '-')}").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def churn(root: Path, seed: int) -> None:
    """Reserves and writes entries at random; seed 0 ends by being killed while it holds."""
    disk._POLL_SECONDS = 0.01
    generator = random.Random(seed)
    for turn in range(20):
        wanted = dict(generator.sample(sorted(SIZES.items()), 2))
        with Disk(root, BUDGET).holder() as holder:
            Disk(root, BUDGET).reserve(wanted, holder)
            for key, size in wanted.items():
                with _turn(root, key):
                    if not (root / key).exists():
                        put(root, key + INCOMPLETE, size).rename(root / key)
            if (seed, turn) == (0, 10):
                os.kill(os.getpid(), signal.SIGKILL)
            assert all(size_of(root / key) == size for key, size in wanted.items())


def hold_each(root: Path, budget: int | None, sources: list[HubFolder], times: int) -> None:
    """Holds files of the hub, one source after the other."""
    disk._POLL_SECONDS = network._POLL_SECONDS = 0.01
    for _ in range(times):
        for wanted in sources:
            with HubCache(root, budget).hold(wanted, lambda _done, _total: None) as folder:
                sizes = {file.path: size_of(folder / file.path) for file in wanted.files}
            assert sizes == {file.path: file.size for file in wanted.files}
