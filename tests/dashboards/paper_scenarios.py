"""Small studies of the papers' models, and of models that only look like them."""

from pathlib import Path
from typing import Any

from tests.dashboards import synthetic
from tests.dashboards.finetune_scenarios import trial

NORM_STEPS = (1_000, 25_000, 75_000, 143_000)
TRACING_STEPS = (1_000, 3_000, 13_000, 63_000, 143_000)
RECIPE = {
    "task": "arc_easy", "method": "lora", "targets": "attention", "alpha": 16.0, "dropout": 0.05,
    "epochs": 3, "epochs_run": 3, "weight_decay": 0.01, "lr": 2e-4,
}  # fmt: skip


def checkpoints(results: Path, model: str, steps: tuple[int, ...], repository: str | None) -> None:
    """Writes checkpoints that come from a repository."""
    for step in steps:
        key = synthetic.keys("checkpoints", model, step)
        row = {**key, "repository": repository, "n_parameters": 4 * 10**8, "refused": False}
        synthetic.write(results, "checkpoints", [row])


def norm_study(results: Path, repository: str | None, **columns: Any) -> Path:
    """Writes the norm paper's fine-tunes: ranks 4, 8 and 16, and norms made equal."""
    model = "pythia-410m-deduped"
    synthetic.start(results)
    checkpoints(results, model, NORM_STEPS, repository)
    rows = []
    for place, step in enumerate(NORM_STEPS):
        synthetic.head(
            results, model, step, 0.09 + 0.016 * place, norm_range=1.8 + place, overlap_std=0.02,
            pearson_norm_token_id=0.05, n_tokens=50_277,
        )  # fmt: skip
        for seed in (0, 1, 2):
            gain = 0.35 - 0.03 * place + 0.001 * seed
            for rank in (4, 8, 16):
                changed = {**RECIPE, "rank": rank, **columns}
                rows.append(trial(step, seed, gain, finetunability=gain, model=model, **changed))
            equal = {**RECIPE, "rank": 8, "intervention": "equalize", **columns}
            rows.append(trial(step, seed, gain, finetunability=gain + 0.1, model=model, **equal))
    synthetic.write(results, "finetunes", rows)
    return results


def tracing_study(results: Path, repository: str | None, **columns: Any) -> Path:
    """Writes the tracing paper's SciQ accuracies, ablation and suffix lengths; geometry beside."""
    model = "pythia-1b"
    synthetic.start(results)
    checkpoints(results, model, TRACING_STEPS, repository)
    for place, step in enumerate(TRACING_STEPS):
        text = {"dataset": "fineweb", "n_sequences": 15_000, "seq_len": 512, **columns}
        rank = (60.0, 90.0, 70.0, 80.0, 50.0)[place]
        synthetic.geometry(results, model, step, rank, alpha_req=2 - rank / 100, **text)
        row = {"task": "sciq", "metric": "acc", "value": 0.9 - rank / 200, "subset": "all"}
        key = synthetic.keys("evals", model, step)
        synthetic.write(results, "evals", [{**key, **row, "shots": 0, "n": 1000}])
    key = synthetic.keys("ablation", model, TRACING_STEPS[-1])
    ablated = [("none", None, 0.84), ("retained", 10, 0.22)]
    synthetic.write(results, "ablation", [
        {**key, "row": n, "task": "sciq", "dataset": "fineweb", "mode": mode, "rank": rank,
         "acc": acc, "acc_tie": acc, "acc_stderr": 0.01, "chance": 0.25, "n": 1000,
         "ablation_mean": "keep"}
        for n, (mode, rank, acc) in enumerate(ablated)
    ])  # fmt: skip
    key = {**synthetic.keys("infinigram", "", None), "revision": None, "stage": None}
    synthetic.write(results, "infinigram", [
        {**key, "row": n, "task": "triviaqa", "suffix_length": length, "answer_tokens": tokens,
         "share": tokens / 100, "n_examples": 40, "n_tokens": 100, "template_fingerprint": "t"}
        for n, (length, tokens) in enumerate(((2, 20), (3, 10), (4, 40), (9, 25), (12, 5)))
    ])  # fmt: skip
    return results
