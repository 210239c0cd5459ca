"""What finished cells took: read from the results, never from more than a sample of their files.

A rate is measured by estimated seconds: 1.3 means that a part takes 1.3 times what its FLOPs say.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import layout
from jobs.cells import Cell
from jobs.place import Place
from jobs.sources import Produced
from jobs.work import GeometryWork, LossWork
from orchestrator.costs import Costs, Part
from orchestrator.hardware import Processor, cpu, device_key

_SAMPLE = 8
_CONNECTIONS = 16
_SIZES = ("n_parameters", "d", "n_layers", "head_rows", "tied", "weight_bytes")
# Kinds whose shared part is known from another kind come after it.
_ORDER = (
    "corpus",
    "pretrain",
    "sequences",
    "index",
    "infinigram",
    "checkpoint",
    "loss",
    "head",
    "geometry",
    "eval",
    "ablation",
    "memorization",
    "generate",
    "sensitivity",
    "finetune",
    "posttrain",
    "sample",
    "passk",
    "respond",
    "winrate",
)
# What is left of a cell when the usual seconds of its shared parts are taken away is at least this.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Measurement:
    """What a finished cell took.

    Attributes:
        cell: The cell.
        threads: CPU threads that it had.
        seconds: Seconds, those of shared parts included.
    """

    cell: Cell
    threads: int
    seconds: float


class Rates:
    """Measured rates of parts, each from the model that is nearest in size."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._known: dict[str, tuple[list[float], list[float]]] = {}

    def add(self, part: Part, seconds: float) -> None:
        """Takes note that a part took so many seconds."""
        self._seen[part.name][part.seconds].append(seconds / part.seconds)
        self._known.pop(part.name, None)

    def rate(self, part: Part) -> float | None:
        """Returns the rate of parts of that name and about that size; None where none is known."""
        if part.name not in self._seen:
            return None
        if part.name not in self._known:
            seen = sorted(self._seen[part.name].items())
            sizes = [math.log(seconds) for seconds, _ in seen]
            self._known[part.name] = sizes, [median(rates) for _, rates in seen]
        sizes, rates = self._known[part.name]
        size = math.log(part.seconds)
        place = bisect_left(sizes, size)
        near = range(max(0, place - 1), min(len(sizes), place + 1))
        return rates[min(near, key=lambda index: abs(sizes[index] - size))]


def measured_rates(
    place: Place, cells: Sequence[Cell], done: Collection[str], costs: Costs, processor: Processor
) -> Rates:
    """Returns what parts took on a processor, where finished cells of a plan tell.

    Raises:
        StoreError: The results cannot be read.
    """
    rates = Rates()
    found = _measurements(place, _sampled(cells, done), processor)
    for kind in _ORDER:
        for one in found.get(kind, ()):
            own = processor if processor.memory is not None else _cpu(one.threads)
            _learn(rates, costs.recorded(one.cell, own), one.seconds)
    return rates


def recorded_sizes(
    place: Place, cells: Sequence[Cell], done: Collection[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns a row of table `checkpoints` by suite and model, for models that aren't made here.

    Raises:
        StoreError: The results cannot be read.
    """
    chosen: dict[tuple[str, str], str] = {}
    for cell in cells:
        about = cell.checkpoint
        if cell.work.kind != "checkpoint" or about is None or cell.id not in done:
            continue
        if not isinstance(about.source, Produced):
            chosen.setdefault((about.suite, about.model), cell.id)
    if not chosen:
        return {}
    rows: dict[str, dict[str, Any]] = {}
    for cell_id in chosen.values():
        rows |= _size_rows(place, layout.own_file("checkpoints", cell_id))
    if not rows.keys() >= set(chosen.values()):
        for name in _merged(place, "checkpoints"):
            rows |= _size_rows(place, f"checkpoints/{name}")
    return {model: rows[cell_id] for model, cell_id in chosen.items() if cell_id in rows}


def _learn(rates: Rates, parts: tuple[Part, ...], seconds: float) -> None:
    """Divides a cell's seconds among its parts: to shared ones what they usually take."""
    *shared, own = parts
    usual = [rates.rate(part) for part in shared]
    if None in usual:
        whole = sum(part.seconds for part in parts)
        for part in parts:
            rates.add(part, seconds * part.seconds / whole)
        return
    taken = sum(part.seconds * (rate or 0.0) for part, rate in zip(shared, usual, strict=True))
    rates.add(own, max(seconds - taken, _LEAST_SHARE * seconds))


def _sampled(cells: Iterable[Cell], done: Collection[str]) -> list[Cell]:
    """Returns a few finished cells of each kind, model and text, spread over the plan."""
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.id in done:
            about = cell.checkpoint
            model = (cell.suite, cell.model) if about is None else (about.suite, about.model)
            text = cell.work.dataset if isinstance(cell.work, GeometryWork | LossWork) else ""
            groups[cell.work.kind, *model, text].append(cell)
    chosen: list[Cell] = []
    for group in groups.values():
        chosen += group[:: -(-len(group) // _SAMPLE)]
    return chosen


def _measurements(
    place: Place, cells: Sequence[Cell], processor: Processor
) -> dict[str, list[Measurement]]:
    """Returns what cells took on a processor, by kind."""
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        records = list(threads.map(lambda cell: _own_record(place, cell), cells))
    tables = {c.work.table for c, record in zip(cells, records, strict=True) if record is None}
    merged = {table: _merged_records(place, table) for table in sorted(tables)}
    found: dict[str, list[Measurement]] = defaultdict(list)
    for cell, own in zip(cells, records, strict=True):
        record = merged[cell.work.table].get(cell.id, {}) if own is None else own
        seconds = float(record.get("seconds") or 0)
        if seconds > 0 and device_key(str(record.get("device"))) == processor.name:
            threads_used = int(record.get("threads") or 1)
            found[cell.work.kind].append(Measurement(cell, threads_used, seconds))
    return found


def _own_record(place: Place, cell: Cell) -> dict[str, Any] | None:
    """Returns the provenance of a cell's own file; None if its rows were merged with others."""
    found = _metadata(place, layout.own_file(cell.work.table, cell.id), cell.id)
    return None if found is None else found.get(cell.id, {})


def _merged_records(place: Place, table: str) -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for name in _merged(place, table):
        records |= _metadata(place, f"{table}/{name}", None) or {}
    return records


def _metadata(place: Place, name: str, cell_id: str | None) -> dict[str, dict[str, Any]] | None:
    try:
        metadata = pq.read_metadata(place.within(name), filesystem=place.filesystem).metadata
        return layout.unpack(metadata or {}, cell_id)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise layout.unreadable(place, name, error) from error


def _size_rows(place: Place, name: str) -> dict[str, dict[str, Any]]:
    """Returns the rows of a file of table `checkpoints` by cell; none if `compact` removed it."""
    try:
        path = place.within(name)
        columns = ["cell_id", *_SIZES]
        # With partitioning, a folder such as `run=3` above the results would become a column.
        read = pq.read_table(path, columns=columns, filesystem=place.filesystem, partitioning=None)
    except FileNotFoundError:
        return {}
    except (OSError, pa.ArrowException) as error:
        raise layout.unreadable(place, name, error) from error
    return {row["cell_id"]: row for row in read.to_pylist()}


def _merged(place: Place, table: str) -> list[str]:
    try:
        return layout.divided(place.names(table))[1]
    except (OSError, pa.ArrowException) as error:
        raise layout.unreadable(place, table, error) from error


_cpu = cache(cpu)
