"""Writes small results folders through the schemas of `jobs.records`, without measuring."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.records import TABLES

PICO_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(768, 2817, 256))
SEQUENCES = 1500
PROVENANCE = {
    "code_version": "0.1.0",
    "libraries": {"torch": "2.13.0", "transformers": "5.17.0"},
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "seconds": 1.5,
}


def start(results: Path) -> Path:
    """Makes an empty results folder."""
    results.mkdir(parents=True, exist_ok=True)
    (results / "eigentrace.json").write_text('{"format": 1}', encoding="utf-8")
    return results


def cell_id(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def write(
    results: Path,
    table: str,
    rows: Sequence[dict[str, Any]],
    name: str | None = None,
    provenance: Any = PROVENANCE,
) -> Path:
    """Writes rows of one table as a finished file, named by the cell of the first row."""
    schema = TABLES[table]
    filled = [{**dict.fromkeys(schema.names), **row} for row in rows]
    if not set().union(*filled) <= set(schema.names):
        raise ValueError(f"not columns of {table}: {set().union(*filled) - set(schema.names)}")
    metadata = {**(schema.metadata or {}), b"eigentrace_provenance": json.dumps(provenance)}
    path = results / table / (name or f"{filled[0]['cell_id']}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(filled, schema=schema).replace_schema_metadata(metadata), path
    )
    return path


def keys(
    kind: str, model: str, step: int | None, suite: str = "pico", tokens_per_step: int | None = 1024
) -> dict[str, Any]:
    """Gives the columns that every table has."""
    return {
        "cell_id": cell_id(kind, suite, model, step),
        "row": 0,
        "suite": suite,
        "model": model,
        "revision": f"step{step}" if step is not None else "final",
        "step": step,
        "tokens": step * tokens_per_step if step is not None and tokens_per_step else None,
        "stage": "pretrain",
    }


def geometry(
    results: Path,
    model: str,
    step: int | None,
    rankme: float,
    influence: np.ndarray[Any, Any] | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """Writes one checkpoint's geometry, and its influences where they are given."""
    base = keys("geometry", model, step)
    error = None if influence is None else float(np.sqrt(np.sum(influence**2)))
    row = {
        **base,
        "dataset": "heldout",
        "sequences_fingerprint": "a" * 64,
        "n_sequences": SEQUENCES,
        "seq_len": 64,
        "share_full_length": 1.0,
        "forward_dtype": "float32",
        "layer": -1,
        "d": 64,
        "rankme": rankme,
        "rankme_se": error,
        "alpha_req": 1.0,
        "alpha_req_se": 0.02,
        "se_reliable": True,
        "spectrum": [1.0, 0.5],
        **columns,
    }
    if influence is not None:
        side = {name: row[name] for name in (*base, "dataset", "sequences_fingerprint", "layer")}
        write(results, "influences", [{**side, "influence_rankme": influence.tolist()}])
    write(results, "geometry", [row])
    return row


def head(results: Path, model: str, step: int, norm_cv: float, **columns: Any) -> dict[str, Any]:
    """Writes one checkpoint's head."""
    row = {
        **keys("head", model, step),
        "n_tokens": 2048,
        "d": 64,
        "tied": False,
        "norm_cv": norm_cv,
        "overlap_mean": 0.1,
        "overlap_mean_scaled": 0.8,
        "overlap_std_scaled": 0.6,
        **columns,
    }
    write(results, "head", [row])
    return row


