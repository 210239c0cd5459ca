"""Where a cell ran and how it ended, by the first letters of its id."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs import layout
from jobs.cells import PRIMARY_TABLES
from jobs.errors import UsageError
from jobs.place import Place
from orchestrator.live import read_live
from orchestrator.progress import duration
from orchestrator.store import Store

_MOST = 20


def logs(place: Place, prefix: str, console: Console) -> dict[str, Any]:
    """Tells where the cells whose ids begin so ran, and what became of them.

    Raises:
        UsageError: No cell's id begins so, or too many do.
        StoreError: The results cannot be read.
    """
    running = list(_running(place, prefix))  # Asked first: such a cell may end meanwhile.
    ended = [*_failed(place, prefix), *_done(place, prefix)]
    ids = {cell["cell_id"] for cell in ended}
    found = [*(cell for cell in running if cell["cell_id"] not in ids), *ended]
    if not found:
        raise UsageError(
            f"no cell whose id begins with '{prefix}' is running, done or failed in {place}",
            "see `status`, or the column cell_id of a table",
        )
    if len(found) > _MOST:
        raise UsageError(f"{len(found)} cells have ids that begin so", "give more of its letters")
    for cell in found:
        about = f"{cell['cell_id']} {cell['what']}: {cell['state']}"
        place_of_it = {name: cell[name] for name in ("node", "log") if cell.get(name)}
        console.print(
            " · ".join([about, *(f"{name} {value}" for name, value in place_of_it.items())]),
            markup=False,
        )
        if cell.get("traceback"):
            console.print(cell["traceback"], markup=False)
    return {"code": 0, "cells": [{k: v for k, v in c.items() if k != "traceback"} for c in found]}


def _running(place: Place, prefix: str) -> Iterator[dict[str, Any]]:
    live = read_live(place)
    for cell in live.snapshot.running if live and not live.silent else ():
        if cell.cell_id.startswith(prefix):
            yield {
                "cell_id": cell.cell_id,
                "what": cell.label,
                "state": f"running for {duration(cell.seconds)}",
                "node": cell.node,
            }


def _failed(place: Place, prefix: str) -> Iterator[dict[str, Any]]:
    for cell_id, row in Store(place, write=False).ledger().failed.items():
        if cell_id.startswith(prefix):
            records = _provenance(place, layout.own_file("failures", cell_id), cell_id)
            yield {
                "cell_id": cell_id,
                "what": row["kind"],
                "state": f"failed ({row['cause']}) after {row['attempts']} attempts: "
                f"{row['message']}",
                "traceback": row["traceback"],
                **_where(records.get(cell_id, {})),
            }


def _done(place: Place, prefix: str) -> Iterator[dict[str, Any]]:
    for table in PRIMARY_TABLES:
        own, merged = layout.divided(place.names(table))
        records: dict[str, dict[str, Any]] = {}
        for name in merged:
            records |= _provenance(place, f"{table}/{name}", None)
        for cell_id, name in own.items():
            if cell_id.startswith(prefix):
                records |= _provenance(place, f"{table}/{name}", cell_id)
        for cell_id, record in records.items():
            if cell_id.startswith(prefix):
                took = f" in {record['seconds']:.1f} s" if "seconds" in record else ""
                where = _where(record)
                yield {"cell_id": cell_id, "what": table, "state": f"done{took}", **where}


def _where(record: dict[str, Any]) -> dict[str, Any]:
    node = record.get("node")
    pid = f" pid {record['pid']}" if "pid" in record else ""
    return {"node": f"{node}{pid}", "log": record.get("log")} if node else {}


def _provenance(place: Place, name: str, cell_id: str | None) -> dict[str, dict[str, Any]]:
    try:
        with place.filesystem.open_input_file(place.within(name)) as file:
            return layout.unpack(pq.read_metadata(file).metadata or {}, cell_id)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise layout.unreadable(place, name, error) from error
