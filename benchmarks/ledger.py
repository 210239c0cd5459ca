"""The ledger of 100,000 done cells: what a command waits for before it knows what is left."""

import hashlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.limits import Figure, alone, median_of
from jobs.cells import Cell, Checkpoint
from jobs.columns import KEYS
from jobs.events import Finished
from jobs.records import TABLES, rows_table
from jobs.sources import Produced
from jobs.work import CheckpointWork, GeometryWork, HeadWork, LossWork, Work
from orchestrator.store import Store

_CELLS = 100_000
_LISTED = 64
_ROUNDS = 3
_WORKS: tuple[Work, ...] = (
    CheckpointWork(),
    GeometryWork("words", "0" * 64, "last", "float32"),
    HeadWork("words", "0" * 64, 20, False),
    LossWork("words", "0" * 64, "float32"),
)
_CHECKPOINT = Checkpoint(
    *("suite", "model", "step1000", 1000, None, "pretrain"),
    source=Produced("0" * 64, "step1000"),
    tokenizer=Produced("1" * 64, "tokenizer"),
)
_PROVENANCE = {
    "code_version": "0.1.0",
    "libraries": dict.fromkeys(("torch", "transformers", "numpy", "pyarrow"), "1.2.3"),
    "python": "3.11.2",
    "machine": "x86_64",
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "seconds": 1.5,
}


def figures() -> list[Figure]:
    """Seconds to read the ledger, one file per cell and compacted."""
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        begin = time.perf_counter()
        _write_cells(Path(folder) / "results")
        built = time.perf_counter() - begin
        what = f"ledger of {_CELLS:,} done cells"
        return [
            Figure(f"{what}: building it, unflushed", built, "s"),
            median_of(f"{what}: one file per cell", _reads(folder), "s", "≤ 5"),
            Figure(f"{what}: compacting it", alone(_compact, folder), "s"),
            median_of(f"{what}: compacted", _reads(folder), "s", "≤ 5"),
        ]


def _write_cells(results: Path) -> None:
    """Commits one cell of each kind, and copies its file under other ids.

    Committing takes 2 ms a cell. Without compression a cell's id stands in its file as it is, in
    the values and in their statistics, so a copy with another id is a whole file of another cell.
    """
    store = Store(results)
    for number, work in enumerate(_WORKS):
        cell = Cell(work, checkpoint=_CHECKPOINT)
        store.commit(cell, Finished(cell.id, ((work.table, _rows(work.table)),), _PROVENANCE))
        path = results / work.table / f"{cell.id}.parquet"
        plain = pa.BufferOutputStream()
        pq.write_table(pq.read_table(path, partitioning=None), plain, compression="none")
        content = plain.getvalue().to_pybytes()
        for place in range(_CELLS // len(_WORKS) - 1):
            other = hashlib.sha256(f"{number} {place}".encode()).hexdigest()
            copy = content.replace(cell.id.encode(), other.encode())
            path.with_name(f"{other}.parquet").write_bytes(copy)
        if pq.read_table(path.with_name(f"{other}.parquet"))["cell_id"].to_pylist() != [other]:
            raise RuntimeError("a copied file keeps the id of its original")


def _rows(table: str) -> pa.Table:
    """Returns one row with a value in every column but the keys."""
    values = {pa.int64(): 1, pa.float64(): 0.5, pa.bool_(): True, pa.string(): "text"}
    row: dict[str, object] = {}
    for field in list(TABLES[table])[len(KEYS) :]:
        if pa.types.is_list(field.type):
            row[field.name] = [values.get(field.type.value_type, 1)] * _LISTED
        elif field.type in values:
            row[field.name] = values[field.type]
    return rows_table(table, [row])


def _reads(folder: str) -> list[float]:
    return [alone(_read_ledger, folder) for _ in range(_ROUNDS)]


def _read_ledger(folder: str) -> float:
    store = Store(Path(folder) / "results", write=False)
    begin = time.perf_counter()
    found = len(store.ledger().done)
    seconds = time.perf_counter() - begin
    if found != _CELLS:
        raise RuntimeError(f"{found} of {_CELLS} cells are done")
    return seconds


def _compact(folder: str) -> float:
    from orchestrator.compact import compact

    begin = time.perf_counter()
    compact(Store(Path(folder) / "results"), lambda _done, _total: None)
    return time.perf_counter() - begin
