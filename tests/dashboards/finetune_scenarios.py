"""Whole sets of trials whose effects are known, written as results."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.dashboards import synthetic

STEPS = (256, 512, 1024, 2048, 4096, 8192, 16384)
CVS = (0.30, 0.10, 0.25, 0.15, 0.40, 0.20, 0.35)
"""Norm CV that does not trend, so that it can be told from the step."""

TREND = (0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40)
SEEDS = (0, 1, 2)

Gain = Callable[[float, int], float]
"""Net gain of a checkpoint's norm CV and its place."""


def falling(cv: float, place: int) -> float:
    return 0.6 - cv


def level(cv: float, place: int) -> float:
    return 0.4 + 0.02 * (place % 3)


_RECIPE = ("task", "method", "intervention", "clip", "rank", "targets", "groups", "lr")


def finetune(
    results: Path, step: int, seed: int, net_gain: float | None, **columns: Any
) -> dict[str, Any]:
    """Writes one trial."""
    row = trial(step, seed, net_gain, **columns)
    synthetic.write(results, "finetunes", [row])
    return row


def trial(
    step: int,
    seed: int,
    net_gain: float | None,
    finetunability: float | None = None,
    model: str = "pico-64",
    **columns: Any,
) -> dict[str, Any]:
    """Gives one trial of an intact loss of 2; without a net gain it diverged."""
    labels = {
        "task": "facts",
        "method": "lora",
        "intervention": "none",
        "rank": 8,
        "targets": "attention",
        "seed": seed,
        "lr": 2e-3,
        **{name: columns[name] for name in columns if name in _RECIPE},
    }
    key = synthetic.keys("finetune", model, step)
    return {
        **key,
        "cell_id": synthetic.cell_id(
            key["cell_id"], *labels.values(), columns.get("searched", False)
        ),
        **labels,
        "alpha": 16.0,
        "dropout": 0.05,
        "epochs": 3,
        "epochs_run": 3,
        "batch_size": 16,
        "weight_decay": 0.01,
        "searched": False,
        "n_training": 512,
        "n_validation": 256,
        "template_fingerprint": "f" * 64,
        "forward_dtype": "float32",
        "loss_none": 2.0,
        "loss_pre": 2.0,
        "loss_post": None if net_gain is None else 2.0 * (1 - net_gain),
        "damage": 0.0,
        "net_gain": net_gain,
        "finetunability": net_gain if finetunability is None else finetunability,
        **columns,
    }


def write_heads(results: Path, cvs: tuple[float, ...] = CVS, **columns: Any) -> None:
    """Writes heads whose overlaps have nothing to do with norm CV or step."""
    drawn = np.random.default_rng(3).standard_normal((2, len(cvs)))
    for place, cv in enumerate(cvs):
        known: Mapping[str, Any] = {
            "norm_range": 1.5 + cv,
            "norm_cv_invariant": cv,
            "overlap_mean": 0.1 + 0.01 * drawn[0, place],
            "overlap_std": 0.05 + 0.01 * drawn[1, place],
            "pearson_norm_token_id": 0.04,
            "spearman_norm_token_id": 0.03,
            "pearson_norm_unigram": -0.5,
            "spearman_norm_unigram": -0.6,
            "unigram_dataset": "heldout",
            "highest_norm_tokens": ["\\alpha", "<b>"],
            "lowest_norm_tokens": [" ", "\n"],
            **columns,
        }
        synthetic.head(results, "pico-64", STEPS[place], cv, **known)


def write_trials(
    results: Path,
    gain: Gain,
    cvs: tuple[float, ...] = CVS,
    seeds: tuple[int, ...] = SEEDS,
    noise: float = 0.002,
    **columns: Any,
) -> None:
    """Writes one arm's trials at each checkpoint; fine-tunability is the net gain."""
    drawn = np.random.default_rng(len(str(columns)))
    rows = [
        trial(
            STEPS[place], seed, gain(cv, place) + noise * float(drawn.standard_normal()), **columns
        )
        for place, cv in enumerate(cvs)
        for seed in seeds
    ]
    synthetic.write(results, "finetunes", rows)


def write_updates(results: Path, beta: float, steps: tuple[int, ...] = STEPS[-2:]) -> None:
    """Writes trials on the head whose updates grow with the norm to the power of β."""
    for step in steps:
        for seed in SEEDS:
            slope = beta + 0.01 * (seed - 1)
            row = finetune(
                results, step, seed, 0.3, targets="attention+head", beta=slope, beta_se=0.01,
                beta_seen=slope + 0.1, beta_unseen=slope - 0.1, beta_given_count=slope,
            )  # fmt: skip
            deciles = [
                {
                    **{name: row[name] for name in _KEYS},
                    "row": n,
                    "decile": n + 1,
                    "tokens_of": "all",
                    "n": 205,
                    "norm_mean": 1.0 + n,
                    "update_mean": 0.1 * (1.0 + n) ** slope,
                    "relative_update_mean": 0.1 * (1.0 + n) ** (slope - 1),
                }
                for n in range(10)
            ]
            synthetic.write(results, "updates", deciles)


_KEYS = (
    *("cell_id", "suite", "model", "revision", "step", "tokens", "stage", "task", "method"),
    *("intervention", "rank", "targets", "seed", "lr"),
)


def write_everything(results: Path) -> Path:
    """Writes rows for every table and figure of the section."""
    synthetic.start(results)
    write_heads(results)
    for rank in (4, 8, 16):
        write_trials(results, falling, rank=rank)
    write_trials(results, lambda cv, place: 0.55 - 0.5 * cv, intervention="equalize", damage=0.2)
    write_trials(results, lambda cv, place: 0.3 - cv, intervention="shuffle", damage=1.0)
    write_trials(results, falling, intervention="clip", clip=0.05)
    write_trials(results, falling, task="sums")
    write_trials(results, lambda cv, place: 0.62 - cv, method="dora")
    write_updates(results, 0.5)
    write_trials(
        results, lambda cv, place: 0.35, targets="attention+head", method="norm_lr"
    )  # fmt: skip
    for step in (STEPS[0], STEPS[-1]):
        finetune(results, step, 0, 0.5, lr=5e-3, searched=True)
        finetune(results, step, 0, 0.1, lr=1e-3, searched=True, epochs_run=1)
    finetune(results, STEPS[0], 0, None, lr=2e-2, searched=True)
    noise = [
        {**synthetic.keys("sensitivity", "pico-64", step), "row": seed, "dataset": "heldout",
         "scale": 0.1, "seed": seed, "loss_increase": 0.1 * (place + 1) + 0.01 * seed}
        for place, step in enumerate(STEPS) for seed in SEEDS
    ]  # fmt: skip
    synthetic.write(results, "sensitivity", noise)
    return results
