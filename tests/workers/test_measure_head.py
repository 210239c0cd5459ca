"""Rows of the head, the loss and the checkpoint, against the oracles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.errors import DataError
from jobs.records import SIDE_TABLES, rows_table
from jobs.sources import Folder, HubFile, HubFolder, Produced
from jobs.work import HeadWork, LossWork
from tests import references
from tests.workers.measured import (
    COUNT,
    GEOMETRY,
    HEAD,
    OPTIONAL,
    SEQUENCES,
    by_hand,
    measure_pass,
    own,
)
from workers.features import ForwardPass
from workers.hub import LoadedCheckpoint, load_checkpoint
from workers.measure import checkpoint_rows, geometry_rows, head_rows, loss_rows
from workers.weight_files import fingerprint


def test_head_rows_are_those_of_the_oracles(
    tiny_series: Path, checkpoint: LoadedCheckpoint
) -> None:
    _, head = by_hand(tiny_series / "step100")
    (row,) = head_rows(HEAD, checkpoint, SEQUENCES)
    assert set(row) == own("head")
    assert row["etf_tightness"] is not None
    norms, cosines = references.norms(head), references.cosines(head)
    tokens, width = head.shape
    model = checkpoint.model
    gain = model.gpt_neox.final_layer_norm.weight.double().numpy()
    invariant = references.norms((head - head.mean(axis=0)) * gain)
    rms = np.sqrt(np.mean(cosines**2))
    welch = np.sqrt((tokens - width) / (width * (tokens - 1)))
    ids = np.arange(tokens)
    counts = np.array([SEQUENCES.ids.eq(token).sum().item() for token in range(tokens)])
    expected = {
        "n_tokens": tokens,
        "d": width,
        "tied": False,
        "norm_mean": norms.mean(),
        "norm_std": norms.std(),
        "norm_cv": norms.std() / norms.mean(),
        "norm_min": norms.min(),
        "norm_max": norms.max(),
        "norm_range": norms.max() / norms.min(),
        "norm_cv_invariant": invariant.std() / invariant.mean(),
        "overlap_mean": cosines.mean(),
        "overlap_std": cosines.std(),
        "overlap_rms": rms,
        "overlap_mean_scaled": cosines.mean() * np.sqrt(width),
        "overlap_std_scaled": cosines.std() * np.sqrt(width),
        "overlap_random": np.sqrt(2 / (np.pi * width)),
        "welch_bound": welch,
        "etf_tightness": rms / welch - 1,
        "equiangularity": cosines.std() / rms,
        "pearson_norm_token_id": stats.pearsonr(norms, ids)[0],
        "spearman_norm_token_id": stats.spearmanr(norms, ids)[0],
        "pearson_norm_unigram": stats.pearsonr(norms, np.log1p(counts))[0],
        "spearman_norm_unigram": stats.spearmanr(norms, counts)[0],
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-5), name
    np.testing.assert_allclose(row["token_norms"], norms, rtol=1e-6)
    quantiles = np.quantile(norms, [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1])
    np.testing.assert_allclose(row["norm_quantiles"], quantiles, rtol=1e-6)
    order = np.argsort(norms)
    decode = checkpoint.tokenizer.decode
    assert row["highest_norm_tokens"] == [decode([i]) for i in order[::-1][:5]]
    assert row["lowest_norm_tokens"] == [decode([i]) for i in order[:5]]
    assert row["unigram_dataset"] == "sample"
    assert row["unigram_fingerprint"] == SEQUENCES.fingerprint
    assert row["dropped_rows"] == []
    assert rows_table("head", [row]).num_rows == 1


def test_what_is_nothing_without_the_gauge_is_left_out(checkpoint: LoadedCheckpoint) -> None:
    same = replace(checkpoint, head=checkpoint.head[:1].expand(50, -1).clone())
    silenced = replace(checkpoint, final_norm_gain=torch.zeros_like(checkpoint.final_norm_gain))
    for degenerate in (same, silenced):
        (row,) = head_rows(HeadWork(None, None, 5, False), degenerate, None)
        assert row["norm_cv_invariant"] is None
        assert row["norm_mean"] > 0
        assert rows_table("head", [row]).num_rows == 1


def test_a_head_of_zeros_leaves_the_features_their_geometry(checkpoint: LoadedCheckpoint) -> None:
    passed = measure_pass(checkpoint, SEQUENCES)
    zero = replace(checkpoint, head=torch.zeros_like(checkpoint.head))
    (row, *_), _ = geometry_rows(GEOMETRY, zero, SEQUENCES, passed)
    (usual, *_), _ = geometry_rows(GEOMETRY, checkpoint, SEQUENCES, passed)
    assert row["rankme_logits"] is None
    assert row["rankme"] == usual["rankme"]


def test_without_counts_their_columns_are_left_out(checkpoint: LoadedCheckpoint) -> None:
    (row,) = head_rows(HeadWork(None, None, 5, False), checkpoint, None)
    assert set(row) == own("head") - OPTIONAL


def test_padding_rows_change_nothing(copy_series: Path, tiny_series: Path) -> None:
    folder = copy_series / "step100"
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(folder)))
    model.save_pretrained(folder)
    rows = []
    for path in (folder, tiny_series / "step100"):
        loaded = load_checkpoint(path, path, "float32", "cpu")
        (head,) = head_rows(HEAD, loaded, SEQUENCES)
        (loaded_row,) = checkpoint_rows(loaded, Folder(str(path), ()))
        geometry, _ = geometry_rows(GEOMETRY, loaded, SEQUENCES, measure_pass(loaded, SEQUENCES))
        rows.append((head, geometry[0]["rankme_logits"], loaded_row["head_rows"]))
    (without, logits, fewer), (padded, same_logits, more) = rows
    assert more == fewer + 2
    assert logits == same_logits
    for name, value in without.items():
        np.testing.assert_array_equal(padded[name], value)


@pytest.mark.parametrize("zeros", [[7], [0, 3, 250], list(range(30))])
def test_zero_rows_are_refused_by_id_or_dropped(
    checkpoint: LoadedCheckpoint, zeros: list[int]
) -> None:
    head = checkpoint.head.clone()
    head[zeros] = 0
    damaged = replace(checkpoint, head=head)
    with pytest.raises(DataError, match=f"{len(zeros)} rows") as error:
        head_rows(HEAD, damaged, SEQUENCES)
    named = error.value.message.split("token ids ")[1]
    assert named.startswith(", ".join(map(str, zeros[:20])))
    assert ("…" in named) is (len(zeros) > 20)
    assert "drop_zero_rows" in error.value.remedy
    (row,) = head_rows(replace(HEAD, drop_zero_rows=True), damaged, SEQUENCES)
    kept = np.setdiff1d(np.arange(len(head)), zeros)
    rest = head[kept].double().numpy()
    norms = references.norms(rest)
    assert row["dropped_rows"] == zeros
    assert row["n_tokens"] == len(kept)
    assert np.isnan(row["token_norms"][zeros]).all()
    np.testing.assert_allclose(row["token_norms"][kept], norms, rtol=1e-6)
    assert row["norm_cv"] == pytest.approx(norms.std() / norms.mean(), rel=1e-6)
    assert row["overlap_mean"] == pytest.approx(references.cosines(rest).mean(), rel=1e-5)
    assert row["spearman_norm_token_id"] == pytest.approx(stats.spearmanr(norms, kept)[0])
    counts = np.array([SEQUENCES.ids.eq(token).sum().item() for token in kept.tolist()])
    assert row["spearman_norm_unigram"] == pytest.approx(stats.spearmanr(norms, counts)[0])
    decode = checkpoint.tokenizer.decode
    assert row["lowest_norm_tokens"][0] == decode([kept[norms.argmin()]])


def test_a_head_of_zeros_is_refused(checkpoint: LoadedCheckpoint) -> None:
    empty = replace(checkpoint, head=torch.zeros_like(checkpoint.head))
    with pytest.raises(DataError, match="only 0 rows"):
        head_rows(replace(HEAD, drop_zero_rows=True), empty, None)


def test_a_head_narrower_than_the_vocabulary_has_no_tightness(
    checkpoint: LoadedCheckpoint,
) -> None:
    few = replace(checkpoint, head=checkpoint.head[:20])
    (row,) = head_rows(HeadWork(None, None, 50, False), few, None)
    assert row["welch_bound"] == 0
    assert row["etf_tightness"] is None
    assert len(row["highest_norm_tokens"]) == 20
    assert rows_table("head", [row]).num_rows == 1


def test_loss_rows_are_transformers_own_loss(
    tiny_series: Path, checkpoint: LoadedCheckpoint, passed: ForwardPass
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_series / "step100").double()
    sums, counts = [], []
    with torch.no_grad():
        for ids in SEQUENCES.ids.split(SEQUENCES.lengths.tolist()):
            if len(ids) > 1:
                sums.append(float(model(ids[None], labels=ids[None]).loss) * (len(ids) - 1))
                counts.append(len(ids) - 1)
    (row,) = loss_rows(LossWork("sample", "0" * 64, "float32"), SEQUENCES, passed)
    of_tasks = {"subset", "shots", "chance", "n_truncated", "template_fingerprint"}
    assert set(row) == own("evals") - of_tasks
    loss = sum(sums) / sum(counts)
    assert row["value"] == pytest.approx(loss, rel=1e-6)
    errors = np.array(sums) - loss * np.array(counts)
    assert row["stderr"] == pytest.approx(np.sqrt((errors**2).sum()) / sum(counts), rel=1e-4)
    assert row["n"] == sum(counts)
    assert row["forward_dtype"] == "float32"
    predicting = row["loss_counts"] > 0
    np.testing.assert_array_equal(row["loss_counts"], SEQUENCES.lengths.numpy() - 1)
    np.testing.assert_allclose(row["loss_sums"][predicting], sums, rtol=1e-5)
    assert rows_table("evals", [row]).num_rows == 1
    assert (row["task"], row["metric"]) == ("sample", "loss")
    assert row["sequences_fingerprint"] == SEQUENCES.fingerprint


def test_losses_that_say_nothing_are_refused(passed: ForwardPass) -> None:
    work = LossWork("sample", "0" * 64, "float32")
    single = replace(passed, loss_counts=torch.zeros(COUNT, dtype=torch.int64))
    with pytest.raises(DataError, match="single token"):
        loss_rows(work, SEQUENCES, single)
    assert passed.loss_sums is not None
    infinite = replace(passed, loss_sums=passed.loss_sums + torch.inf)
    with pytest.raises(DataError, match="the loss is inf"):
        loss_rows(work, SEQUENCES, infinite)


def test_checkpoint_rows(tiny_series: Path, checkpoint: LoadedCheckpoint) -> None:
    folder = tiny_series / "step100"
    files = (HubFile("model.safetensors", 9, "a" * 40, "b" * 64),)
    source = HubFolder("org/model", "c" * 40, files)
    (row,) = checkpoint_rows(checkpoint, source)
    assert set(row) == own("checkpoints")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = len(AutoTokenizer.from_pretrained(folder))
    assert row == {
        "weights_sha256": checkpoint.weights_sha256,
        "architecture": "GPTNeoXForCausalLM",
        "n_parameters": model.num_parameters(),
        "n_layers": 2,
        "d": 32,
        "vocabulary_size": tokens,
        "head_rows": tokens + 2,
        "tied": False,
        "weight_bytes": (folder / "model.safetensors").stat().st_size,
        "stored_dtype": "float32",
        "repository": "org/model",
        "commit": "c" * 40,
        "fingerprint": fingerprint(source),
        "refused": False,
        "finding": None,
        "weight_profile": checkpoint.weight_profile,
    }
    local = Folder("/one", (("config.json", "d" * 64), ("model.safetensors", "b" * 64)))
    (other,) = checkpoint_rows(checkpoint, local)
    # The same weights have the same fingerprint wherever they lie; what lies beside is no part.
    assert (other["repository"], other["fingerprint"]) == (None, row["fingerprint"])
    (made,) = checkpoint_rows(checkpoint, Produced("e" * 64, "step1"))
    assert made["fingerprint"] is None
    assert "influences" in SIDE_TABLES
