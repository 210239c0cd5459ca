"""The node cache: what a node cannot reach as a folder is fetched into it, file by file.

A file has its name in the cache only once its bytes were those of its SHA-256, so whoever finds it
there finds it whole. Several processes may share a cache; its lock only saves them from fetching
the same thing twice.

    artifacts/<cell>/<manifest's hash>/   artifacts, or those of their files that were needed
    folders/<hash>/, texts/<hash>/        what a study names and this node lacks
    work/<results>/                       artifacts that are being made
    incoming/                             what is being fetched
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import DataError
from workers.manifest import Entry
from workers.tally import count


class NodeCache:
    """The cache folder of a node.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(
        self,
        key: str,
        wanted: Mapping[str, Entry],
        chunks: Callable[[str], Iterator[bytes]],
        origin: str,
        remedy: str,
    ) -> Path:
        """Returns a folder of the cache that holds the wanted files, fetched if need be.

        Args:
            key: Its path in the cache: another one for other contents.
            wanted: The files in it that are needed.
            chunks: Yields the bytes of one of them.
            origin: Where they come from, for messages.
            remedy: What to do if they aren't there, or aren't what they should be.

        Raises:
            DataError: A file is gone, or came twice with other bytes than it should have.
            OSError: It cannot be reached, or the cache cannot be written.
        """
        folder = self.root / key
        lacking = [name for name, entry in wanted.items() if not _is_there(folder / name, entry)]
        count("cache_files", "hit", len(wanted) - len(lacking))
        count("cache_files", "miss", len(lacking))
        if not lacking:
            return folder
        with self._alone("\0".join([key, *sorted(wanted)])) as partial:
            for name, entry in wanted.items():
                # Looked at again: another process may have fetched it while this one waited.
                if _is_there(folder / name, entry):
                    continue
                try:
                    if not any(_copy(chunks(name), partial) == entry.sha256 for _ in range(2)):
                        raise DataError(f"{origin}/{name} is not what was published", remedy)
                except FileNotFoundError as error:
                    raise DataError(f"{origin}/{name} is gone", remedy) from error
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                partial.replace(folder / name)
        return folder

    @contextmanager
    def _alone(self, what: str) -> Iterator[Path]:
        """Gives one process a partial file to fetch into, while others that want the same wait."""
        incoming = self.root / "incoming" / hashlib.sha256(what.encode()).hexdigest()
        incoming.parent.mkdir(parents=True, exist_ok=True)
        with incoming.with_suffix(".lock").open("ab") as lock:
            with naming(incoming):
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield incoming
            finally:
                incoming.unlink(missing_ok=True)


def _is_there(path: Path, entry: Entry) -> bool:
    """Tells whether a file is in the cache; one that lost bytes in a power failure is not."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    return entry.size in (None, size)


def _copy(chunks: Iterable[bytes], target: Path) -> str:
    """Writes a file and returns the SHA-256 of what was written."""
    sha256 = hashlib.sha256()
    with target.open("wb", buffering=0) as file:
        for chunk in chunks:
            count("fetched_bytes", "results", len(chunk))
            sha256.update(chunk)
            view = memoryview(chunk)
            with naming(target):
                while view:
                    view = view[file.write(view) :]
    return sha256.hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the path into errors of system calls that don't know it, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
