"""Measurements of a loaded checkpoint: geometry, head, held-out loss, and what it is.

Each function returns rows of one table, without the keys that the store adds.
"""

import math
from typing import Any

import torch

from jobs.errors import DataError
from jobs.sources import HubFolder, Source
from jobs.work import GeometryWork, HeadWork, LossWork
from workers.features import ForwardPass
from workers.hub import LoadedCheckpoint, LoadedModel
from workers.kernels import head as head_kernels
from workers.kernels.logits import logits_spectrum
from workers.kernels.spectrum import rankme
from workers.sequences import TokenSequences
from workers.spectra import (
    LAST_LAYER,
    checked_eigenvalues,
    checked_spectrum,
    feature_columns,
    moments_of,
    number_or_none,
    spectral_columns,
)
from workers.tally import phase
from workers.weight_files import fingerprint

Rows = list[dict[str, Any]]


def checkpoint_rows(checkpoint: LoadedCheckpoint, source: Source) -> Rows:
    """Returns the row of table `checkpoints`.

    Args:
        checkpoint: What was loaded.
        source: Where its weights came from.
    """
    model = checkpoint.model
    head = model.get_output_embeddings().weight
    return [
        {
            "weights_sha256": checkpoint.weights_sha256,
            "architecture": type(model).__name__,
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "n_layers": model.config.num_hidden_layers,
            "d": head.shape[1],
            "vocabulary_size": checkpoint.vocabulary_size,
            "head_rows": head.shape[0],
            "tied": checkpoint.tied,
            "weight_bytes": checkpoint.weight_bytes,
            "stored_dtype": checkpoint.stored_dtype,
            "repository": source.repository if isinstance(source, HubFolder) else None,
            "commit": source.commit if isinstance(source, HubFolder) else None,
            "fingerprint": fingerprint(source),
            "refused": False,
            "finding": None,
            "weight_profile": checkpoint.weight_profile,
        }
    ]


