"""What differs between two results: found, named, and measured."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboards.diff import NamedCell, RowCount, TableDifference, diff
from dashboards.diff_lines import lines, summary
from jobs.errors import StoreError
from tests.dashboards import synthetic

MODELS = (("pico-64", 64),)
STEPS = (0, 8, 64, 512)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two results of the same study."""
    first, second = (
        synthetic.pico_like(tmp_path / name, MODELS, STEPS) for name in ("first", "second")
    )
    return first, second


def only(found: list[TableDifference]) -> TableDifference:
    (difference,) = found
    return difference


def test_results_are_the_same_as_themselves_and_as_a_copy(pair: tuple[Path, Path]) -> None:
    first, second = pair
    assert diff(first, first) == diff(first, second) == []
    assert lines([]) == []
    assert summary([]) == {"code": 0, "tables": {}}


def test_a_number_that_moved_is_named_with_its_size(pair: tuple[Path, Path]) -> None:
    first, second = pair
    old = synthetic.head(first, "pico-64", 8, 0.25)
    synthetic.head(second, "pico-64", 8, 0.5)
    found = only(diff(first, second))
    (column,) = found.columns
    assert (found.table, found.both, found.differing) == ("head", len(STEPS), 1)
    assert (column.column, column.rows, column.cells, column.without_size) == ("norm_cv", 1, 1, 0)
    assert (column.largest_absolute, column.largest_relative) == (0.25, 0.5)
    assert column.example.cell == NamedCell(old["cell_id"], "pico/pico-64@step8")
    assert (column.example.first, column.example.second) == (0.25, 0.5)
    told = "\n".join(lines([found]))
    assert "norm_cv: 1 rows of 1 cells, by up to 0.25 (relative 0.5); 0.25 → 0.5" in told
    assert f"pico/pico-64@step8 [{old['cell_id'][:12]}]" in told


def test_an_element_of_a_list_is_named_by_its_place(pair: tuple[Path, Path]) -> None:
    first, second = pair
    synthetic.geometry(first, "new", 8, 1.0, spectrum=[8.0, 4.0, 1.0])
    synthetic.geometry(second, "new", 8, 1.0, spectrum=[8.0, 2.0, 1.0])
    (column,) = only(diff(first, second)).columns
    assert (column.column, column.largest_absolute, column.largest_relative) == (
        "spectrum",
        2.0,
        0.25,
    )
    assert (column.example.place, column.example.first, column.example.second) == (1, 4.0, 2.0)


def test_lists_of_unequal_lengths_are_shown_by_them(pair: tuple[Path, Path]) -> None:
    first, second = pair
    synthetic.head(first, "pico-64", 8, 0.2, token_norms=[1.0, 2.0])
    synthetic.head(second, "pico-64", 8, 0.2, token_norms=[1.0])
    found = only(diff(first, second))
    (column,) = found.columns
    assert (column.without_size, column.largest_absolute) == (1, None)
    assert "a list of 2 → a list of 1" in lines([found])[-1]


def test_a_number_against_nan_stands_out_among_those_that_moved(pair: tuple[Path, Path]) -> None:
    first, second = pair
    for place, values in ((first, (1.0, 1.0, math.nan)), (second, (2.0, math.nan, math.nan))):
        for step, value in enumerate(values):
            synthetic.head(place, "new", step, value)
    (column,) = only(diff(first, second)).columns
    assert (column.rows, column.without_size, column.largest_absolute) == (2, 1, 1.0)
    assert column.example.first == 1.0
    assert math.isnan(column.example.second)


def test_cells_of_one_side_are_named(pair: tuple[Path, Path]) -> None:
    first, second = pair
    for step in range(7):
        synthetic.geometry(first, "extra", step, 1.0)
    synthetic.geometry(second, "other", 3, 1.0)
    found = only(diff(first, second))
    assert [cell.label for cell in found.only_first] == [
        f"pico/extra@step{step} heldout" for step in range(7)
    ]
    assert [cell.label for cell in found.only_second] == ["pico/other@step3 heldout"]
    assert (found.both, found.differing, found.columns) == (len(STEPS), 0, ())
    told = lines([found], most=5)
    assert told[5].startswith("  only in the first: pico/extra@step4 heldout [")
    assert told[6] == "  … and 2 more"
    assert len(told) == 1 + 5 + 1 + 1
    assert not [line for line in lines([found], most=7) if "more" in line]


def test_numbers_of_rows_are_compared_and_the_rows_of_both_still_are(
    pair: tuple[Path, Path],
) -> None:
    first, second = pair
    row = synthetic.head(first, "pico-64", 8, 0.2)
    synthetic.write(second, "head", [{**row, "norm_cv": 0.4}, {**row, "row": 1}])
    other = synthetic.head(first, "pico-64", 64, 0.2)
    synthetic.write(second, "head", [other, {**other, "row": 1}, {**other, "row": 2}])
    found = only(diff(first, second))
    assert found.row_counts == (
        RowCount(NamedCell(row["cell_id"], "pico/pico-64@step8"), 1, 2),
        RowCount(NamedCell(other["cell_id"], "pico/pico-64@step64"), 1, 3),
    )
    assert [column.column for column in found.columns] == ["norm_cv"]
    assert (found.differing, found.columns[0].rows) == (2, 1)


def test_side_tables_are_compared(tmp_path: Path) -> None:
    first, second = (synthetic.start(tmp_path / name) for name in "ab")
    synthetic.trajectory(first, [4.0], steps=(0,), seed=0)
    synthetic.trajectory(second, [4.0], steps=(0,), seed=1)
    found = {difference.table: difference for difference in diff(first, second)}
    assert [column.column for column in found["influences"].columns] == ["influence_rankme"]


