"""The tables of the results: every column with its unit and its definition, in Arrow schemas.

`SCHEMA_VERSION` grows when a column changes its meaning; a reader refuses a newer one.
"""

from typing import Any

import pyarrow as pa

from jobs.capability_tables import CAPABILITY_TABLES
from jobs.columns import INTEGER, KEYS, TEXT, Column
from jobs.finetune_tables import FINETUNE_TABLES
from jobs.geometry_tables import GEOMETRY_TABLES
from jobs.posttrain_tables import POSTTRAIN_TABLES
from jobs.supply_tables import SUPPLY_TABLES
from jobs.toy_tables import TOY_TABLES
from jobs.winrate_tables import WINRATE_TABLES

SCHEMA_VERSION = 1

MARKER = "eigentrace.json"
"""File that says that a folder holds results, and of which version."""

_TABLES: dict[str, tuple[Column, ...]] = {
    **SUPPLY_TABLES,
    **GEOMETRY_TABLES,
    **CAPABILITY_TABLES,
    **FINETUNE_TABLES,
    **POSTTRAIN_TABLES,
    **WINRATE_TABLES,
    **TOY_TABLES,
    "failures": (
        Column("kind", TEXT, "kind of the cell that failed"),
        Column("cause", TEXT, "preempted, infrastructure, memory, data, diverged or user"),
        Column("attempts", INTEGER, "how often it was tried"),
        Column("message", TEXT, "what went wrong"),
        Column("remedy", TEXT, "what to do about it"),
        Column("traceback", TEXT, "where it happened"),
    ),
}

TABLES: dict[str, pa.Schema] = {
    name: pa.schema(
        [column.field() for column in (*KEYS, *columns)],
        metadata={"eigentrace_schema_version": str(SCHEMA_VERSION)},
    )
    for name, columns in _TABLES.items()
}
"""The Arrow schema of every table, keys first."""

SIDE_TABLES = frozenset(
    {"influences", "sweeps", "outcomes", "likelihoods", "updates", "judgements"}
)
"""Tables that a cell writes before its primary one; the ledger doesn't read them."""


def rows_table(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Returns rows as an Arrow table of those columns that they name, in the schema's types.

    Raises:
        ValueError: A row names a column that the table lacks.
    """
    schema = TABLES[table]
    names = {name for row in rows for name in row}
    unknown = names - set(schema.names)
    if unknown:
        raise ValueError(f"table {table} has no column {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=pa.schema([f for f in schema if f.name in names]))
