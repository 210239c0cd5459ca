"""What the paper on norm heterogeneity prints, typed in from its text (v1): tables and passages."""

from dashboards.published import NORM, Source, Value

_410M, _1B4 = "Pythia-410M", "Pythia-1.4B"
_R = "r with fine-tunability"

TABLE_1 = Source(
    NORM,
    "Table 1, Section 4.3",
    (
        Value(_410M, "overlap_std", _R, 0.437, 9),
        Value(_1B4, "overlap_std", _R, 0.215, 6),
        Value(_410M, "overlap_mean", _R, 0.239, 9),
        Value(_410M, "norm_cv", _R, -0.844, 9),
        Value(_1B4, "norm_cv", _R, -0.987, 6),
    ),
    "The text says r = 0.14 (abstract) and r ~ 0.2 (Section 1) for overlaps. n: checkpoints by "
    "Section 3; the paper gives neither seeds nor intervals.",
)
TABLE_2 = Source(
    NORM,
    "Table 2, Section 4.4",
    tuple(
        Value("", f"step {step:,}", column, value)
        for step, values in {
            1_000: (0.092, 0.353, 0.360, 2.1),
            25_000: (0.119, 0.274, 0.316, 15.1),
            75_000: (0.126, 0.261, 0.325, 24.4),
            143_000: (0.139, 0.259, 0.464, 79.4),
        }.items()
        for column, value in zip(
            ("norm CV", "fine-tunability, none", "fine-tunability, equalize", "change, %"),
            values,
            strict=True,
        )
    ),
    "The paper doesn't say which of its two models the table is of. Its fine-tunability is "
    "relative to the loss after the intervention, which rewards damage.",
)
TABLE_3 = Source(
    NORM,
    "Table 3, Section 4.5",
    tuple(
        Value("", f"rank {rank}", column, value, 4)
        for rank, pair in {4: (-0.941, 0.087), 8: (-0.947, 0.093), 16: (-0.954, 0.100)}.items()
        for column, value in zip(("r of norm CV", "spread"), pair, strict=True)
    ),
    "Four checkpoints each; the paper names neither them nor the model.",
)
TEXT = Source(
    NORM,
    "Sections 4.3, 4.6 and 4.7",
    (
        Value("", "token norm and BPE index", "r", 0.04),
        Value("", "step 1,000", "norm range", 1.8),
        Value("", "step 75,000", "norm range", 5.2),
        Value("", "hellaswag", "r of norm CV", -0.70, 4),
        Value("", "arc_easy", "r of norm CV", -0.95, 4),
    ),
    "Section 5 says that the range of 5.2 is Pythia-410M's; for the others no model is named. It "
    "gives ranges besides: norm CV from 0.07–0.09 to 0.13–0.14, fine-tunability from 35 % to "
    "24–26 %.",
)
