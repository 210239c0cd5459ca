"""Comparison of results folders."""

from pathlib import Path

from dashboards.query import load
from jobs.cells import PRIMARY_TABLES
from jobs.records import TABLES


def cells_of(results: Path) -> set[str]:
    """Returns the cells whose primary rows are there."""
    return {
        path.stem for table in PRIMARY_TABLES for path in (results / table).glob("[!.]*.parquet")
    }


def assert_same_rows(expected: Path, found: Path | str) -> None:
    """Asserts that two results hold the same rows, to the last bit, and some at all."""
    assert load("geometry", expected).num_rows > 0
    for table in TABLES:
        ours, theirs = load(table, expected), load(table, found)
        assert ours.num_rows == theirs.num_rows, table
        for column in ours.column_names:
            # Arrow's equality takes NaN for unlike itself; its text does not.
            same = ours[column].equals(theirs[column]) or str(ours[column].to_pylist()) == str(
                theirs[column].to_pylist()
            )
            assert same, f"{table}.{column} differs"
