"""What cells fetch from the hub: each content counts once, under whatever name it is read."""

from collections import defaultdict
from collections.abc import Iterable

from jobs.capability_work import ChatsWork
from jobs.cells import Cell
from jobs.errors import UsageError
from jobs.sizes import readable_size
from jobs.sources import HubFile, HubFolder
from jobs.work import SequencesWork


class Downloads:
    """Bytes that cells read from the hub."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._seen: set[int] = set()
        self._groups: set[str | int] = set()
        self._sizes: dict[str | int, int] = defaultdict(int)
        self._total = 0

    def add(self, cell: Cell, group: str | int) -> int:
        """Takes note of what a cell reads from the hub.

        Args:
            cell: The cell.
            group: What tells apart cells that read the same.

        Returns:
            The bytes that no cell has read before.
        """
        if cell.checkpoint is not None:
            if group in self._groups:
                return 0
            self._groups.add(group)
            sources = [cell.checkpoint.source, cell.checkpoint.tokenizer]
        else:
            sources = (
                [cell.work.tokenizer] if isinstance(cell.work, SequencesWork | ChatsWork) else []
            )
        new = 0
        for source in sources:
            if isinstance(source, HubFolder):
                self._sizes[group] += source.size
                if id(source) not in self._seen:  # Most checkpoints share the tokenizer's object.
                    self._seen.add(id(source))
                    new += sum(self._fetched(file) for file in source.files)
        self._total += new
        return new

    @property
    def largest(self) -> int:
        """Bytes of the largest checkpoint."""
        return max(self._sizes.values(), default=0)

    def most_at_once(self, count: int) -> int:
        """Returns the most bytes that so many checkpoints have."""
        largest = sorted(self._sizes.values(), reverse=True)[:count]
        return min(sum(largest), self._total)

    def _fetched(self, file: HubFile) -> int:
        content = file.sha256 or file.oid
        if content in self._files:
            return 0
        self._files.add(content)
        return file.size


def check_budget(cells: Iterable[Cell], budget: int) -> None:
    """Refuses a disk budget that some checkpoint doesn't fit in.

    Raises:
        UsageError: There is one; the message names the largest.
    """
    checkpoints = (cell.checkpoint for cell in cells if cell.checkpoint is not None)
    sizes = [
        (sum(s.size for s in (found.source, found.tokenizer) if isinstance(s, HubFolder)), found)
        for found in checkpoints
    ]
    size, largest = max(sizes, key=lambda pair: pair[0], default=(0, None))
    if largest is not None and size > budget:
        raise UsageError(
            f"--disk-budget {readable_size(budget)} has no room for {largest.label} "
            f"({readable_size(size)})",
            f"give at least {readable_size(3 * size)}: the next two are fetched ahead",
        )
