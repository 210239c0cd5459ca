"""Numbers of mutated checkpoints, computed once more from the files as they are now."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from orchestrator.plan import Plan
from tests import references
from tests.fuzz.damage_weights import WEIGHTS
from tests.fuzz.running import Ended, Tables
from tests.fuzz.sandbox import Sandbox
from workers.sequences import load_sequences

MEASURED = ("head", "geometry", "influences", "evals")


@dataclass(frozen=True)
class Original:
    """What is mutated.

    Attributes:
        checkpoint: Folder of a checkpoint.
        text: A JSONL file of documents.
        tables: What measuring it gives; empty before that.
    """

    checkpoint: Path
    text: Path
    tables: Tables


def wrong_numbers(
    ended: Ended, original: Original, checkpoint: Path, sandbox: Sandbox, plan: Plan
) -> list[str]:
    """Says which numbers are not those of the files as they are now."""
    wrong = []
    now = {name: rows for name, rows in ended.tables.items() if name in MEASURED}
    before = {name: original.tables[name] for name in now}
    whole, about = ended.tables.get("checkpoints"), json.loads(original.tables["checkpoints"])[0]
    unchanged = now == before
    if whole and (checkpoint / WEIGHTS).is_file():
        same_bytes = _tensors(checkpoint) == _tensors(original.checkpoint)
        same_hash = json.loads(whole)[0]["weights_sha256"] == about["weights_sha256"]
        if same_bytes != same_hash:
            wrong.append(f"equal tensors: {same_bytes}; equal hashes: {same_hash}")
        alike = all(
            (checkpoint / file.name).is_file()
            and file.read_bytes() == (checkpoint / file.name).read_bytes()
            for file in original.checkpoint.iterdir()
            if file.name != WEIGHTS
        )
        if same_bytes and alike and not unchanged:
            wrong.append("other numbers from equal files")
    if now and not unchanged:
        wrong += _unlike_reference(ended, checkpoint, sandbox, plan)
    return wrong


def _tensors(checkpoint: Path) -> list[tuple[str, str, list[int], bytes]]:
    return [
        (
            name,
            str(t.dtype),
            list(t.shape),
            t.contiguous().flatten().view(torch.uint8).numpy().tobytes(),
        )
        for name, t in sorted(load_file(checkpoint / WEIGHTS).items())
    ]


def _unlike_reference(ended: Ended, checkpoint: Path, sandbox: Sandbox, plan: Plan) -> list[str]:
    """Computes norm CV and loss anew: from the file itself, and one sequence at a time."""
    wrong = []
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    if "head" in ended.tables:
        head = model.get_output_embeddings().weight
        [row] = json.loads(ended.tables["head"])
        norms = references.norms(head[: len(row["token_norms"])].detach().double().numpy())
        if not math.isclose(row["norm_cv"], np.std(norms) / np.mean(norms), rel_tol=1e-4):
            wrong.append(f"norm CV {row['norm_cv']}, not {np.std(norms) / np.mean(norms)}")
    if "evals" in ended.tables:
        [cell] = [c for c in plan.cells if c.work.kind == "sequences"]
        sequences = load_sequences(sandbox.writable[0] / "artifacts" / cell.id)
        total = count = 0.0
        with torch.no_grad():
            for each in sequences.ids.split(sequences.lengths.tolist()):
                output = model(input_ids=each[None], labels=each[None])
                total += float(output.loss) * (len(each) - 1) if len(each) > 1 else 0.0
                count += len(each) - 1
        [row] = json.loads(ended.tables["evals"])
        if not math.isclose(row["value"], total / count, rel_tol=1e-4):
            wrong.append(f"loss {row['value']}, not {total / count}")
    return wrong
