"""Tables of what is measured: suites, checkpoints, corpora, sequences, training logs."""

import pyarrow as pa

from jobs.columns import DATA, INTEGER, REAL, TEXT, TRUTH, Column

SUPPLY_TABLES: dict[str, tuple[Column, ...]] = {
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
            "loss",
            REAL,
            "mean cross-entropy of the step's batch, by the weights of its tokens, before the step",
            "nats/token",
        ),
        Column("gradient_norm", REAL, "Euclidean norm of all gradients, before clipping"),
        Column("learning_rate", REAL, "learning rate of the step"),
    ),
    "sequences": (
        *DATA,
        Column("tokenizer_fingerprint", TEXT, "SHA-256 of the tokenizer's files"),
        Column("n_sequences", INTEGER, "sequences M"),
        Column("seq_len", INTEGER, "longest length L", "tokens"),
        Column(
            "mode",
            TEXT,
            "document: one sequence each; packed: joined and cut at L; chat: one each, its answers "
            "marked",
        ),
        Column("special_tokens", TRUTH, "whether the tokenizer's special tokens were added"),
        Column("minimum_length", INTEGER, "shorter documents were passed over", "tokens"),
        Column("seed", INTEGER, "seed of the order of the documents"),
        Column("total_tokens", INTEGER, "real tokens in all sequences", "tokens"),
        Column("share_full_length", REAL, "share of the sequences that have length L"),
        Column("documents", INTEGER, "documents or chats that the source holds"),
    ),
}
