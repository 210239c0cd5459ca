"""How the loss of a text rises when Gaussian noise is added to a checkpoint's weights.

Source: Springer et al., Overtrained language models are harder to fine-tune (2025), which perturbs
the weights so. The noise of each tensor is relative to its own root mean square here, so that γ
means the same for tensors of every scale.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from jobs.errors import DataError
from jobs.finetune_work import SensitivityWork
from workers.features import check_logits, forward_pass
from workers.hub import LoadedCheckpoint
from workers.measure import Rows
from workers.sequences import TokenSequences

_Report = Callable[[int, int], None]


def sensitivity_rows(
    work: SensitivityWork,
    loaded: LoadedCheckpoint,
    sequences: TokenSequences,
    batch_size: int,
    report: _Report,
) -> Rows:
    """Returns the rows of table `sensitivity`, one for each scale and seed.

    Every matrix of the model, embeddings too, gets noise of N(0, (γ · rms)²). Biases and the gains
    of norms are left as they are: they are few, and the root mean square of a gain, about 1, says
    nothing of how far training moves it. Scales share their draws: with one seed, the noise of
    γ = 0.2 is twice that of γ = 0.1. The loss is null where the noise makes numbers that are not
    finite.

    The weights are as before afterwards, byte for byte, also after an error. Meanwhile a copy of
    the model's matrices takes as much of the host's memory as they do in the running precision,
    and the noise of one of them at a time 8 bytes a number.

    Args:
        work: The text, the scales and the seeds.
        loaded: The checkpoint.
        sequences: The text.
        batch_size: Sequences per forward pass.
        report: Called with (sequences read, those to read in all passes).

    Raises:
        DataError: The loss without noise is not finite, nothing is predicted, or the model doesn't
            fit the text.
    """
    model = loaded.model
    check_logits(model)
    read = sequences.first(work.dataset_sequences)
    draws = [(scale, seed) for scale in work.scales for seed in work.seeds]
    total = len(read) * (1 + len(draws))

    def loss(passed: int) -> float:
        sums = forward_pass(
            model,
            read,
            batch_size=batch_size,
            layers=False,
            loss=True,
            report=lambda done, _: report(passed * len(read) + done, total),
        ).loss_sums
        assert sums is not None
        return float(sums.sum()) / count

    count = int((read.lengths - 1).sum())
    if count == 0:
        raise DataError(
            "every sequence has a single token, so there is nothing to predict",
            "raise the dataset's `sequence_length` or `minimum_length`",
        )
    before = loss(0)
    if not math.isfinite(before):
        raise DataError(
            f"the loss without noise is {before}",
            'try forward.dtype = "float32"; else the run diverged',
        )
    rows: Rows = []
    for place, (scale, seed) in enumerate(draws, start=1):
        with noise_added(model, scale, seed):
            try:
                after = loss(place)
            except DataError:  # Features that are not finite: all else, the first pass has seen.
                after = math.nan
        known = math.isfinite(after)
        rows.append(
            {
                "dataset": work.dataset,
                "sequences_fingerprint": sequences.fingerprint,
                "scale": scale,
                "seed": seed,
                "loss": after if known else None,
                "loss_increase": after - before if known else None,
                "n": count,
                "forward_dtype": work.dtype,
            }
        )
    return rows


@contextmanager
@torch.no_grad()
def noise_added(model: Any, scale: float, seed: int) -> Iterator[None]:
    """Adds noise to the matrices of a model for the length of the block.

    Noise is drawn and added on the host in float32, from a generator of (seed, place of the tensor
    among the model's matrices), so that it is the same on every device; a tied matrix is one. The
    sum is rounded to the precision of the weights.

    Args:
        model: The model.
        scale: γ, the noise's standard deviation relative to each tensor's root mean square.
        seed: Of the draw, at least 0.
    """
    # A tied matrix comes once.
    matrices = [p for p in model.parameters() if p.ndim >= 2 and p.is_floating_point()]
    originals = [matrix.detach().to("cpu", copy=True) for matrix in matrices]
    try:
        for place, (matrix, original) in enumerate(zip(matrices, originals, strict=True)):
            norm = torch.linalg.vector_norm(original, dtype=torch.float64)
            deviation = scale * float(norm) / math.sqrt(original.numel())
            drawn = np.random.default_rng([seed, place]).standard_normal(
                original.shape, dtype=np.float32
            )
            noisy = torch.from_numpy(drawn).mul_(deviation).add_(original)
            matrix.copy_(noisy.to(matrix.dtype))
        yield
    finally:
        for matrix, original in zip(matrices, originals, strict=True):
            matrix.copy_(original)
