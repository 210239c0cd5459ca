"""Tables of win rates: the answers, which ones were preferred, and how often."""

from jobs.columns import INTEGER, REAL, TEXT, TRUTH, Column

_SCALE = "1 the baseline's, 1.5 neither, 2 the other's"

WINRATE_TABLES: dict[str, tuple[Column, ...]] = {
    "responses": (
        Column("instructions", TEXT, "the study's name for the instructions"),
        Column("instruction", INTEGER, "place of the instruction, from 0"),
        Column("prompt", TEXT, "the instruction"),
        Column("output", TEXT, "the answer; null where the model's context has no room for one"),
        Column("chat_template", TRUTH, "whether the tokenizer's chat template was applied"),
        Column("generated_tokens", INTEGER, "length of the answer", "tokens"),
        Column("ended", TRUTH, "whether the model ended its answer"),
        Column("temperature", REAL, "temperature of the sampling; 0 for the likeliest tokens"),
        Column("seed", INTEGER, "seed of the sampling"),
        Column("forward_dtype", TEXT, "precision of the forward pass"),
    ),
    "winrates": (
        Column(
            "comparison",
            TEXT,
            "pair: two chains from the same checkpoint; last: a start with the last start",
        ),
        Column("instructions", TEXT, "the study's name for the instructions"),
        Column("start_step", INTEGER, "step of the checkpoint that the chain began from", "steps"),
        Column("baseline_suite", TEXT, "suite or chain of the baseline"),
        Column("baseline_model", TEXT, "model of the baseline"),
        Column("baseline_revision", TEXT, "checkpoint of the baseline"),
        Column("baseline_start_step", INTEGER, "what the baseline's chain began from", "steps"),
        Column("judge", TEXT, "the judge: name of a model, or hash of a checkpoint's weights"),
        Column("judge_kind", TEXT, "endpoint: asked which is better; local: likelier is better"),
        Column("win_rate", REAL, "100 × mean(preference − 1); draws count one half", "%"),
        Column("stderr", REAL, "its standard error over instructions", "%"),
        Column("n", INTEGER, "instructions with a preference"),
        Column("n_null", INTEGER, "instructions without one, which are dropped"),
        Column("n_wins", INTEGER, "preferences above 1.5"),
        Column("n_losses", INTEGER, "preferences below 1.5"),
        Column("n_draws", INTEGER, "preferences of 1.5"),
        Column(
            "first_rate",
            REAL,
            "how often the answer that stands first is preferred, whoever gave it; 50 without bias",
            "%",
        ),
        Column("weighted", REAL, "share of judgements that are weighted by log-probabilities"),
        Column(
            "length_controlled",
            REAL,
            "AlpacaEval's rate at equal lengths, with the difficulties of the instructions",
            "%",
        ),
        Column("length_controlled_reason", TEXT, "why there is none; null where there is one"),
        Column(
            "length_minimal",
            REAL,
            "the rate at equal lengths by length and identity alone (length_controlled_minimal): "
            "an extrapolation where one side's answers are always longer, and no leaderboard's",
            "%",
        ),
        Column("baseline_length", REAL, "mean length of the baseline's answers", "characters"),
        Column("length", REAL, "mean length of the compared answers", "characters"),
        Column("n_nonsense", INTEGER, "replies of the judge that named neither answer"),
        Column("cost", REAL, "what the judge cost, by the study's prices"),
    ),
    "judgements": (
        Column("instruction", INTEGER, "place of the instruction, from 0"),
        Column("preference", REAL, f"mean of both orders: {_SCALE}; null where one is"),
        Column("baseline_first", REAL, "preference where the baseline's answer stands first"),
        Column("baseline_second", REAL, "preference where it stands second, on the same scale"),
        Column("weighted", TRUTH, "whether both are weighted by log-probabilities"),
        Column("identical", TRUTH, "the answers are equal: a draw that no judge was asked about"),
        Column("n_nonsense", INTEGER, "replies of the judge that named neither answer"),
        Column("baseline_length", INTEGER, "length of the baseline's answer", "characters"),
        Column("length", INTEGER, "length of the compared answer", "characters"),
    ),
}
