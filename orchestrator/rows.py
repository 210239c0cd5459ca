"""Rows as they lie in a file: all columns of the table's schema, the cell's keys first."""

import pyarrow as pa

from jobs import layout
from jobs.cells import Cell
from jobs.records import TABLES


def with_keys(table: str, cell: Cell, rows: pa.Table, provenance: str) -> pa.Table:
    """Completes the rows of a cell.

    Args:
        table: The table that they belong to.
        cell: The cell that made them.
        rows: The columns that it measured; others become null.
        provenance: How they came to be, as JSON, for the file's metadata.
    """
    checkpoint = cell.checkpoint
    labels = {
        "cell_id": cell.id,
        "suite": checkpoint.suite if checkpoint else cell.suite,
        "model": checkpoint.model if checkpoint else cell.model,
        "revision": checkpoint.revision if checkpoint else None,
        "step": checkpoint.step if checkpoint else None,
        "tokens": checkpoint.tokens if checkpoint else None,
        "stage": checkpoint.stage if checkpoint else None,
    }
    schema = TABLES[table]
    columns = []
    for column in schema:
        if column.name == "row":
            columns.append(pa.array(range(rows.num_rows), column.type))
        elif column.name in rows.column_names:
            columns.append(rows.column(column.name).combine_chunks().cast(column.type))
        else:
            value = labels.get(column.name)
            columns.append(pa.array([value] * rows.num_rows, column.type))
    metadata = {**(schema.metadata or {}), layout.PROVENANCE: provenance.encode()}
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(metadata))