def trajectory(
    results: Path,
    rankmes: Sequence[float],
    model: str = "pico-64",
    steps: Sequence[int] | None = None,
    shared: float = 0.0,
    own: float = 0.1,
    seed: int = 0,
) -> None:
    """Writes rankme over steps; `shared` and `own` are standard errors of the noise."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(SEQUENCES) * shared / math.sqrt(SEQUENCES)
    for place, rankme in enumerate(rankmes):
        noise = rng.standard_normal(SEQUENCES) * own / math.sqrt(SEQUENCES)
        step = (steps or PICO_STEPS)[place]
        geometry(results, model, step, rankme, influence=common + noise)


def pico_like(
    results: Path,
    models: Sequence[tuple[str, int]] = (("pico-64", 64), ("pico-128", 128)),
    steps: Sequence[int] = PICO_STEPS,
    layers: int = 4,
) -> Path:
    """Writes a full dataset with the shapes that the pico suite shows."""
    start(results)
    rng = np.random.default_rng(0)
    for model, d in models:
        common = rng.standard_normal(SEQUENCES)
        shape = _course(d)
        for step in steps:
            key = keys("checkpoints", model, step)
            weights = cell_id(model, 1 if step == 2 else step)
            write(
                results,
                "checkpoints",
                [{**key, "weights_sha256": weights, "d": d, "n_layers": layers}],
            )
            value = shape(step)
            scale = 0.015 * value / math.sqrt(SEQUENCES)
            influence = (common + 0.3 * rng.standard_normal(SEQUENCES)) * scale
            row = geometry(
                results,
                model,
                step,
                value,
                influence=influence,
                d=d,
                alpha_req=2.6 - 1.5 * value / (0.7 * d) + 0.1 * math.log(d / 64),
            )
            if layers:
                blocks = [
                    {
                        **row,
                        "row": layer + 1,
                        "layer": layer,
                        "rankme": value * (1 + 0.12 * (layers - layer)),
                        "rankme_se": None,
                    }
                    for layer in range(layers + 1)
                ]
                write(results, "geometry", [row, *blocks])
            spread = 0.3 / (1 + math.exp(-(math.log1p(step) - 5.2) * 1.4))
            head(
                results,
                model,
                step,
                0.06 + spread * (64 / d) ** 0.3,
                d=d,
                overlap_mean=(0.8 + 1.2 * spread) / math.sqrt(d),
                overlap_mean_scaled=0.8 + 1.2 * spread + 0.1 * math.log(d / 64),
                overlap_std_scaled=0.6 + spread,
            )
            loss = 3.1 + 4.5 / (1 + (step / 60) ** 0.8) - 0.15 * math.log(d / 64)
            write(
                results,
                "evals",
                [
                    {
                        **keys("evals", model, step),
                        "task": "heldout",
                        "metric": "loss",
                        "value": loss,
                        "stderr": 0.02,
                        "n": 94_500,
                        "sequences_fingerprint": "a" * 64,
                    }
                ],
            )
    return results


def _course(d: int) -> Callable[[int], float]:
    def rankme(step: int) -> float:
        place = math.log1p(step)
        collapse = math.exp(-(((place - 3.4) / 1.15) ** 2))
        late = 0.12 / (1 + math.exp(-(place - 7.2) * 3))
        return 0.68 * d * (1 - 0.77 * collapse - late)

    return rankme


def toy(
    results: Path,
    sweep: str,
    courses: Sequence[Sequence[float]],
    counts: Sequence[int] = (4, 2, 1),
    **columns: Any,
) -> None:
    """Writes runs of the toy model, one row per course of rankme."""
    steps = [0, 1, 4, 10]
    rows = [
        {
            **keys("toy", sweep, None, suite="toy"),
            "row": seed,
            "revision": None,
            "stage": None,
            "description": f"what {sweep} is",
            "counts": list(counts),
            "classes": len(counts),
            "d": 2,
            "skew": 1.0,
            "scale": 0.1,
            "learning_rate": 0.05,
            "loss_function": "cross_entropy",
            "start": "gaussian",
            "seed": seed,
            "steps": steps,
            "rankme": list(course),
            "sigma_features": [value for rank in course for value in (rank, 1.0)],
            **columns,
        }
        for seed, course in enumerate(courses)
    ]
    write(results, "toy", rows)
