"""The tables of the results: every column with its unit and its definition, in Arrow schemas.

`SCHEMA_VERSION` grows when a column changes its meaning; a reader refuses a newer one.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1

MARKER = "eigentrace.json"
"""File that says that a folder holds results, and of which version."""


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

_DATA = (
    Column("dataset", TEXT, "the study's name for the text"),
    Column("sequences_fingerprint", TEXT, "SHA-256 of the token ids and lengths, in order"),
)

_TABLES: dict[str, tuple[Column, ...]] = {
    "audit": (
        Column(
            "verdict",
            TEXT,
            "summary for a suite's first row; else duplicate, swapped_shard, no_safetensors, "
            "incomplete or gap",
        ),
        Column("finding", TEXT, "what was found, in words"),
        Column("refused", TRUTH, "whether the checkpoint is not measured; null in a summary"),
        Column("other_revision", TEXT, "the checkpoint that it was found to share weights with"),
        Column("other_step", INTEGER, "that checkpoint's step", "steps"),
        Column("file", TEXT, "the file that it is about"),
        Column("n_checkpoints", INTEGER, "checkpoints that were looked at; in a summary"),
        Column("n_refused", INTEGER, "checkpoints that are not measured; in a summary"),
        Column("n_findings", INTEGER, "findings about the suite; in a summary"),
    ),
    "checkpoints": (
        Column(
            "weights_sha256", TEXT, "SHA-256 over names, shapes, types and bytes of the weights"
        ),
        Column("architecture", TEXT, "transformers class"),
        Column("n_parameters", INTEGER, "parameters, shared ones once"),
        Column("n_layers", INTEGER, "transformer blocks"),
        Column("d", INTEGER, "width of the residual stream"),
        Column("vocabulary_size", INTEGER, "token ids of the tokenizer"),
        Column("head_rows", INTEGER, "rows of the output embedding, padding rows included"),
        Column("tied", TRUTH, "whether the LM head is the input embedding"),
        Column("weight_bytes", INTEGER, "size of the weight files", "bytes"),
        Column("stored_dtype", TEXT, "precision of the stored weights"),
        Column("repository", TEXT, "repository on the hub; null for other checkpoints"),
        Column("commit", TEXT, "commit of that repository"),
        Column(
            "fingerprint",
            TEXT,
            "SHA-256 over names and hashes of the weight files; null for weights made by a cell",
        ),
        Column("refused", TRUTH, "whether it is not measured: what a load tells is null then"),
        Column("finding", TEXT, "why it is refused, in words"),
        Column(
            "weight_profile",
            pa.list_(pa.float32()),
            "ln of the root mean square of each stored floating-point tensor, by name; -inf if all "
            "its values are 0",
        ),
    ),
    "corpora": (
        Column("source_fingerprint", TEXT, "SHA-256 of the text that the corpus is made from"),
        Column("training_fingerprint", TEXT, "SHA-256 of the training tokens"),
        Column("tokenizer_fingerprint", TEXT, "SHA-256 of tokenizer.json"),
        Column("vocabulary_size", INTEGER, "token ids of the tokenizer"),
        Column("training_tokens", INTEGER, "length of the training stream", "tokens"),
        Column("english_tokens", INTEGER, "English part of the training stream", "tokens"),
        Column("arithmetic_tokens", INTEGER, "arithmetic part", "tokens"),
        Column("fact_tokens", INTEGER, "invented-facts part", "tokens"),
        Column("english_documents", INTEGER, "English documents for training"),
        Column("heldout_documents", INTEGER, "English documents held out"),
        Column("heldout_tokens", INTEGER, "tokens of the held-out documents", "tokens"),
    ),
    "training_log": (
        Column(
            "loss", REAL, "mean cross-entropy of the step's batch, before the step", "nats/token"
        ),
        Column("gradient_norm", REAL, "Euclidean norm of all gradients, before clipping"),
        Column("learning_rate", REAL, "learning rate of the step"),
    ),
    "sequences": (
        *_DATA,
        Column("tokenizer_fingerprint", TEXT, "SHA-256 of the tokenizer's files"),
        Column("n_sequences", INTEGER, "sequences M"),
        Column("seq_len", INTEGER, "longest length L", "tokens"),
        Column("mode", TEXT, "document: one sequence each; packed: joined and cut at L"),
        Column("special_tokens", TRUTH, "whether the tokenizer's special tokens were added"),
        Column("minimum_length", INTEGER, "shorter documents were passed over", "tokens"),
        Column("seed", INTEGER, "seed of the order of the documents"),
        Column("total_tokens", INTEGER, "real tokens in all sequences", "tokens"),
        Column("share_full_length", REAL, "share of the sequences that have length L"),
        Column("documents", INTEGER, "documents that the source holds"),
    ),
    "geometry": (
        *_DATA,
        Column("n_sequences", INTEGER, "sequences M: rows of the feature matrix"),
        Column("seq_len", INTEGER, "longest length L", "tokens"),
        Column("share_full_length", REAL, "share of the sequences that have length L"),
        Column("forward_dtype", TEXT, "precision of the forward pass"),
        Column(
            "layer",
            INTEGER,
            "-1: after the final norm; 0: embedding output; i: residual stream after block i",
        ),
        Column("d", INTEGER, "width of the features"),
        Column("rankme", REAL, "exp of the entropy of the covariance's eigenvalue shares"),
        Column(
            "rankme_se",
            REAL,
            "standard error of rankme by infinitesimal jackknife, sequences taken as independent",
        ),
        Column(
            "rankme_sv",
            REAL,
            "exp of the entropy of the uncentred singular values' shares, 1e-7 added to each",
        ),
        Column("rankme_extrapolated", REAL, "2·rankme(M) − rankme(M/2)"),
        Column("rankme_logits", REAL, "rankme of the centred logits' covariance, gauge invariant"),
        Column("alpha_req", REAL, "minus the slope of ln eigenvalue on ln rank, weights 1/rank"),
        Column("alpha_req_se", REAL, "standard error of alpha_req, as that of rankme"),
        Column("alpha_r2", REAL, "weighted R² of that fit"),
        Column("alpha_first_rank", INTEGER, "first rank of the fit, 1-based"),
        Column("alpha_last_rank", INTEGER, "last rank of the fit, inclusive"),
        Column("participation_ratio", REAL, "(Σλ)²/Σλ²"),
        Column("stable_rank", REAL, "Σλ/λ₁"),
        Column("top1_share", REAL, "λ₁/Σλ"),
        Column("top10_share", REAL, "share of the ten largest eigenvalues"),
        Column("se_reliable", TRUTH, "whether M ≥ 10 d, where the standard errors were validated"),
        Column("spectrum", pa.list_(REAL), "all eigenvalues of the covariance, descending"),
        Column("singular_values", pa.list_(REAL), "of the uncentred features, for rankme_sv"),
        Column("spectrum_half", pa.list_(REAL), "spectrum of the first ⌊M/2⌋ sequences"),
        Column("spectrum_logits", pa.list_(REAL), "spectrum of the centred logits, d largest"),
    ),
    "influences": (
        *_DATA,
        Column("layer", INTEGER, "as in geometry"),
        Column(
            "influence_rankme",
            pa.list_(pa.float32()),
            "first-order change of rankme by each sequence, aligned with the sequences",
        ),
        Column(
            "influence_alpha_req",
            pa.list_(pa.float32()),
            "first-order change of alpha_req by each sequence, aligned with the sequences",
        ),
    ),
    "head": (
        Column("n_tokens", INTEGER, "rows of the head that were measured"),
        Column("d", INTEGER, "width of the head"),
        Column("tied", TRUTH, "whether the LM head is the input embedding"),
        Column("norm_mean", REAL, "mean row norm"),
        Column("norm_std", REAL, "population standard deviation of the row norms"),
        Column("norm_cv", REAL, "norm_std / norm_mean"),
        Column("norm_min", REAL, "smallest row norm"),
        Column("norm_max", REAL, "largest row norm"),
        Column("norm_range", REAL, "norm_max / norm_min"),
        Column("norm_quantiles", pa.list_(REAL), "row norm at 0, 1, 5, 25, 50, 75, 95, 99, 100 %"),
        Column(
            "norm_cv_invariant",
            REAL,
            "norm CV with the mean row removed and the final norm's gain folded in",
        ),
        Column("overlap_mean", REAL, "mean of |cos| over all pairs of rows"),
        Column("overlap_std", REAL, "population standard deviation of |cos| over all pairs"),
        Column("overlap_rms", REAL, "root mean square of cos over all pairs"),
        Column("overlap_mean_scaled", REAL, "overlap_mean · √d"),
        Column("overlap_std_scaled", REAL, "overlap_std · √d"),
        Column("overlap_random", REAL, "√(2/(πd)): overlap_mean of random directions"),
        Column("welch_bound", REAL, "smallest possible overlap_rms"),
        Column("etf_tightness", REAL, "overlap_rms / welch_bound − 1; null where the bound is 0"),
        Column("equiangularity", REAL, "overlap_std / overlap_rms"),
        Column("pearson_norm_token_id", REAL, "Pearson r of norm with BPE index"),
        Column("spearman_norm_token_id", REAL, "Spearman r of norm with BPE index"),
        Column("unigram_dataset", TEXT, "text whose token counts were compared"),
        Column("unigram_fingerprint", TEXT, "SHA-256 of that text's token ids and lengths"),
        Column("pearson_norm_unigram", REAL, "Pearson r of norm with ln(1 + count)"),
        Column("spearman_norm_unigram", REAL, "Spearman r of norm with count"),
        Column("highest_norm_tokens", pa.list_(TEXT), "decoded tokens, highest norm first"),
        Column("lowest_norm_tokens", pa.list_(TEXT), "decoded tokens, lowest norm first"),
        Column("dropped_rows", pa.list_(INTEGER), "token ids left out for a norm of zero"),
        Column("token_norms", pa.list_(pa.float32()), "row norm by token id; NaN where dropped"),
    ),
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

SIDE_TABLES = frozenset({"influences"})
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
