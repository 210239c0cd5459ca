"""What the paper on tracing geometry prints, typed in from its text: tables and settings."""

from dashboards.published import TRACING, Source, Value

TABLE_1 = Source(
    TRACING,
    "Table 1, Section 3.1",
    tuple(
        Value("", row, "share, %", value)
        for row, value in {
            "≤ 3": 25.41,
            "4": 46.61,
            "5": 16.71,
            "6": 6.08,
            "7": 2.40,
            "8": 1.46,
            "> 8": 1.34,
        }.items()
    ),
    "TriviaQA against an ∞-gram model of Pythia's pretraining corpus. The prompt, whose end "
    "decides on the lengths, and the number of questions aren't given. That an index which lay "
    "ready is the Pile's, the rows don't tell.",
)
_ABLATED = {
    "Pythia-1B": (0.838, 0.849, 0.225, 0.835, 0.318),
    "Pythia-1.4B": (0.866, 0.855, 0.232, 0.859, 0.324),
    "Pythia-2.8B": (0.884, 0.880, 0.219, 0.873, 0.317),
    "Pythia-6.9B": (0.896, 0.893, 0.202, 0.906, 0.327),
    "OLMo-2-1B": (0.953, 0.943, 0.199, 0.954, 0.326),
    "OLMo-2-7B": (0.970, 0.966, 0.155, 0.970, 0.308),
}
TABLE_2 = Source(
    TRACING,
    "Table 2, Section 3.1",
    tuple(
        Value(model, "sciq", column, value)
        for model, values in _ABLATED.items()
        for column, value in zip(
            ("none", "removed 10", "retained 10", "removed 50", "retained 50"), values, strict=True
        )
    ),
    "The paper says neither which checkpoint, nor on which text the eigenvectors were computed, "
    "nor whether the features' mean was kept.",
)
_CORRELATED = {
    "Pythia-1B": ((0.810, 1.50e-5), (-0.759, 1.04e-4), 20),
    "Pythia-1.4B": ((0.668, 1.29e-3), (-0.713, 4.18e-4), 20),
    "Pythia-2.8B": ((0.694, 6.88e-4), (-0.635, 2.63e-3), 20),
    "Pythia-6.9B": ((0.837, 4.20e-6), (-0.885, 2.19e-7), 20),
    "Pythia-12B": ((0.836, 4.42e-6), (-0.839, 3.79e-6), 20),
    "OLMo-2-1B": ((0.540, 4.920e-7), (-0.616, 3.201e-9), 76),
}
TABLE_9 = Source(
    TRACING,
    "Table 9, Appendix C.2",
    tuple(
        Value(model, "sciq", metric, r, n, p)
        for model, (*pairs, n) in _CORRELATED.items()
        for metric, (r, p) in zip(("alpha_req", "rankme"), pairs, strict=True)
    ),
    "n isn't printed: it is what r and p imply together for Pearson's r. Which checkpoints they "
    "are, the paper doesn't say.",
)
SETTINGS: tuple[tuple[str, str, str, str], ...] = (
    (
        "Table 3",
        "Position embedding",
        "position",
        "Pythia: learned; OLMo-2: rotary; GPT-2: learned",
    ),
    ("Table 3", "Norm", "norm", "Pythia and GPT-2: LayerNorm; OLMo-2: RMSNorm; pre-layer"),
    (
        "Table 3",
        "Pretraining text",
        "corpus",
        "Pythia: The Pile; OLMo-2: OLMoStack (4T tokens); GPT-2: FineWeb (10BT)",
    ),
    ("Table 3", "Optimizer, loss", "optimizer", "AdamW, cross-entropy"),
    (
        "Table 3",
        "Learning rate",
        "pretraining_rate",
        "Pythia and GPT-2: cosine decay; OLMo-2: linear decay with warm-up",
    ),
    ("Table 4", "Base models", "chain_start", "Llama 3 base models"),
    (
        "Table 4",
        "Instruction data",
        "chain_data",
        "Tulu3 mixture (FLAN V2, OpenAssistant, WildChat GPT-4)",
    ),
    ("Table 4", "Training", "chain_methods", "SFT, DPO, RLVR; AdamW, linear decay with warm-up"),
    ("Table 5", "Text", "text", "FineWeb sample-10BT"),
    ("Table 5", "Max sequence length", "seq_len", "512"),
    ("Table 5", "Number of sequences", "n_sequences", "15000"),
    ("Table 5", "Batch size", "batch", "16"),
    ("Table 6", "SFT data", "sft_data", "Anthropic-HH or AlpacaFarm Human-ANN chat (train split)"),
    ("Table 6", "Max sequence length", "sft_length", "4096"),
    ("Table 6", "Batch size × accumulation", "sft_batch", "16 × 16"),
    ("Table 6", "Learning rate", "sft_rate", "1e-5, linear decay with 10% warmup"),
    ("Table 6", "Epochs", "sft_steps", "2 epochs"),
    ("Table 6", "Loss reduction", "sft_reduction", "sum"),
    ("Table 6", "Seeds", "sft_seeds", "0, 7, 8, 42, 420"),
    ("Table 7", "Base model", "chat_base", "OLMo2-1B"),
    (
        "Table 7",
        "In and out of distribution",
        "chat_data",
        "Anthropic-HH (test split); AlpacaFarm Human-ANN chat (train split)",
    ),
    ("Table 7", "Max sequence length", "chat_length", "1024"),
    ("Table 7", "Number of sequences", "chat_sequences", "10000"),
    ("Table 7", "Batch size", "chat_batch", "32"),
    ("Table 8", "Base model", "winrate_base", "OLMo2-1B"),
    ("Table 8", "Instructions", "winrate_data", "AlpacaEval (test split)"),
    ("Table 8", "Max new tokens", "winrate_tokens", "1024"),
    ("Table 8", "Judge", "winrate_judge", "Cohere Command A"),
)
"""Table, setting, our name for it, and the paper's value."""
