"""The table of the tractable model."""

import pyarrow as pa

from jobs.columns import INTEGER, REAL, TEXT, Column

_FLOATS = pa.list_(pa.float32())
_KEPT = "; null for seeds that aren't kept"

TOY_TABLES: dict[str, tuple[Column, ...]] = {
    "toy": (
        Column("description", TEXT, "what the sweep stands for"),
        Column("counts", pa.list_(INTEGER), "examples of each class"),
        Column("classes", INTEGER, "number of classes |V|"),
        Column("d", INTEGER, "width of the features"),
        Column("skew", REAL, "minus the slope of ln count on ln rank, least squares; 0 if uniform"),
        Column("scale", REAL, "standard deviation of the initial weights"),
        Column("learning_rate", REAL, "step size, for the loss summed over the examples"),
        Column("loss_function", TEXT, "cross_entropy or squared_error"),
        Column("start", TEXT, "gaussian: f and W independent; balanced: fᵀf = WWᵀ"),
        Column("seed", INTEGER, "of the initial f and W"),
        Column("steps", pa.list_(INTEGER), "recorded steps", "steps"),
        Column("rankme", _FLOATS, "exp(−Σ p ln p) at each step, p = σ²/Σσ² of the uncentred f"),
        Column("sigma_features", _FLOATS, "singular values of f, descending, step by step"),
        Column("sigma_weights", _FLOATS, f"singular values of W, likewise{_KEPT}"),
        Column(
            "probabilities",
            _FLOATS,
            "each class's mean probability (squared error: output) on its own examples, step by "
            f"step{_KEPT}",
        ),
        Column("loss", _FLOATS, f"mean over the examples, at each step{_KEPT}"),
        Column("features", _FLOATS, f"f, examples × d, row by row, step by step{_KEPT}"),
        Column("weights", _FLOATS, f"W, d × classes, row by row, step by step{_KEPT}"),
    ),
}
