"""Files of the hub on this node."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.work import HubFolder

Progress = Callable[[int, int], None]
"""Told how much of how much is done."""


class HubCache:
    """The node cache's part for files of the hub.

    Args:
        cache: The cache folder.
        budget: Most bytes of it.
    """

    def __init__(self, cache: Path, budget: int | None = None) -> None:
        self._folder, self._budget = cache / "hub", budget

    @contextmanager
    def hold(self, source: HubFolder, progress: Progress) -> Iterator[Path]:
        """Gives a folder with the files, fetched if need be; it stays until the block ends."""
        from huggingface_hub import hf_hub_download

        done = 0
        path = self._folder
        for file in source.files:
            path = Path(
                hf_hub_download(
                    source.repository, file.path, revision=source.commit, cache_dir=self._folder
                )
            )
            done += file.size
            progress(done, source.size)
        yield path.parent

    def prefetch(self, source: HubFolder) -> bool:
        """Fetches files that will be needed, if the disk budget has room for them now."""
        with self.hold(source, lambda _done, _total: None):
            return True
