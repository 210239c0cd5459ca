"""Whole chains of post-training whose effects are known, written as results."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.dashboards import synthetic

METHODS = ("sft", "dpo", "rlvr")
STEPS = 10
BASE = 100
PROBLEMS = 40
K = (1, 4, 16, 64)
FLAT, RISING, FALLING = 0.0, 5.0, -5.0

RISE_AND_CROSS = {
    "start": (0.2, 0.4, 0.6, 0.8), "sft": (0.2, 0.4, 0.6, 0.8), "dpo": (0.2, 0.4, 0.6, 0.8),
    "rlvr": (0.5, 0.55, 0.58, 0.6),
}  # fmt: skip
"""Mean pass@k at the ends of the stages: RLVR is ahead at k = 1 and behind at the largest k."""


def begin(model: str = "pico-64") -> dict[str, Any]:
    """Gives the columns that name the checkpoint that chains begin from."""
    return synthetic.keys("begin", model, BASE)


def checkpoint(method: str, step: int, model: str = "pico-64", taken: int = 0) -> dict[str, Any]:
    """Gives the columns that name a checkpoint of the chain `tuned`; steps count through it."""
    return {
        **synthetic.keys("made", model, taken + step, suite="tuned", tokens_per_step=None),
        "revision": f"{method}-step{step}",
        "stage": method,
    }


def write_log(
    results: Path,
    start: Mapping[str, Any],
    method: str,
    seed: int = 0,
    steps: int = STEPS,
    **columns: Any,
) -> None:
    """Writes the training log of one stage."""
    cell = synthetic.cell_id("posttrain", *start.values(), method, seed)
    rows = [
        {
            **start,
            "cell_id": cell,
            "row": row,
            "method": method,
            "data": "facts",
            "seed": seed,
            "training_step": row + 1,
            "loss": 2.0 - 0.1 * row,
            "entropy": 1.0,
            "reward": 0.1 * row if method == "rlvr" else None,
            "preferred": 0.5 if method == "dpo" else None,
            "margin": 0.2 if method == "dpo" else None,
            **columns,
        }
        for row in range(steps)
    ]
    synthetic.write(results, "posttrain", rows)


def write_geometry(
    results: Path,
    at: Mapping[str, Any],
    rankme: float,
    own: float = 0.05,
    draw: int = 0,
    **columns: Any,
) -> None:
    """Writes geometry; nearly all of its noise is shared with every other checkpoint."""
    shared = np.random.default_rng(0).standard_normal(synthetic.SEQUENCES)
    noise = own * np.random.default_rng((1, draw)).standard_normal(synthetic.SEQUENCES)
    influence = (shared + noise) / math.sqrt(synthetic.SEQUENCES)
    cell = synthetic.cell_id("geometry", *at.values())
    side = {
        **at,
        "cell_id": cell,
        "dataset": "heldout",
        "sequences_fingerprint": columns.get("sequences_fingerprint", "a" * 64),
        "layer": -1,
    }
    row = {
        **side, "n_sequences": synthetic.SEQUENCES, "seq_len": 64, "forward_dtype": "float32",
        "d": 64, "rankme": rankme, "rankme_se": 1.0, "alpha_req": 1.0, "alpha_req_se": 0.02,
        "se_reliable": True, **columns,
    }  # fmt: skip
    values = influence.tolist()
    extra = {"influence_rankme": values, "influence_alpha_req": values}
    synthetic.write(results, "influences", [{**side, **extra}])
    synthetic.write(results, "geometry", [row])


def write_chain(
    results: Path,
    changes: Mapping[str, float],
    seeds: Sequence[int] = (0,),
    spread: float = 0.0,
    own: float = 0.05,
    methods: Sequence[str] = METHODS,
    passk: Mapping[str, Sequence[float]] | None = None,
    **columns: Any,
) -> None:
    """Writes a chain: logs, geometry at the middle and end of each stage, and pass@k at ends.

    `changes` holds each stage's change of rankme, `spread` what seeds add to it, by their place,
    `passk` the mean pass@k at each end; more columns go to the rows of `passk`.
    """
    write_geometry(results, begin(), 40.0, own)
    write_head(results, begin())
    if passk:
        write_passk(results, begin(), passk["start"], **columns)
    for place, seed in enumerate(seeds):
        model = f"pico-64-seed{seed}" if len(seeds) > 1 else "pico-64"
        start, rankme = begin(), 40.0
        extra = spread * (place - (len(seeds) - 1) / 2)
        for order, method in enumerate(methods):
            write_log(results, start, method, seed)
            for step in (STEPS // 2, STEPS):
                start = checkpoint(method, step, model, order * STEPS)
                rankme += (changes[method] + extra) / 2
                draw = 1000 * seed + 10 * order + step
                write_geometry(results, start, rankme, own, draw)
            write_head(results, start)
            if passk:
                write_passk(results, start, passk[method], **columns)


def write_head(results: Path, at: Mapping[str, Any]) -> None:
    """Writes a head whose norms spread with the step."""
    cell = synthetic.cell_id("head", *at.values())
    row = {**at, "cell_id": cell, "n_tokens": 2048, "d": 64, "norm_cv": 0.1 + at["step"] / 1000}
    synthetic.write(results, "head", [row])


def write_passk(
    results: Path,
    at: Mapping[str, Any],
    means: Sequence[float],
    k: Sequence[int] = K,
    problems: int = PROBLEMS,
    noise: float = 0.1,
    guessing: float | None = 0.05,
    **columns: Any,
) -> None:
    """Writes pass@k whose problems scatter about the means, all checkpoints' in the same way."""
    offsets = noise * np.linspace(-1, 1, problems)
    own = np.random.default_rng(int(1000 * sum(means))).standard_normal(problems)
    own = 0.02 * (own - own.mean())
    cell = synthetic.cell_id("passk", *at.values(), *columns.values())
    rows = []
    for row, (tries, mean) in enumerate(zip(k, means, strict=True)):
        values = mean + offsets + own
        rows.append(
            {
                **at, "cell_id": cell, "row": row, "problems": "sums", "k": tries,
                "pass_at_k": float(values.mean()), "stderr": 0.01, "low": mean - 0.05,
                "high": mean + 0.05, "guessing": guessing, "n_problems": problems,
                "n_samples": 128, "well_formed": 0.99, "problem_pass_at_k": values.tolist(),
                "temperature": 1.0, "top_p": 1.0, "engine": "vllm",
                "template_fingerprint": "t" * 64, **columns,
            }
        )  # fmt: skip
    synthetic.write(results, "passk", rows)