def test_failures_differ_by_what_they_say_not_where_it_was_said(pair: tuple[Path, Path]) -> None:
    first, second = pair
    row = {**synthetic.keys("loss", "pico-64", 8), "kind": "loss", "cause": "memory"}
    synthetic.write(
        first, "failures", [{**row, "message": "too large", "traceback": "/a", "attempts": 2}]
    )
    synthetic.write(
        second, "failures", [{**row, "message": "too large", "traceback": "/b", "attempts": 3}]
    )
    assert diff(first, second) == []
    synthetic.write(second, "failures", [{**row, "message": "no shard", "traceback": "/b"}])
    found = only(diff(first, second))
    (column,) = found.columns
    assert (column.column, column.example.first, column.example.second) == (
        "message",
        "too large",
        "no shard",
    )
    assert column.example.cell.label == "pico/pico-64@step8 loss"
    assert "tracebacks and attempts aside" in lines([found])[0]


def test_a_failure_of_a_cell_that_was_done_since_is_none(pair: tuple[Path, Path]) -> None:
    first, second = pair
    row = {**synthetic.keys("head", "pico-64", 8), "kind": "head", "message": "once"}
    synthetic.write(first, "failures", [row])
    assert diff(first, second) == []


def test_provenance_files_and_order_count_for_nothing(pair: tuple[Path, Path]) -> None:
    first, second = pair
    rows = [
        {**synthetic.keys("loss", "pico-64", step), "value": float(step), "task": "t"}
        for step in range(9)
    ]
    for row in rows:
        synthetic.write(first, "evals", [row])
    synthetic.write(second, "evals", rows[::-1], "compacted.parquet", provenance={"device": "cuda"})
    assert diff(first, second) == []


def test_a_label_that_changed_does_not_hide_its_cell(pair: tuple[Path, Path]) -> None:
    first, second = pair
    row = synthetic.head(first, "a", 8, 0.2)
    synthetic.write(second, "head", [{**row, "model": "z", "norm_cv": 0.3}])
    found = only(diff(first, second))
    assert (found.only_first, found.only_second) == ((), ())
    assert [column.column for column in found.columns] == ["model", "norm_cv"]


def test_the_counts_are_json_even_where_no_size_is_finite(pair: tuple[Path, Path]) -> None:
    first, second = pair
    synthetic.head(first, "pico-64", 8, math.inf)
    synthetic.head(second, "pico-64", 8, 0.5)
    told = summary(diff(first, second))
    assert told["code"] == 1
    assert json.loads(json.dumps(told, allow_nan=False))["tables"]["head"]["columns"] == {
        "norm_cv": {"rows": 1, "largest_absolute": None, "largest_relative": None}
    }


def test_what_holds_no_results_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(StoreError, match="no results folder"):
        diff(pair[0], tmp_path / "nowhere")


VALUES = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 1.25, math.nan, math.inf]))
ROWS = st.fixed_dictionaries(
    {
        "norm_cv": VALUES,
        "tied": st.sampled_from([None, True]),
        "token_norms": st.one_of(st.none(), st.lists(VALUES, max_size=3)),
    }
)
CONTENT = st.dictionaries(st.integers(0, 5), st.lists(ROWS, min_size=1, max_size=3), max_size=4)
Content = dict[int, list[dict[str, Any]]]


def written(place: Path, content: Content, shuffle: int) -> Path:
    """Writes the rows of each cell, in any order, as one file."""
    synthetic.start(place)
    rows = [
        {**synthetic.keys("head", "model", cell), "row": row, **values}
        for cell, listed in content.items()
        for row, values in enumerate(listed)
    ]
    random.Random(shuffle).shuffle(rows)
    (place / "head" / "all.parquet").unlink(missing_ok=True)
    if rows:
        synthetic.write(place, "head", rows, "all.parquet")
    return place


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_differences_are_those_that_a_look_at_each_row_finds(tmp_path: Path, data: Any) -> None:
    first: Content = data.draw(CONTENT)
    second: Content = {
        cell: [data.draw(st.one_of(st.just(values), ROWS)) for values in rows]
        for cell, rows in first.items()
        if data.draw(st.booleans())
    } | data.draw(CONTENT)
    places = (
        written(tmp_path / "first", first, 0),
        written(tmp_path / "second", second, data.draw(st.integers(0, 9))),
    )
    ids = {synthetic.keys("head", "model", cell)["cell_id"]: cell for cell in range(6)}
    both = first.keys() & second.keys()
    uneven = {cell for cell in both if len(first[cell]) != len(second[cell])}
    moved = {
        name: {
            (cell, row)
            for cell in both
            for row, (a, b) in enumerate(zip(first[cell], second[cell], strict=False))
            if str(a[name]) != str(b[name])
        }
        for name in ("norm_cv", "tied", "token_norms")
    }
    found = diff(*places)
    if first.keys() == second.keys() and not uneven and not any(moved.values()):
        assert found == []
        return
    difference = only(found)
    assert {ids[cell.cell_id] for cell in difference.only_first} == first.keys() - both
    assert {ids[cell.cell_id] for cell in difference.only_second} == second.keys() - both
    assert {ids[count.cell.cell_id] for count in difference.row_counts} == uneven
    assert difference.both == len(both)
    assert difference.differing == len(uneven | {cell for k in moved.values() for cell, _ in k})
    assert {column.column: column.rows for column in difference.columns} == {
        name: len(keys) for name, keys in moved.items() if keys
    }
    for column in difference.columns:
        example = column.example
        assert (ids[example.cell.cell_id], example.row) in moved[column.column]
