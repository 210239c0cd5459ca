"""An estimate for people and for tools. Every number says what it rests on."""

from dataclasses import dataclass
from typing import Any, get_args

from jobs.sizes import readable_size
from jobs.work import StageName
from orchestrator.estimate import Estimate, StageEstimate
from orchestrator.progress import duration

_BASIS = {
    "measured": "measured",
    "assumed": "assumed, from FLOPs",
    "mixed": "part measured, part assumed from FLOPs",
}
_HEADERS = ("stage", "cells", "download", "peak disk", "hours", "cost", "hours are")
_COST = _HEADERS.index("cost")


@dataclass(frozen=True)
class Terms:
    """What the user gave for an estimate.

    Attributes:
        price: Price of a GPU hour, in any currency; None where none was given.
        bandwidth_given: Whether the bandwidth was given.
        machines_given: Whether the machines were named; otherwise they are this one's.
    """

    price: float | None = None
    bandwidth_given: bool = False
    machines_given: bool = False


def estimate_lines(found: Estimate, terms: Terms) -> list[str]:
    """Returns an estimate line by line: a table by stage, and what it means on the clock."""
    if not found.cells:
        return ["nothing is left to do"]
    machines = found.machines
    here = "" if terms.machines_given else ", as this machine has (others: --gpus and --gpu-type)"
    hours = "GPU hours" if machines.gpus else "worker hours"
    line = f"{readable_size(found.bandwidth)}/s for each node"
    return [
        f"estimate for {machines.label}{here}",
        *_table(found, terms),
        "peak disk is what the stage needs of a node's cache, and what it adds to the results",
        f"hours are {hours}; a load or a pass that stages share counts in the first of them",
        f"on the clock: about {brief(found)}: computing {duration(found.compute_seconds)}, "
        f"downloading {duration(found.transfer_seconds)} at {line} "
        f"({'given' if terms.bandwidth_given else 'assumed'}), side by side",
        *_cost_lines(found, terms),
        f"disk: {readable_size(found.peak_disk_bytes)} of each node's cache at most for files of "
        "the hub (known from their sizes), "
        f"{readable_size(found.artifact_bytes)} of artifacts in the results (from parameters)",
        *found.notes,
    ]


def estimate_json(found: Estimate, terms: Terms) -> dict[str, Any]:
    """Returns an estimate for tools."""
    gpus = found.machines.gpus
    return {
        "machines": found.machines.label,
        "workers": found.machines.workers,
        "nodes": found.machines.nodes,
        "gpus": gpus,
        "basis": found.basis,
        "cells": found.cells,
        "download_bytes": found.download_bytes,
        "hours": _hours(found.work_seconds),
        "gpu_hours": _hours(found.work_seconds) if gpus else None,
        "cost": _cost(found.work_seconds, terms),
        "cost_held": _cost(found.seconds * gpus, terms),
        "seconds": round(found.seconds, 1),
        "compute_seconds": round(found.compute_seconds, 1),
        "transfer_seconds": round(found.transfer_seconds, 1),
        "bandwidth": found.bandwidth,
        "bandwidth_basis": "given" if terms.bandwidth_given else "assumed",
        "peak_disk_bytes": found.peak_disk_bytes,
        "artifact_bytes": found.artifact_bytes,
        "notes": list(found.notes),
        "by_stage": {
            name: {
                "cells": stage.cells,
                "download_bytes": stage.download_bytes,
                "peak_disk_bytes": stage.peak_disk_bytes,
                "artifact_bytes": stage.artifact_bytes,
                "hours": _hours(stage.seconds),
                "cost": _cost(stage.seconds, terms),
                "basis": stage.basis,
            }
            for name, stage in _stages(found)
        },
    }


def brief(found: Estimate) -> str:
    """Returns the time on the clock, and what it rests on."""
    return f"{duration(found.seconds)} ({_BASIS[found.basis]})"


def _table(found: Estimate, terms: Terms) -> list[str]:
    rows: list[tuple[str, ...]] = [_HEADERS]
    for name, stage in _stages(found):
        rows.append(
            (
                name,
                str(stage.cells),
                readable_size(stage.download_bytes),
                readable_size(stage.peak_disk_bytes + stage.artifact_bytes),
                _readable_hours(stage.seconds),
                _money(stage.seconds, terms),
                _BASIS[stage.basis],
            )
        )
    rows.append(
        (
            "all",
            str(found.cells),
            readable_size(found.download_bytes),
            readable_size(found.peak_disk_bytes + found.artifact_bytes),
            _readable_hours(found.work_seconds),
            _money(found.work_seconds, terms),
            _BASIS[found.basis],
        )
    )
    shown = [index for index in range(len(_HEADERS)) if terms.price is not None or index != _COST]
    widths = [max(len(row[index]) for row in rows) for index in shown]
    return ["  " + "  ".join(_padded(row, shown, widths)).rstrip() for row in rows]


def _stages(found: Estimate) -> list[tuple[StageName, StageEstimate]]:
    """Returns the stages that have something to do, in their order."""
    order: tuple[StageName, ...] = get_args(StageName)
    return [(name, found.stages[name]) for name in order if name in found.stages]


def _padded(row: tuple[str, ...], shown: list[int], widths: list[int]) -> list[str]:
    """Returns a row's words, numbers to the right."""
    last = len(_HEADERS) - 1
    return [
        row[index].ljust(width) if index in (0, last) else row[index].rjust(width)
        for index, width in zip(shown, widths, strict=True)
    ]


def _cost_lines(found: Estimate, terms: Terms) -> list[str]:
    if terms.price is None:
        return []
    held = _money(found.seconds * found.machines.gpus, terms)
    plural = "" if found.machines.gpus == 1 else "s"
    return [f"cost: {held} if the {found.machines.gpus} GPU{plural} are held all that time"]


def _readable_hours(seconds: float) -> str:
    hours = seconds / 3600
    if 0 < hours < 0.0005:
        return "<0.001"
    return f"{hours:.3f}" if hours < 1 else f"{hours:,.1f}"


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 6)


def _cost(gpu_seconds: float, terms: Terms) -> float | None:
    return None if terms.price is None else round(gpu_seconds / 3600 * terms.price, 2)


def _money(gpu_seconds: float, terms: Terms) -> str:
    cost = _cost(gpu_seconds, terms)
    return "" if cost is None else f"{cost:,.2f}"
