"""Tables of what checkpoints can do."""

import pyarrow as pa

from jobs.columns import INTEGER, REAL, TEXT, Column

CAPABILITY_TABLES: dict[str, tuple[Column, ...]] = {
    "evals": (
        Column("task", TEXT, "task or text"),
        Column("metric", TEXT, "what was measured"),
        Column("value", REAL, "the measurement; losses in nats per token"),
        Column("stderr", REAL, "standard error over examples or sequences"),
        Column("n", INTEGER, "examples or tokens"),
        Column("sequences_fingerprint", TEXT, "as in geometry, for plain text"),
        Column("forward_dtype", TEXT, "precision of the forward pass"),
        Column(
            "loss_sums",
            pa.list_(pa.float32()),
            "each sequence's sum of token losses, aligned with the sequences; for plain text",
            "nats",
        ),
        Column("loss_counts", pa.list_(pa.int32()), "predicted tokens of each sequence", "tokens"),
    ),
}
