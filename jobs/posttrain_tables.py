"""Tables of post-training, and of what is sampled from checkpoints."""

import pyarrow as pa

from jobs.columns import INTEGER, REAL, TEXT, Column

_COUNTS = pa.list_(pa.int32())

POSTTRAIN_TABLES: dict[str, tuple[Column, ...]] = {
    "posttrain": (
        Column("method", TEXT, "sft, dpo or rlvr"),
        Column("data", TEXT, "the study's name for the training data"),
        Column("seed", INTEGER, "seed of order, dropout and sampling"),
        Column("training_step", INTEGER, "optimizer step of this stage", "steps"),
        Column("loss", REAL, "training loss, as the trainer defines it"),
        Column("learning_rate", REAL, "learning rate of the step"),
        Column("gradient_norm", REAL, "norm of the gradient before clipping"),
        Column("reward", REAL, "RLVR: mean reward, the share of right completions"),
        Column("reward_std", REAL, "RLVR: mean standard deviation within a problem's completions"),
        Column("kl", REAL, "RLVR: divergence from the first checkpoint, where β > 0", "nats"),
        Column("entropy", REAL, "mean entropy of the next token", "nats"),
        Column("margin", REAL, "DPO: mean reward margin of chosen over rejected"),
        Column("preferred", REAL, "DPO: share of pairs whose chosen answer has the higher reward"),
        Column("completion_length", REAL, "RLVR: mean length of completions", "tokens"),
    ),
    "samples": (
        Column("problems", TEXT, "the study's name for the problems"),
        Column("problem", INTEGER, "place of the problem, from 0"),
        Column("prompt", TEXT, "what the model read"),
        Column("reference", TEXT, "the right answer"),
        Column("texts", pa.list_(pa.string()), "the sampled answers"),
        Column("answers", pa.list_(pa.string()), "what was extracted from each; null for nothing"),
        Column("correct", pa.list_(pa.bool_()), "whether each is right"),
        Column("well_formed", pa.list_(pa.bool_()), "whether each has the form of an answer"),
        Column("tokens_sampled", _COUNTS, "length of each", "tokens"),
        Column("n", INTEGER, "samples"),
        Column("n_correct", INTEGER, "right ones"),
        Column(
            "n_timeouts", INTEGER, "answers that couldn't be graded in time; they count as wrong"
        ),
        Column("temperature", REAL, "temperature of the sampling"),
        Column("top_p", REAL, "nucleus of the sampling"),
        Column("seed", INTEGER, "seed of the sampling"),
        Column("engine", TEXT, "what sampled, with its release"),
    ),
    "passk": (
        Column("problems", TEXT, "the study's name for the problems"),
        Column("k", INTEGER, "how many tries"),
        Column("pass_at_k", REAL, "mean over problems of the chance that one of k tries is right"),
        Column("stderr", REAL, "its standard error over problems"),
        Column("low", REAL, "lower end of the 95 % bootstrap interval over problems"),
        Column("high", REAL, "upper end"),
        Column(
            "guessing",
            REAL,
            "pass@k of drawing answers from this checkpoint's own samples "
            "of all problems, whatever the problem",
        ),
        Column("n_problems", INTEGER, "problems"),
        Column("n_samples", INTEGER, "samples N of each"),
        Column("well_formed", REAL, "share of samples that have the form of an answer"),
        Column(
            "problem_pass_at_k",
            pa.list_(pa.float64()),
            "the same of each problem, in order, for paired comparisons",
        ),
        Column("correct_counts", _COUNTS, "right samples of each problem, in order"),
        Column("temperature", REAL, "temperature of the sampling"),
        Column("top_p", REAL, "nucleus of the sampling"),
        Column("engine", TEXT, "what sampled, with its release"),
        Column("template_fingerprint", TEXT, "SHA-256 of all prompts and answers, in order"),
    ),
}
