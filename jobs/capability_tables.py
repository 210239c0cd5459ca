"""Tables of what checkpoints can do."""

import pyarrow as pa

from jobs.columns import DATA, INTEGER, REAL, TEXT, TRUTH, Column

_FLOATS = pa.list_(pa.float32())

_TASK = Column("task", TEXT, "the study's name for the task")
_FORWARD = Column("forward_dtype", TEXT, "precision of the forward pass")
_TEMPLATE = Column("template_fingerprint", TEXT, "SHA-256 of all prompts and answers, in order")

CAPABILITY_TABLES: dict[str, tuple[Column, ...]] = {
    "evals": (
        Column("task", TEXT, "task or text"),
        Column("metric", TEXT, "what was measured; answer_loss: of the answers in chats"),
        Column("value", REAL, "the measurement; losses in nats per token"),
        Column("stderr", REAL, "standard error over examples or sequences"),
        Column("n", INTEGER, "examples or tokens"),
        Column("sequences_fingerprint", TEXT, "as in geometry, for losses"),
        _FORWARD,
        Column(
            "loss_sums",
            _FLOATS,
            "each sequence's sum of token losses, aligned with the sequences; for losses",
            "nats",
        ),
        Column("loss_counts", pa.list_(pa.int32()), "predicted tokens of each sequence", "tokens"),
        Column(
            "subset",
            TEXT,
            "all; or, of a pico corpus, frequent and rare: facts about the half of the asked "
            "subjects that training speaks of more, and less, often",
        ),
        Column("shots", INTEGER, "solved examples before each question"),
        Column("chance", REAL, "what guessing among the possible answers gives; null if unknown"),
        Column("n_truncated", INTEGER, "examples cut from the left to fit the model's context"),
        _TEMPLATE,
    ),
    "outcomes": (
        _TASK,
        Column("example", INTEGER, "place of the example in the task, from 0"),
        Column("label", INTEGER, "place of the right option; null for free answers"),
        Column(
            "log_likelihoods",
            _FLOATS,
            "of each option's, or the answer's, tokens given the prompt, summed",
            "nats",
        ),
        Column("response", TEXT, "generated answer"),
        Column("acc", REAL, "whether the likeliest option, or the answer, is right"),
        Column("acc_norm", REAL, "likewise with likelihoods divided by the options' characters"),
        Column("acc_tie", REAL, "likewise, options within 1e-6 of the best sharing the credit"),
        Column("truncated", TRUTH, "whether it was cut from the left to fit the context"),
        Column("frequency", INTEGER, "training documents about the subject, of a pico corpus"),
    ),
    "ablation": (
        _TASK,
        *DATA,
        Column("mode", TEXT, "none, removed or retained"),
        Column("rank", INTEGER, "top eigenvectors removed or retained; null for none"),
        Column("ablation_mean", TEXT, "keep: the features' mean stays; drop: it is projected, too"),
        Column("variance_share", REAL, "share of the variance that those eigenvectors hold"),
        Column("acc", REAL, "share of examples whose likeliest option is right"),
        Column("acc_stderr", REAL, "its standard error over examples"),
        Column("acc_norm", REAL, "likewise with likelihoods divided by the options' characters"),
        Column("acc_tie", REAL, "likewise, options within 1e-6 of the best sharing the credit"),
        Column("chance", REAL, "what guessing gives: mean share of right options"),
        Column("n", INTEGER, "examples"),
        Column("n_truncated", INTEGER, "examples cut from the left to fit the model's context"),
        Column("log_likelihoods", _FLOATS, "of every option of every example, in order", "nats"),
        _FORWARD,
        _TEMPLATE,
    ),
    "indexes": (
        Column("corpus_fingerprint", TEXT, "SHA-256 of the indexed tokens, separators included"),
        Column("tokenizer_fingerprint", TEXT, "SHA-256 of the tokenizer's files"),
        Column("documents", INTEGER, "documents in it"),
        Column("corpus_tokens", INTEGER, "tokens in it, without separators", "tokens"),
        Column("token_bytes", INTEGER, "size of one token", "bytes"),
        Column("index_bytes", INTEGER, "size of the index", "bytes"),
    ),
    "infinigram": (
        _TASK,
        Column("suffix_length", INTEGER, "longest suffix of the context that the corpus has"),
        Column("answer_tokens", INTEGER, "answer tokens with that suffix length", "tokens"),
        Column("share", REAL, "share of all answer tokens"),
        Column("zero_tokens", INTEGER, "of those, tokens of ∞-gram probability 0", "tokens"),
        Column("n_examples", INTEGER, "examples of the task"),
        Column("n_tokens", INTEGER, "answer tokens of all examples", "tokens"),
        _TEMPLATE,
    ),
    "memorization": (
        _TASK,
        Column(
            "zero_policy",
            TEXT,
            "what becomes of answer tokens with ∞-gram probability 0: drop_token (∞-gram side "
            "only), drop_token_both, drop_example or floor",
        ),
        Column("memorization", REAL, "Spearman r of both models' answer log-likelihoods"),
        Column("memorization_pvalue", REAL, "two-sided p-value of that r, without correlation"),
        Column(
            "memorization_given_length",
            REAL,
            "partial Spearman r given the number of answer tokens",
        ),
        Column("n_examples", INTEGER, "examples compared"),
        Column("dropped_examples", INTEGER, "examples left out"),
        Column("dropped_tokens", INTEGER, "answer tokens of ∞-gram probability 0", "tokens"),
        Column("n_truncated", INTEGER, "examples cut from the left to fit the model's context"),
        _FORWARD,
        _TEMPLATE,
    ),
    "likelihoods": (
        _TASK,
        Column("answer_lengths", pa.list_(pa.int32()), "tokens of each answer", "tokens"),
        Column(
            "model_log_probabilities",
            _FLOATS,
            "log-probability of every answer token by the model",
            "nats",
        ),
        Column(
            "infinigram_log_probabilities",
            _FLOATS,
            "likewise by the ∞-gram model; -inf for 0",
            "nats",
        ),
        _TEMPLATE,
    ),
    "generations": (
        Column("prompt", TEXT, "what was to be continued"),
        Column("text", TEXT, "the greedy continuation"),
        Column("generated_tokens", INTEGER, "its length", "tokens"),
        Column("ended", TRUTH, "whether it came to an end of its own"),
        Column("distinct_1", REAL, "different tokens over all tokens; null below two"),
        Column("distinct_2", REAL, "likewise for pairs of neighbours"),
        Column("distinct_3", REAL, "likewise for runs of three"),
        Column("distinct_4", REAL, "likewise for runs of four"),
        Column(
            "longest_repeat_share",
            REAL,
            "length of the longest run of tokens that occurs twice, over all tokens",
        ),
        Column("loop_length", INTEGER, "tokens of the cycle that it ends in; null for none"),
        _FORWARD,
    ),
}
