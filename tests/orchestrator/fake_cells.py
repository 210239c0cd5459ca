"""Cells of the real classes that nobody runs: a scheduler looks only at ids, needs and groups."""

from collections.abc import Iterator

from jobs.cells import Cell, Checkpoint
from jobs.sources import HubFile, HubFolder, Produced, Source, TextFiles
from jobs.text_spec import LocalText
from jobs.work import HeadWork, LossWork, SequencesWork

_TEXT = TextFiles((("/text.txt", "0" * 64),), "text", "\n\n")
_DRAW = LocalText(paths=("/text.txt",))


def measuring(number: int, group: int, needs: tuple[str, ...] = (), hub: bool = False) -> Cell:
    """Returns a cell that measures a loss of checkpoint `group`; `number` tells it from others."""
    return Cell(LossWork("words", str(number), "float32"), needs, _checkpoint(group, hub))


def heading(number: int, group: int, needs: tuple[str, ...] = (), hub: bool = False) -> Cell:
    """Returns a cell of another kind that measures checkpoint `group`."""
    work = HeadWork(None, None, number, drop_zero_rows=False)
    return Cell(work, needs, _checkpoint(group, hub))


def weights(group: int) -> HubFolder:
    """Returns the files on the hub of checkpoint `group`."""
    sha256 = f"{group:064}"
    files = (HubFile("model.safetensors", 1000, sha256[:40], sha256),)
    return HubFolder("somebody/model", f"{group:040}", files)


def _checkpoint(group: int, hub: bool) -> Checkpoint:
    source: Source = weights(group) if hub else Produced("training", f"step{group}")
    return Checkpoint(
        suite="suite",
        model="model",
        revision=f"step{group}",
        step=group,
        tokens=None,
        stage="pretrain",
        source=source,
        tokenizer=Produced("corpus", "tokenizer"),
    )


def making(number: int, needs: tuple[str, ...] = ()) -> Cell:
    """Returns a cell that stands alone and that others may need."""
    work = SequencesWork(f"words{number}", _TEXT, _DRAW, Produced(str(number), "tokenizer"))
    return Cell(work, needs, suite="suite")


def large_plan(checkpoints: int, cells_each: int) -> Iterator[Cell]:
    """Yields one cell that all need, ten that need it, and the measurements of checkpoints."""
    first = making(0)
    yield first
    trainings = [making(1 + number, (first.id,)) for number in range(10)]
    yield from trainings
    for group in range(checkpoints):
        needs = (trainings[group % 10].id, first.id)
        for number in range(cells_each):
            yield measuring(number, group, needs)
