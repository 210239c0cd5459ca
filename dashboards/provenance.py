"""How the rows came to be: distinct values of what every file says of its making."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dashboards import query
from dashboards.tables import natural
from jobs.place import Place


def provenance_table(results: str | Path | Place) -> list[tuple[str, list[str]]]:
    """Collects how the rows came to be.

    Args:
        results: Folder or URL of the results.

    Returns:
        Each entry's dotted name and its distinct values; times (`seconds`) are added up.

    Raises:
        StoreError: The place cannot be read.
    """
    values: dict[str, set[str]] = defaultdict(set)
    seconds = 0.0
    for record in query.provenance(results):
        for name, value in _flatten("", record):
            if name == "seconds" and isinstance(value, int | float):
                seconds += value
            else:
                values[name].add(str(value))
    entries = [(name, sorted(values[name], key=natural)) for name in sorted(values)]
    return [*entries, ("seconds, all cells together", [f"{seconds:,.1f}"])] if seconds else entries


def _flatten(prefix: str, value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flatten(f"{prefix}.{name}" if prefix else str(name), part)
    else:
        yield prefix, value
