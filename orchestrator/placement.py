"""What kind of worker each group of cells needs: none of a GPU, a share of one, one, or several.

A seat is a kind of worker. Large models get a GPU that holds them, small ones share; work that no
GPU can help waits for none, so that the machines with GPUs can go.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.cells import Cell
from jobs.finetune_work import FinetuneWork
from jobs.posttrain_work import PassKWork, PosttrainWork, SampleWork
from jobs.toy_work import ToyWork
from jobs.winrate_spec import EndpointJudge
from jobs.winrate_work import WinrateWork
from jobs.work import gpus, precision
from orchestrator.model_sizes import ModelSizes

SHARES = (0.25, 0.5, 1.0)
"""Shares of a GPU that a worker may have."""

_ACTIVATIONS_BYTES = 4 * 10**9
_MARGIN = 1.3  # Of the weights: buffers, fragments, a copy of the head in float32.
_TRAINED_BYTES = 16  # Of a parameter: float32 weight, its gradient, and AdamW's two moments.


@dataclass(frozen=True)
class Seat:
    """A kind of worker.

    Attributes:
        name: Its name; what scheduler and executor know it by.
        gpus: GPUs of each such worker, or the share that it has of one.
        most: How many of them the cluster could hold at a time.
        kind: What Ray calls the GPUs that it must have; empty where any will do.
    """

    name: str
    gpus: float
    most: int
    kind: str = ""


@dataclass(frozen=True)
class GpuKind:
    """GPUs of one kind that a cluster has or could start.

    Attributes:
        name: What Ray calls them; empty where it doesn't tell.
        count: How many.
        in_a_node: Most of them that share a node.
        memory: Bytes of each; None where that isn't known.
    """

    name: str
    count: int
    in_a_node: int
    memory: int | None


def place(
    cells: Iterable[Cell], sizes: ModelSizes, kinds: tuple[GpuKind, ...], most_on_cpus: int
) -> tuple[dict[str, Seat], dict[str, str]]:
    """Returns the seats that cells need, and the name of the seat of each group of cells.

    Args:
        cells: What is left to do.
        sizes: How large the models are.
        kinds: The GPUs that there are or could be.
        most_on_cpus: How many workers without a GPU there may be.
    """
    needs: dict[str, _Need] = {}
    for cell in cells:
        needs[cell.group] = needs.get(cell.group, _Need(0, 0)).beside(_need(cell, sizes))
    seats: dict[str, Seat] = {}
    of_group: dict[str, str] = {}
    for group, need in needs.items():
        seat = _seat(need, kinds, most_on_cpus)
        seats[seat.name] = seat
        of_group[group] = seat.name
    return seats, of_group


@dataclass(frozen=True)
class _Need:
    """What a worker must have.

    Attributes:
        gpus: How many GPUs.
        size: Bytes of each.
        whole: Whether it fills a GPU whatever it has.
    """

    gpus: int
    size: int
    whole: bool = False

    def beside(self, other: "_Need") -> "_Need":
        """Returns what does for both."""
        whole = self.whole or other.whole
        return _Need(max(self.gpus, other.gpus), max(self.size, other.size), whole)


def _need(cell: Cell, sizes: ModelSizes) -> _Need:
    work = cell.work
    if isinstance(work, PassKWork | ToyWork):
        return _Need(0, 0)
    if isinstance(work, WinrateWork):
        asks = isinstance(work.judge, EndpointJudge)
        return _Need(0, 0) if asks else _Need(1, _ACTIVATIONS_BYTES)
    if cell.checkpoint is None:
        return _Need(1, _ACTIVATIONS_BYTES) if work.kind == "pretrain" else _Need(0, 0)
    parameters, together = sizes.of(cell.checkpoint).parameters, gpus(work)
    if isinstance(work, PosttrainWork):
        trained = parameters * (_TRAINED_BYTES if work.training.adapters is None else 4)
        return _Need(together, int(_MARGIN * trained / together) + _ACTIVATIONS_BYTES)
    stored = 2 if precision(work) in ("float16", "bfloat16") else 4
    copies = 2 if isinstance(work, FinetuneWork) else 1  # One is changed, one stays as it was.
    size = int(_MARGIN * copies * stored * parameters / together) + _ACTIVATIONS_BYTES
    # An engine takes what is left of a GPU for its cache.
    return _Need(together, size, whole=isinstance(work, SampleWork))


def _seat(need: _Need, kinds: tuple[GpuKind, ...], most_on_cpus: int) -> Seat:
    gpus, size = need.gpus, need.size
    if not gpus:
        return Seat("without a GPU", 0, most_on_cpus)
    known = sorted((k for k in kinds if k.memory), key=lambda k: k.memory or 0)
    fitting = [k for k in known if (k.memory or 0) >= size] or known[-1:]
    # Where the smallest holds it, any will do.
    anywhere = len(fitting) == len(known) or not known
    usable = kinds if anywhere else tuple(fitting[:1])
    kind = "" if anywhere else fitting[0].name
    share = float(gpus)
    if gpus == 1 and known and not need.whole:
        memory = fitting[0].memory or 0
        share = next((s for s in SHARES if s * memory >= size), 1.0)
    each = int(1 / share) if share < 1 else 1
    count = sum(k.count for k in usable)
    most = max(1, count * each if share <= 1 else count // gpus)
    plural = "" if share <= 1 else "s"
    return Seat(f"{share:g} {kind or 'GPU'}{plural}", share, most, kind)
