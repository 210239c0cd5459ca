"""The report on 1,000 checkpoints × 33 layers: how long it takes, and what the page weighs."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.limits import Figure, alone, memory
from dashboards.report import render
from jobs.layout import PROVENANCE
from jobs.records import MARKER, SCHEMA_VERSION, rows_table

CHECKPOINTS = 1000
LAYERS = 33
_SEQUENCES = 15_000
_LAST_STEP = 143_000
_TOKENS_PER_STEP = 2_097_152
_LOGGED = 14_300
_PROMPTS = 7
_RECORD = {"code_version": "0.1.0", "device": "cuda", "dtype": "bfloat16", "seconds": 90.0}


def figures() -> list[Figure]:
    """Seconds and peak memory of rendering, in a process of its own, and the size of the page."""
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        write_results(Path(folder), CHECKPOINTS, LAYERS, _SEQUENCES)
        seconds, worked, peak, size = alone(_rendered, folder)
    what = f"report of {CHECKPOINTS:,} checkpoints × {LAYERS} layers"
    return [
        Figure(what, seconds, "s", "≤ 60"),
        Figure(f"{what}: processor time", worked, "s"),
        Figure(f"{what}: peak memory", peak, "GiB", "≤ 2"),
        Figure(f"{what}: the page", size, "MB", "≤ 10"),
    ]


def write_results(folder: Path, checkpoints: int, layers: int, sequences: int) -> None:
    """Writes one model's results as a study leaves them: a file for each cell.

    Args:
        folder: Where to; it must exist.
        checkpoints: Checkpoints of the model, evenly spaced up to step 143,000.
        layers: Layers whose geometry is known, the one after the final norm among them.
        sequences: M, for which influences of the last layer are known.
    """
    (folder / MARKER).write_text(json.dumps({"format": SCHEMA_VERSION}))
    generator = np.random.default_rng(0)
    common = generator.standard_normal(sequences)
    for place in range(checkpoints):
        step = round(place * _LAST_STEP / max(checkpoints - 1, 1))
        noise = generator.standard_normal(sequences)
        for table, rows in _cells(step, layers, sequences, common, noise):
            _write(folder, table, rows)
    log = [
        {
            **_keys("training_log", None),
            "row": place,
            "step": place * 10,
            "tokens": place * 10 * _TOKENS_PER_STEP,
            "loss": 2 + 8 / (1 + place),
            "gradient_norm": 1 / (1 + place),
            "learning_rate": 3e-4 * min(1.0, place / 143),
        }
        for place in range(min(_LOGGED, 10 * checkpoints))
    ]
    _write(folder, "training_log", log)


def _rendered(folder: str) -> tuple[float, float, float, float]:
    begin, worked = time.perf_counter(), time.process_time()
    path = Path(render(folder, "many checkpoints"))
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    return seconds, worked, memory("VmHWM"), path.stat().st_size / 1e6


def _cells(
    step: int, layers: int, sequences: int, common: Any, noise: Any
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Gives the rows of one checkpoint's cells: a fall, a rise and a fall of rankme."""
    place = math.log1p(step)
    rankme = (
        900 - 600 * math.exp(-(((place - 5) / 1.5) ** 2)) - 200 / (1 + math.exp(20 - 2 * place))
    )
    text = {"dataset": "fineweb", "sequences_fingerprint": "a" * 64}
    influence = (common + 0.3 * noise) * 0.01 * rankme / math.sqrt(sequences)
    base = _keys("geometry", step)
    geometry = [
        {
            **base,
            **text,
            "row": layer + 1,
            "n_sequences": sequences,
            "seq_len": 512,
            "forward_dtype": "bfloat16",
            "layer": layer,
            "d": 1024,
            "rankme": rankme * (1 + 0.01 * (layer + 1)),
            "rankme_se": 0.01 * rankme if layer == -1 else None,
            "alpha_req": 2 - rankme / 1000,
            "alpha_req_se": 0.01 if layer == -1 else None,
            "se_reliable": True,
            "spectrum": [1.0 / rank for rank in range(1, 1025)],
        }
        for layer in range(-1, layers - 1)
    ]
    side = {**base, **text, "layer": -1}
    shares = (influence / 500).tolist()
    yield (
        "influences",
        [{**side, "influence_rankme": influence.tolist(), "influence_alpha_req": shares}],
    )
    yield "geometry", geometry
    yield "checkpoints", [{**_keys("checkpoints", step), "weights_sha256": _id("w", step)}]
    spread = 0.08 + 0.06 * place / 12
    yield (
        "head",
        [
            {
                **_keys("head", step),
                "n_tokens": 50_277,
                "d": 1024,
                "norm_cv": spread,
                "overlap_mean": 0.03,
                "overlap_mean_scaled": 0.8 + spread,
                "overlap_std_scaled": 0.6 + spread,
            }
        ],
    )
    tasks = {"fineweb": ("loss", 11 - 0.6 * place), "sciq": ("acc", 0.25 + 0.05 * place)}
    for task, (metric, value) in tasks.items():
        row = {"task": task, "metric": metric, "value": value, "stderr": 0.01, "n": 1000}
        yield "evals", [{**_keys(f"evals {task}", step), **row, "subset": "all", "shots": 0}]
    prompts = [f"Prompt {number} of the list" for number in range(_PROMPTS)]
    said = [
        {**_keys("generations", step), "row": n, "prompt": p, "text": "and so on " * 20}
        for n, p in enumerate(prompts)
    ]
    yield "generations", said


def _keys(kind: str, step: int | None) -> dict[str, Any]:
    return {
        "cell_id": _id(kind, step),
        "row": 0,
        "suite": "pythia-410m",
        "model": "pythia-410m",
        "revision": None if step is None else f"step{step}",
        "step": step,
        "tokens": None if step is None else step * _TOKENS_PER_STEP,
        "stage": "pretrain",
    }


def _id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(folder: Path, table: str, rows: list[dict[str, Any]]) -> None:
    arrow = rows_table(table, rows)
    metadata = {**(arrow.schema.metadata or {}), PROVENANCE: json.dumps(_RECORD).encode()}
    path = folder / table / f"{rows[0]['cell_id']}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(arrow.replace_schema_metadata(metadata), path, compression="zstd")
