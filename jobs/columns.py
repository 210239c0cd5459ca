"""Columns: each with its unit and its definition, and those that every table begins with."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Name in the table.
        type: Arrow type.
        definition: What the value means.
        unit: Its unit; empty for pure numbers and names.
    """

    name: str
    type: pa.DataType
    definition: str
    unit: str = ""

    def field(self) -> pa.Field:
        """Returns the Arrow field, with unit and definition as metadata."""
        return pa.field(
            self.name, self.type, metadata={"unit": self.unit, "definition": self.definition}
        )


TEXT = pa.string()
INTEGER = pa.int64()
REAL = pa.float64()
TRUTH = pa.bool_()

KEYS = (
    Column("cell_id", TEXT, "SHA-256 of the canonical JSON of what was measured"),
    Column("row", pa.int32(), "place of the row in its cell"),
    Column("suite", TEXT, "series of checkpoints"),
    Column("model", TEXT, "model of the suite"),
    Column("revision", TEXT, "checkpoint of the model"),
    Column("step", INTEGER, "optimizer steps taken; null where unknown", "steps"),
    Column("tokens", INTEGER, "training tokens seen; null where unknown", "tokens"),
    Column("stage", TEXT, "pretrain, sft, dpo or rlvr"),
)

DATA = (
    Column("dataset", TEXT, "the study's name for the text"),
    Column("sequences_fingerprint", TEXT, "SHA-256 of the token ids and lengths, in order"),
)
"""What a row that was measured on a text says of the text."""
