"""A plain script that measures a checkpoint: each metric loads it and asks the whole model.

It is what one writes with transformers and lm-eval alone, and it leaves out what it would leave
out: standard errors, the gauge-invariant variants, audits of the weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

_BATCH = 16
_BLOCK = 2048


def geometry(folder: Path, ids: torch.Tensor, device: str) -> torch.Tensor:
    """Prints nothing and returns the last layer's features, having fitted every layer's."""
    model = _load(folder, device)
    states: list[list[torch.Tensor]] = [[] for _ in range(model.config.num_hidden_layers + 1)]
    with torch.no_grad():
        for batch in ids.split(_BATCH):
            found = model(input_ids=batch.to(device), output_hidden_states=True)
            for rows, hidden in zip(states, found.hidden_states, strict=True):
                rows.append(hidden[:, -1].float())
    features = [torch.cat(rows) for rows in states]
    for layer in features:
        eigenvalues = torch.linalg.svdvals(layer - layer.mean(dim=0)).square() / len(layer)
        shares = eigenvalues / eigenvalues.sum()
        torch.special.entr(shares).sum().exp()
        used = eigenvalues[eigenvalues > 0].cpu().numpy()
        np.polyfit(np.log(np.arange(1, len(used) + 1)), np.log(used), 1)
    return features[-1]


def head(folder: Path, tokens: int, device: str) -> None:
    """Norms of the LM head's rows and all their overlaps."""
    rows = _load(folder, device).get_output_embeddings().weight[:tokens].detach().float()
    norms = rows.norm(dim=1)
    norms.std() / norms.mean()
    directions = rows / norms[:, None]
    total = squares = 0.0
    for block in directions.split(_BLOCK):
        for other in directions.split(_BLOCK):
            cosines = (block @ other.T).abs()
            total += float(cosines.sum())
            squares += float(cosines.square().sum())


def accuracy(folder: Path, task: dict[str, Any], device: str) -> None:
    """Has lm-eval ask the questions."""
    _ask(_load(folder, device), folder, task)


def ablation(
    folder: Path, features: torch.Tensor, ranks: Sequence[int], task: dict[str, Any], device: str
) -> None:
    """Has lm-eval ask the questions without, and with nothing but, the top directions."""
    model = _load(folder, device)
    mean = features.mean(dim=0)
    vectors = torch.linalg.eigh((features - mean).T @ (features - mean)).eigenvectors.flip(1)
    module = model.get_output_embeddings()
    for rank in ranks:
        basis = vectors[:, :rank]
        for retained in (False, True):

            def project(_module: Any, given: tuple[torch.Tensor], kept: bool = retained) -> Any:
                centred = given[0] - mean
                within = centred @ basis @ basis.T  # noqa: B023 - it is called within the loop.
                return (mean + (within if kept else centred - within),)

            handle = module.register_forward_pre_hook(project)
            _ask(model, folder, task)
            handle.remove()


def memorization(
    folder: Path, requests: Sequence[Any], likelihoods: Sequence[float], device: str
) -> None:
    """Correlates answers' likelihoods with those of an ∞-gram model, which are given."""
    model = _load(folder, device)
    sums: list[float] = []
    with torch.no_grad():
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            said = [torch.tensor([*each.context, *each.continuation]) for each in batch]
            ids = torch.nn.utils.rnn.pad_sequence(said, batch_first=True).to(device)
            logs = model(input_ids=ids).logits.float().log_softmax(dim=-1)
            for row, each in enumerate(batch):
                first, last = len(each.context), len(each.context) + len(each.continuation)
                targets = ids[row, first:last, None]
                sums.append(float(logs[row, first - 1 : last - 1].gather(1, targets).sum()))
    spearmanr(sums, likelihoods)


def _load(folder: Path, device: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)


def _ask(model: Any, folder: Path, task: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
    lm_eval.simple_evaluate(model=asked, tasks=[dict(task)], bootstrap_iters=0, verbosity="ERROR")
