"""Tables: every column says what it means, and rows fit the schema or are refused."""

import math

import pyarrow as pa
import pytest

from jobs.columns import KEYS
from jobs.records import SCHEMA_VERSION, SIDE_TABLES, TABLES, rows_table

KEY_NAMES = [column.name for column in KEYS]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_column_has_a_definition_and_a_unit(table: str) -> None:
    schema = TABLES[table]
    assert schema.names[: len(KEYS)] == KEY_NAMES
    assert len(set(schema.names)) == len(schema.names)
    assert schema.metadata[b"eigentrace_schema_version"] == str(SCHEMA_VERSION).encode()
    for field in schema:
        assert field.metadata[b"definition"], field.name
        assert b"unit" in field.metadata


def test_units_reach_the_schema() -> None:
    assert TABLES["geometry"].field("tokens").metadata[b"unit"] == b"tokens"
    assert TABLES["training_log"].field("loss").metadata[b"unit"] == b"nats/token"


def test_side_tables_are_tables() -> None:
    assert set(TABLES) >= SIDE_TABLES


def test_rows_get_the_types_of_the_schema() -> None:
    table = rows_table("evals", [{"task": "t", "value": 1, "n": 3}, {"task": "u", "value": 0.5}])
    assert table.schema.field("value").type == pa.float64()
    assert table.to_pylist() == [
        {"task": "t", "value": 1.0, "n": 3},
        {"task": "u", "value": 0.5, "n": None},
    ]


def test_lists_and_not_a_number_survive() -> None:
    (row,) = rows_table("head", [{"token_norms": [1.0, math.nan], "dropped_rows": []}]).to_pylist()
    assert row["token_norms"][0] == 1.0
    assert math.isnan(row["token_norms"][1])
    assert row["dropped_rows"] == []


def test_no_rows_make_an_empty_table() -> None:
    assert rows_table("evals", []).num_rows == 0


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match="table evals has no column \\['valu'\\]"):
        rows_table("evals", [{"task": "t", "valu": 1}])


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        rows_table("evals", [{"n": "many"}])
