"""What is done to results beside running cells: from clearing failures to a copy for others."""

from argparse import Namespace
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from jobs.errors import StoreError, StudyError, UsageError
from jobs.layout import read_marker
from jobs.place import Place
from jobs.study import schema
from orchestrator.live import read_live
from orchestrator.store import Store

_SHOWN = 5


def retry(place: Place, cause: str | None, cell: str | None) -> dict[str, Any]:
    """Clears failures, all or those of a cause or a cell.

    Raises:
        UsageError: A cell is named and no failure is its.
        StoreError: There are no results, or they cannot be read or written.
    """
    store = _existing(place)
    chosen = [
        cell_id
        for cell_id, row in store.ledger().failed.items()
        if (cause is None or row["cause"] == cause) and cell_id.startswith(cell or "")
    ]
    if cell is not None and not chosen:
        of_cause = f" of cause '{cause}'" if cause else ""
        raise UsageError(
            f"no failure{of_cause} at {place} is of a cell whose id begins with '{cell}'",
            "see the column cell_id of the table failures, or leave out --cell",
        )
    return {"code": 0, "cleared": store.forget_failures(chosen)}


def compact(place: Place, console: Console) -> dict[str, Any]:
    """Merges the files of many cells into few; needs the lease, as a run does.

    Raises:
        UsageError: A run is at work on results behind a URL, which no lock protects.
        StoreError: There are no results, or they cannot be written.
    """
    from orchestrator.compact import compact as merge

    _existing(place)
    store = Store(place)
    live = None if place.is_local else read_live(place)
    if live is not None and not live.silent:
        raise UsageError(
            f"a run is at work on {place} ({live.host}, process {live.pid})",
            "compact after its end",
        )

    def waits() -> None:
        console.print("a run is at work on these results: waiting for its end")

    with store.lease(waits), Progress(console=console, transient=True) as progress:
        bar = progress.add_task("compacting", total=None)
        merged = merge(store, lambda done, total: progress.update(bar, completed=done, total=total))
    console.print(f"{merged.files_before} files became {merged.files_after}")
    return {"code": 0, "files_before": merged.files_before, "files_after": merged.files_after}


def diff(first: Place, second: Place, tolerance: float, console: Console) -> dict[str, Any]:
    """Tells what differs between two results, beyond how they came to be."""
    from dashboards.diff import diff as compare
    from dashboards.diff_lines import lines, summary

    differences = compare(first, second, relative_tolerance=tolerance)
    for line in lines(differences):
        console.print(line, markup=False)
    return summary(differences)


def advise(place: Place, want_json: bool, console: Console) -> dict[str, Any]:
    """Tells which checkpoint to fine-tune, as far as geometry can tell."""
    from dashboards.advisor import advise as judge
    from dashboards.advisor_table import advice_rows
    from dashboards.advisor_words import aligned, candidates_table, sentence

    found = judge(place)
    for advice in found if not want_json else ():
        shown = candidates_table(advice, "advice")
        console.print("\n".join((shown.title, *aligned(shown))), markup=False)
        console.print(shown.note, markup=False)
        verdict = f"{advice.label}: {advice.judgement.verdict}."
        console.print(f"{verdict} {sentence(advice)}\n", markup=False)
    if not found:
        console.print("plain LoRA was not measured at three checkpoints of any model yet")
    series = [
        {
            "series": advice.label,
            "verdict": advice.judgement.verdict,
            "n": advice.judgement.n,
            "skill": advice.judgement.skill,
            "recommended": next((c.revision for c in advice.candidates if c.recommended), None),
        }
        for advice in found
    ]
    return {"code": 0, "series": series} | ({"advice": advice_rows(found)} if want_json else {})


def export(places: Sequence[Place], options: Namespace, console: Console) -> dict[str, Any]:
    """Writes results, of one or of several people, as a data set for others."""
    from dashboards.atlas_export import check_export
    from dashboards.atlas_export import export as write
    from dashboards.query import merge

    folder = check_export(Path(options.to), options.license)
    atlas = merge(*places, names=options.name, relative_tolerance=options.tolerance)
    tables = write(atlas, folder, options.format, options.license)
    found = atlas.conflicts.to_pylist()
    for row in found[:_SHOWN]:
        held = zip(row["sources"], row["values"], row["labels"], strict=True)
        told = ", ".join(f"{source} has {value} for {label}" for source, value, label in held)
        console.print(f"conflict: {row['table']}.{row['column']}: {told}", markup=False)
    if len(found) > _SHOWN:
        console.print(f"… and {len(found) - _SHOWN:,} more; see the table conflicts")
    console.print(f"export: {folder}", markup=False)
    return {"code": 0, "export": str(folder), "tables": tables, "conflicts": len(found)}


def init(path: Path, want_schema: bool) -> dict[str, Any]:
    """Writes a commented study, or prints the JSON Schema of studies."""
    if want_schema:
        return {"code": 0, "schema": schema()}
    if path.exists():
        raise StudyError(f"{path} exists", "name another file")
    try:
        path.write_text((resources.files("jobs") / "template.toml").read_text("utf-8"))
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror}", "name another place") from error
    return {"code": 0, "study": str(path), "next": f"edit it, then: full --study {path}"}


def _existing(place: Place) -> Store:
    store = Store(place, write=False)
    if read_marker(place) is None:
        raise StoreError(f"there are no results at {place}", "check --results")
    return store