@phase("fit")
def geometry_rows(
    work: GeometryWork,
    checkpoint: LoadedModel,
    sequences: TokenSequences,
    passed: ForwardPass,
) -> tuple[Rows, Rows]:
    """Returns the rows of `geometry` and of its side table `influences`.

    The last layer has standard errors, since its features are kept; the others have only moments.

    Raises:
        DataError: A layer whose features don't vary, or are not finite.
    """
    features = passed.features
    last, found = feature_columns(features, LAST_LAYER)
    half = checked_eigenvalues(LAST_LAYER, moments_of(features[: len(features) // 2]))
    logits = logits_spectrum(found.spectrum, checkpoint.head)
    about: dict[str, Any] = {
        "dataset": work.dataset,
        "sequences_fingerprint": sequences.fingerprint,
        "n_sequences": len(sequences),
        "seq_len": sequences.seq_len,
        "share_full_length": sequences.share_full_length,
        "forward_dtype": work.dtype,
    }
    last |= about | {
        "layer": LAST_LAYER,
        "rankme_extrapolated": 2 * last["rankme"] - rankme(half),
        # A head of zeros, as some models begin with, has logits without a variance.
        "rankme_logits": rankme(logits) if float(logits[0]) > 0 else None,
        "spectrum_half": half.cpu().numpy(),
        "spectrum_logits": logits.cpu().numpy(),
    }
    side = {
        "dataset": work.dataset,
        "sequences_fingerprint": sequences.fingerprint,
        "layer": LAST_LAYER,
        "influence_rankme": found.on_rankme.float().cpu().numpy(),
        "influence_alpha_req": found.on_alpha_req.float().cpu().numpy(),
    }
    others = [
        about | {"layer": layer} | spectral_columns(checked_spectrum(layer, moments))
        for layer, moments in (passed.layers if work.layers == "all" else {}).items()
    ]
    return [last, *others], [side]


@phase("fit")
def head_rows(work: HeadWork, checkpoint: LoadedModel, sequences: TokenSequences | None) -> Rows:
    """Returns the row of table `head`; without the columns of overlaps, unless the work asks them.

    Raises:
        DataError: Rows of norm zero, unless the work drops them.
    """
    all_norms = head_kernels.row_norms(checkpoint.head)
    zero = (all_norms == 0).nonzero().flatten().tolist()
    if zero and not work.drop_zero_rows:
        raise DataError(
            f"{len(zero)} rows of the LM head have norm zero: token ids "
            f"{', '.join(map(str, zero[:20]))}{' …' if len(zero) > 20 else ''}",
            "set head.drop_zero_rows = true to leave them out",
        )
    kept = (all_norms > 0).nonzero().flatten()
    if len(kept) < 2:
        raise DataError(
            f"the LM head has only {len(kept)} rows that aren't zero", "leave the checkpoint out"
        )
    # Without a copy where all rows stay.
    head, norms = checkpoint.head[kept] if zero else checkpoint.head, all_norms[kept]
    token_ids = kept.cpu().numpy()
    statistics = head_kernels.norm_statistics(norms)
    by_id = head_kernels.correlate_with_token_ids(norms, token_ids)
    row: dict[str, Any] = {
        "n_tokens": len(head),
        "d": head.shape[1],
        "tied": checkpoint.tied,
        "norm_mean": statistics.mean,
        "norm_std": statistics.std,
        "norm_cv": statistics.cv,
        "norm_min": statistics.min,
        "norm_max": statistics.max,
        "norm_range": statistics.range,
        "norm_quantiles": list(statistics.quantiles),
        "norm_cv_invariant": _cv_invariant(head, checkpoint.final_norm_gain),
        "pearson_norm_token_id": number_or_none(by_id.pearson),
        "spearman_norm_token_id": number_or_none(by_id.spearman),
        "dropped_rows": zero,
        "token_norms": torch.where(all_norms > 0, all_norms, math.nan).float().cpu().numpy(),
    }
    if work.overlaps:
        row |= _overlap_columns(head)
    if sequences is not None:
        counts = torch.bincount(sequences.ids, minlength=len(all_norms))[kept.cpu()].numpy()
        by_count = head_kernels.correlate_with_counts(norms, counts)
        row |= {
            "unigram_dataset": work.unigram_dataset,
            "unigram_fingerprint": sequences.fingerprint,
            "pearson_norm_unigram": number_or_none(by_count.pearson),
            "spearman_norm_unigram": number_or_none(by_count.spearman),
        }
    order = norms.argsort(descending=True, stable=True).cpu()
    shown = min(work.extreme_tokens, len(order))
    row["highest_norm_tokens"] = _decoded(checkpoint, kept.cpu()[order[:shown]])
    row["lowest_norm_tokens"] = _decoded(checkpoint, kept.cpu()[order.flip(0)[:shown]])
    return [row]


@phase("fit")
def loss_rows(work: LossWork, sequences: TokenSequences, passed: ForwardPass) -> Rows:
    """Returns the row of table `evals`: mean token loss, its error clustered by sequence.

    Of chats, the loss is that of the answers' tokens alone.

    The standard error is that of a ratio of sums over sequences (delta method).

    Raises:
        DataError: No sequence has a second token, so that nothing is predicted; a loss that is not
            finite.
    """
    if passed.loss_sums is None:
        raise ValueError("the pass computed no losses")
    counts = passed.loss_counts.double()
    total = float(counts.sum())
    if total == 0:
        raise DataError(
            "every sequence has a single token, so there is nothing to predict",
            "raise the dataset's `sequence_length` or `minimum_length`",
        )
    loss = float(passed.loss_sums.sum()) / total
    if not math.isfinite(loss):
        raise DataError(
            f"the loss is {loss}", 'try forward.dtype = "float32"; else the run diverged'
        )
    residuals = passed.loss_sums - loss * counts
    return [
        {
            "task": work.dataset,
            "metric": "loss" if sequences.answers is None else "answer_loss",
            "value": loss,
            "stderr": float(residuals.square().sum().sqrt()) / total,
            "n": int(total),
            "sequences_fingerprint": sequences.fingerprint,
            "forward_dtype": work.dtype,
            "loss_sums": passed.loss_sums.float().numpy(),
            "loss_counts": passed.loss_counts.numpy(),
        }
    ]


def _cv_invariant(head: torch.Tensor, gain: torch.Tensor) -> float | None:
    """Returns the norm CV without the gauge; None where nothing is left without it."""
    if bool((head == head[0]).all()) or not bool(gain.any()):
        return None
    return head_kernels.norm_cv_invariant(head, gain)


def _overlap_columns(head: torch.Tensor) -> dict[str, Any]:
    overlaps = head_kernels.overlap_statistics(head)
    return {
        "overlap_mean": overlaps.mean,
        "overlap_std": overlaps.std,
        "overlap_rms": overlaps.rms,
        "overlap_mean_scaled": overlaps.mean_scaled,
        "overlap_std_scaled": overlaps.std_scaled,
        "overlap_random": overlaps.random,
        "welch_bound": overlaps.welch_bound,
        "etf_tightness": overlaps.etf_tightness,
        "equiangularity": overlaps.equiangularity,
    }


def _decoded(checkpoint: LoadedModel, token_ids: torch.Tensor) -> list[str]:
    return [str(checkpoint.tokenizer.decode([token])) for token in token_ids.tolist()]
