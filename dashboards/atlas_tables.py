"""What joined tables have beside their own columns, and what a conflict consists of."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.columns import INTEGER, TEXT, Column

_TEXTS = pa.list_(pa.string())

JOINED = pa.schema(
    [
        column.field()
        for column in (
            Column(
                "weights_fingerprint",
                TEXT,
                "weights_sha256 of the row's checkpoint; null where its source doesn't know it, "
                "or knows several under the row's label",
            ),
            Column("source", TEXT, "whose results hold the row: their names, joined by +"),
            Column(
                "also_known_as",
                _TEXTS,
                "other labels (suite/model@revision) of the same weights, in any of the results",
            ),
            Column(
                "conflict",
                TEXT,
                "label: the row's label stands for other weights in other results; values: the "
                "same checkpoint, measured alike, has other values; label+values; null for none",
            ),
        )
    ]
)
"""Columns that come before those of every table."""

CONFLICTS = pa.schema(
    [
        column.field()
        for column in (
            Column("kind", TEXT, "label or values"),
            Column("table", TEXT, "the table that the rows are in"),
            Column("fingerprint", TEXT, "weights of the checkpoint; null for kind label"),
            Column("labels", _TEXTS, "suite/model@revision, in the order of `sources`"),
            Column("cells", _TEXTS, "cell_id of the rows, likewise"),
            Column("parameters", TEXT, "what was measured: parameters, or the row of its cell"),
            Column(
                "column",
                TEXT,
                "the column that differs, of a list with the place that differs most; row: the "
                "numbers of rows differ",
            ),
            Column("values", _TEXTS, "what each holds, as text, in the row that differs most"),
            Column("sources", _TEXTS, "whose results hold it"),
            Column("rows", INTEGER, "rows of the cells that differ in it; for kind label, labels"),
        )
    ]
)
"""Columns of conflicts."""

PARAMETERS = {
    "geometry": ("sequences_fingerprint", "n_sequences", "seq_len", "forward_dtype", "layer"),
    "head": ("n_tokens", "unigram_fingerprint"),
    "evals": (
        *("task", "metric", "subset", "shots", "sequences_fingerprint", "forward_dtype"),
        "template_fingerprint",
    ),
    "ablation": (
        *("task", "sequences_fingerprint", "mode", "rank", "ablation_mean", "forward_dtype"),
        "template_fingerprint",
    ),
    "sensitivity": ("sequences_fingerprint", "scale", "seed", "forward_dtype"),
    "finetunes": (
        *("task", "template_fingerprint", "method", "intervention", "clip", "rank", "targets"),
        *("seed", "lr", "groups", "alpha", "dropout", "epochs", "epochs_run", "batch_size"),
        *("weight_decay", "n_training", "n_validation", "n_truncated", "forward_dtype"),
    ),
}
"""Tables whose rows say all that their numbers depend on, beside the weights, and in which columns.

Rows of other tables are known by their cells alone.
"""

NAMES = frozenset(
    {
        *("dataset", "task", "unigram_dataset", "forgetting_dataset", "problems"),
        *("instructions", "data", "baseline_suite", "baseline_model", "baseline_revision"),
        *("description", "finding", "length_controlled_reason", "engine", "cost"),
    }
)
"""Columns that say how something is called or told, or what it took, and not what it is."""

MORE_THAN_PARAMETERS = frozenset({"text_loss_pre", "text_loss_post", "forgetting"})
"""Columns of tables with parameters that depend on more than those: on a text that is not named."""


def conflict_kinds(label: npt.NDArray[np.bool_], values: npt.NDArray[np.bool_]) -> pa.Array:
    """Returns the column `conflict`."""
    words = pa.array([None, "label", "values", "label+values"], pa.string())
    return words.take(pa.array(label.astype(np.int64) + 2 * values))
