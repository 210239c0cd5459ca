"""Tells what the audit of a study's suites found. Fetches no weights, changes no results."""

from dataclasses import asdict
from typing import Any

from rich.console import Console

from jobs.findings import Finding
from jobs.layout import read_marker
from jobs.place import Place
from orchestrator.plan import Plan

_SHOWN = 5


def audit(plan: Plan, place: Place, console: Console) -> dict[str, Any]:
    """Prints a line for each finding, and for each loaded checkpoint that looks wrong.

    Returns:
        The counts, all that was found, and the code: 1 where a checkpoint is refused.
    """
    for line in lines(plan):
        console.print(line, markup=False)
    works = [work for _, work in plan.audits]
    suspicious = _suspicious(plan, place)
    for row in suspicious:
        label = f"{row['suite']}/{row['model']}@{row['revision']}"
        console.print(f"suspicious: {label}: {row['finding']}", markup=False)
    checkpoints = sum(work.checkpoints for work in works)
    refused = sum(work.refused for work in works)
    details = [asdict(finding) | {"suite": suite} for suite, finding in _findings(plan)]
    console.print(
        f"{checkpoints} checkpoints looked at, {refused} refused, {len(details)} findings",
        markup=False,
    )
    return {
        "code": 1 if refused else 0,
        "checkpoints": checkpoints,
        "refused": refused,
        "findings": len(details),
        "details": details,
        "suspicious": suspicious,
    }


def lines(plan: Plan, refused_only: bool = False) -> list[str]:
    """Returns what was found, line by line; of refusals alone, the first few and a count."""
    told = [
        f"{'refused' if found.refused else found.verdict}: {suite}/{found.label}: {found.sentence}"
        for suite, found in _findings(plan)
        if found.refused or not refused_only
    ]
    if not refused_only or len(told) <= _SHOWN:
        return told
    return [*told[:_SHOWN], f"… and {len(told) - _SHOWN} more refused; see `audit`"]


def _findings(plan: Plan) -> list[tuple[str, Finding]]:
    return [(suite, finding) for suite, work in plan.audits for finding in work.findings]


def _suspicious(plan: Plan, place: Place) -> list[dict[str, Any]]:
    """Returns the loaded checkpoints of the study that look wrong, where there are results."""
    if read_marker(place) is None:
        return []
    # Imported here: most audits come before any results.
    from dashboards.audit import suspicious_loads

    names = {
        (cell.checkpoint.suite, cell.checkpoint.model)
        for cell in plan.cells
        if cell.checkpoint is not None
    }
    return [row for row in suspicious_loads(place) if (row["suite"], row["model"]) in names]
