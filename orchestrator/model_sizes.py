"""How large a checkpoint's model is, before its weights are here. No weight is read.

Known exactly for models that are pretrained here and for those of which a checkpoint was recorded;
else taken from the bytes of the weights, and then assumed.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jobs.cells import Cell, Checkpoint
from jobs.frozen import DType
from jobs.sizes import readable_size
from jobs.sources import Folder, HubFolder, Produced
from jobs.work import CorpusWork, PretrainWork
from orchestrator.hardware import Processor

_WEIGHTS = (".safetensors", ".bin")
_NOMINAL = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
# Where a name says no size: most published weights are in half precision. In float32 they have half
# the parameters that are assumed here.
_USUAL_BYTES = 2
# The vocabulary of GPT-NeoX; and the usual depth, one block for every 128 of the width.
_USUAL_ROWS = 50304
_WIDTH_PER_LAYER = 128
_SHOWN = 6
_WIDTHS = range(32, 65536, 32)


@dataclass(frozen=True)
class ModelSize:
    """How large a model is.

    Attributes:
        parameters: All parameters.
        width: Width d of the residual stream.
        layers: Transformer blocks.
        rows: Rows V of the output embedding.
        tied: Whether the input embedding is the output embedding.
        weight_bytes: Size of its weight files.
        known: Whether this is known, not assumed from the size of the weights.
    """

    parameters: int
    width: int
    layers: int
    rows: int
    tied: bool
    weight_bytes: int
    known: bool

    @property
    def body(self) -> int:
        """Parameters besides the embeddings."""
        return max(0, self.parameters - (1 if self.tied else 2) * self.rows * self.width)


class ModelSizes:
    """Sizes of the models of a plan's checkpoints.

    Args:
        cells: The cells of the plan.
        recorded: Rows of table `checkpoints` by suite and model, of any of its checkpoints.
    """

    def __init__(
        self,
        cells: tuple[Cell, ...],
        recorded: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._recorded = recorded or {}
        corpora = {c.id: c.work.corpus for c in cells if isinstance(c.work, CorpusWork)}
        self._trained = {
            cell.id: pretrained_size(cell.work, corpora[cell.work.corpus].vocabulary_size)
            for cell in cells
            if isinstance(cell.work, PretrainWork)
        }
        self._sizes: dict[tuple[str, str, int], ModelSize] = {}
        self._of: dict[int, tuple[Checkpoint, ModelSize]] = {}

    def trained(self, cell_id: str) -> ModelSize:
        """Returns the size of the model that a cell trains."""
        return self._trained[cell_id]

    def of(self, checkpoint: Checkpoint) -> ModelSize:
        """Returns the size of a checkpoint's model: one object for models of one size."""
        # By its place in memory, since a checkpoint with many files takes long to hash.
        if id(checkpoint) not in self._of:
            self._of[id(checkpoint)] = checkpoint, self._found(checkpoint)
        return self._of[id(checkpoint)][1]

    def _found(self, checkpoint: Checkpoint) -> ModelSize:
        source = checkpoint.source
        if isinstance(source, Produced) and source.cell_id in self._trained:
            return self._trained[source.cell_id]
        key = checkpoint.suite, checkpoint.model, weight_bytes(source)
        if key not in self._sizes:
            self._sizes[key] = self._estimated(*key, f"{_place(source)} {checkpoint.model}")
        return self._sizes[key]

    def _estimated(self, suite: str, model: str, size: int, named: str) -> ModelSize:
        row = self._recorded.get((suite, model))
        if row is None:
            return assumed_size(size, named)
        return ModelSize(
            parameters=int(row["n_parameters"]),
            width=int(row["d"]),
            layers=int(row["n_layers"]),
            rows=int(row["head_rows"]),
            tied=bool(row["tied"]),
            weight_bytes=size or int(row["weight_bytes"]),
            known=True,
        )


def pretrained_size(work: PretrainWork, rows: int) -> ModelSize:
    """Returns the size of a pico model: GPT-NeoX with biases, untied, saved in float32."""
    width, layers = work.model.hidden_size, work.model.layers
    # A block has 12 d² in its matrices, 9 d biases, and two norms of a gain and a bias each.
    parameters = 2 * rows * width + layers * (12 * width**2 + 13 * width) + 2 * width
    return ModelSize(parameters, width, layers, rows, False, 4 * parameters, known=True)


@cache
def assumed_size(size: int, named: str) -> ModelSize:
    """Returns the size of a model that has weights of so many bytes.

    The name tells the precision: a "1B" of 5.9 GB is stored in float32. Width and depth are those
    of a GPT-NeoX of as many parameters.

    Args:
        size: Bytes of its weight files.
        named: Its repository or folder and its name.
    """
    stored = _USUAL_BYTES
    if found := _NOMINAL.search(named):
        nominal = float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()]
        stored = min((2, 4), key=lambda width: abs(size / max(nominal, 1.0) - width))
    parameters = size // stored
    width = _WIDTHS[min(bisect_left(_WIDTHS, parameters, key=_parameters), len(_WIDTHS) - 1)]
    layers = max(1, round(width / _WIDTH_PER_LAYER))
    rows = min(_USUAL_ROWS, max(1, parameters // (2 * width)))
    return ModelSize(parameters, width, layers, rows, False, size, known=False)


def weight_bytes(source: Folder | HubFolder | Produced) -> int:
    """Returns the bytes of a source's weight files; 0 where they aren't there yet."""
    match source:
        case HubFolder():
            return sum(file.size for file in source.files if file.path.endswith(_WEIGHTS))
        case Folder(path, files):
            found = [Path(path, name) for name, _ in files if name.endswith(_WEIGHTS)]
            return sum(file.stat().st_size for file in found if file.is_file())
        case Produced():
            return 0


def size_notes(
    checkpoints: Iterable[Checkpoint], sizes: ModelSizes, processor: Processor, dtype: DType
) -> Iterator[str]:
    """Says which sizes are assumed, and which models don't fit a GPU."""
    models = {(about.model, sizes.of(about)) for about in checkpoints}
    found = sorted(models, key=lambda pair: (pair[1].parameters, pair[0]))
    assumed = [f"{name} {_billions(size)}" for name, size in found if not size.known]
    if assumed:
        more = f" and {len(assumed) - _SHOWN} more" if len(assumed) > _SHOWN else ""
        shown = ", ".join(assumed[:_SHOWN])
        yield f"parameters assumed from the bytes of the weights: {shown}{more}"
    for name, size in found:
        needed = size.parameters * (4 if dtype == "float32" else 2)
        if processor.memory is not None and needed > processor.memory:
            memory = f"more than the {readable_size(processor.memory)} of a {processor.name}"
            yield f"{name} takes {readable_size(needed)} in {dtype}, {memory}"


def _billions(size: ModelSize) -> str:
    return f"{size.parameters / 1e9:.2g} billion"


def _place(source: Folder | HubFolder | Produced) -> str:
    match source:
        case HubFolder():
            return source.repository
        case Folder():
            return Path(source.path).name
        case Produced():
            return ""


def _parameters(width: int) -> int:
    return 2 * _USUAL_ROWS * width + 12 * width**3 // _WIDTH_PER_LAYER
