"""The checkpoint that this process keeps loaded from one fine-tune to the next: one at most."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs.cells import Checkpoint
from jobs.frozen import DType
from workers import artifacts
from workers.artifacts import Files
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.supply import Progress
from workers.weight_files import are_pickled


@dataclass(frozen=True)
class Held:
    """A loaded checkpoint, and losses of it that trials share.

    Attributes:
        key: What it is: checkpoint, precision and device.
        loaded: The checkpoint, untouched between trials.
        losses: Its loss on validation examples and on general text, by what those are.
    """

    key: tuple[str, DType, str]
    loaded: LoadedCheckpoint
    losses: dict[tuple[object, ...], tuple[float, float | None]] = field(default_factory=dict)


_held: list[Held] = []


@contextmanager
def holding(
    checkpoint: Checkpoint, dtype: DType, device: str, files: Files, progress: Progress
) -> Iterator[Held]:
    """Gives a checkpoint, loaded unless the last fine-tune left it; it stays if all goes well.

    Raises:
        DataError: It cannot be loaded.
        OSError: It cannot be reached.
    """
    key = (checkpoint.digest, dtype, device)
    held = _held.pop() if _held else None
    if held is None or held.key != key:
        del held  # Before the next one is loaded: both may not fit.
        with (
            artifacts.held(files, checkpoint.source, progress) as weights,
            artifacts.held(files, checkpoint.tokenizer, progress) as tokenizer,
        ):
            pickled = are_pickled(checkpoint.source)
            held = Held(key, load_checkpoint(weights, tokenizer, dtype, device, pickled))
    yield held
    _held.append(held)


def let_go() -> None:
    """Forgets what is held, since something else needs the memory."""
    _held.clear()
