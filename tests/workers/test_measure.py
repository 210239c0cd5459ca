"""Rows of the geometry and of the influences, against the oracles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import DataError
from jobs.records import rows_table
from jobs.work import GeometryWork
from tests import references
from tests.references import Array
from tests.workers.measured import (
    COUNT,
    ERRORS,
    GEOMETRY,
    SEQUENCES,
    by_hand,
    own,
)
from tests.workers.models import token_sequences
from workers.features import ForwardPass
from workers.hub import LoadedCheckpoint
from workers.kernels.moments import MomentAccumulator
from workers.measure import geometry_rows


def _rows(features: Array | torch.Tensor, checkpoint: LoadedCheckpoint) -> dict[str, Any]:
    """The last layer's row of features that are given."""
    given = ForwardPass(
        torch.as_tensor(features).float(), {}, None, torch.ones(len(features), dtype=torch.int64)
    )
    sequences = token_sequences([[1]] * len(features), 1)
    return geometry_rows(GEOMETRY, checkpoint, sequences, given)[0][0]


def _check_spectral(row: dict[str, Any], features: Array, tolerance: float = 1e-5) -> None:
    """Compares every column that is drawn from the covariance alone with the oracles."""
    values = references.eigenvalues(features)
    count, width = features.shape
    rank = int((values > values[0] * 1e-12).sum())
    alpha, r2 = references.alpha_req(values, count, rank)
    expected = {
        "rankme": references.rankme(values),
        "rankme_sv": references.rankme_singular(features),
        "alpha_req": alpha,
        "alpha_r2": r2,
        "participation_ratio": references.participation_ratio(features),
        "stable_rank": values.sum() / values[0],
        "top1_share": values[0] / values.sum(),
        "top10_share": values[:10].sum() / values.sum(),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=tolerance), name
    np.testing.assert_allclose(
        row["spectrum"], values, rtol=tolerance, atol=tolerance * values[0] * 1e-3
    )
    assert row["d"] == width
    assert row["n_sequences"] == count


def test_geometry_of_given_features(checkpoint: LoadedCheckpoint) -> None:
    features = np.random.default_rng(0).normal(size=(400, 32)) * np.arange(1, 33) ** -0.7 + 3
    features = features.astype(np.float32).astype(np.float64)
    row = _rows(features, checkpoint)
    _check_spectral(row, features, 1e-6)
    assert (row["alpha_first_rank"], row["alpha_last_rank"]) == (2, 15)
    half = references.rankme(references.eigenvalues(features[:200]))
    assert row["rankme_extrapolated"] == pytest.approx(2 * row["rankme"] - half, rel=1e-6)
    head = checkpoint.head.double().numpy()
    assert row["rankme_logits"] == pytest.approx(references.rankme_logits(features, head), rel=1e-6)
    assert row["se_reliable"]
    assert not _rows(features[:319], checkpoint)["se_reliable"]


def test_a_row_holds_what_its_numbers_are_made_of(
    checkpoint: LoadedCheckpoint, passed: ForwardPass
) -> None:
    rows, _ = geometry_rows(GEOMETRY, checkpoint, SEQUENCES, passed)
    for row in rows:
        assert row["rankme"] == pytest.approx(references.rankme(row["spectrum"]), rel=1e-12)
        shares = row["singular_values"] / row["singular_values"].sum() + 1e-7
        assert row["rankme_sv"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    row, features = rows[0], passed.features.double().numpy()
    half, logits = row["spectrum_half"], row["spectrum_logits"]
    extrapolated = 2 * references.rankme(row["spectrum"]) - references.rankme(half)
    assert row["rankme_extrapolated"] == pytest.approx(extrapolated, rel=1e-12)
    assert row["rankme_logits"] == pytest.approx(references.rankme(logits), rel=1e-12)
    own_logits = features @ checkpoint.head.double().numpy().T
    own_logits -= own_logits.mean(axis=1, keepdims=True)
    for given, told in ((features[: COUNT // 2], half), (own_logits, logits)):
        values = references.eigenvalues(given)
        np.testing.assert_allclose(told, values[: len(told)], rtol=1e-5, atol=1e-9 * values[0])


def test_standard_errors_are_those_of_the_bootstrap(checkpoint: LoadedCheckpoint) -> None:
    features = np.random.default_rng(1).normal(size=(600, 16)) * np.arange(1, 17) ** -1.2
    checkpoint = replace(checkpoint, head=checkpoint.head[:, :16])
    row = _rows(features, checkpoint)
    rankme_error, alpha_error = references.bootstrap_errors(
        features,
        lambda values: (references.rankme(values), references.alpha_req(values, 600)[0]),
        200,
        0,
    )
    assert row["rankme_se"] == pytest.approx(rankme_error, rel=0.25)
    assert row["alpha_req_se"] == pytest.approx(alpha_error, rel=0.25)


def test_geometry_of_a_checkpoint_and_of_all_its_layers(
    tiny_series: Path, checkpoint: LoadedCheckpoint, passed: ForwardPass
) -> None:
    layers, head = by_hand(tiny_series / "step100")
    rows, (side,) = geometry_rows(GEOMETRY, checkpoint, SEQUENCES, passed)
    assert [row["layer"] for row in rows] == [-1, 0, 1, 2]
    for row in rows:
        expected = own("geometry") - (ERRORS if row["layer"] != -1 else set())
        assert set(row) == expected
        assert not any(value is None for value in row.values())
        assert row["dataset"] == "sample"
        assert row["sequences_fingerprint"] == SEQUENCES.fingerprint
        assert row["seq_len"] == 12
        assert row["share_full_length"] == SEQUENCES.share_full_length
        assert row["forward_dtype"] == "float32"
        _check_spectral(row, layers[row["layer"]])
    last = layers[-1]
    half = references.rankme(references.eigenvalues(last[: COUNT // 2]))
    assert rows[0]["rankme_extrapolated"] == pytest.approx(2 * rows[0]["rankme"] - half, rel=1e-5)
    assert rows[0]["rankme_logits"] == pytest.approx(references.rankme_logits(last, head), rel=1e-5)
    assert set(side) == own("influences")
    assert side["layer"] == -1
    for name in ("rankme", "alpha_req"):
        influence = side[f"influence_{name}"]
        assert influence.shape == (COUNT,)
        assert influence.sum() == pytest.approx(0, abs=1e-3 * float(np.abs(influence).max()))
        error = np.linalg.norm(influence.astype(np.float64))
        assert rows[0][f"{name}_se"] == pytest.approx(error, rel=1e-5)
    assert rows_table("geometry", rows).num_rows == 4
    assert rows_table("influences", [side]).num_rows == 1


def test_an_influence_is_what_one_sequence_more_changes(checkpoint: LoadedCheckpoint) -> None:
    features = np.random.default_rng(2).normal(size=(500, 32)) * np.arange(1, 33) ** -0.5
    features = features.astype(np.float32).astype(np.float64)
    given = ForwardPass(torch.from_numpy(features).float(), {}, None, torch.ones(500))
    sequences = token_sequences([[1]] * 500, 1)
    side = geometry_rows(GEOMETRY, checkpoint, sequences, given)[1][0]
    for place in (0, 3, 499):
        nudge = 1e-4
        changed = []
        for sign in (1, -1):
            weights = np.ones(500)
            weights[place] += sign * nudge
            values = references.weighted_eigenvalues(features, weights)
            changed.append((references.rankme(values), references.alpha_req(values, 500)[0]))
        by_rankme, by_alpha = (np.array(changed[0]) - np.array(changed[1])) / (2 * nudge)
        assert side["influence_rankme"][place] == pytest.approx(by_rankme, rel=1e-3, abs=1e-6)
        assert side["influence_alpha_req"][place] == pytest.approx(by_alpha, rel=1e-3, abs=1e-7)


def test_the_last_layer_alone(checkpoint: LoadedCheckpoint, passed: ForwardPass) -> None:
    work = GeometryWork("sample", "0" * 64, "last", "float32")
    rows, side = geometry_rows(work, checkpoint, SEQUENCES, passed)
    assert [row["layer"] for row in rows] == [-1]
    assert [row["layer"] for row in side] == [-1]


@pytest.mark.parametrize("count", [4, 5, 20, 31, 32, 33])
def test_fewer_sequences_than_dimensions(checkpoint: LoadedCheckpoint, count: int) -> None:
    rounded = np.random.default_rng(4).normal(size=(count, 32)).astype(np.float32)
    features = rounded.astype(np.float64)
    row = _rows(features, checkpoint)
    values = references.eigenvalues(features)
    assert row["rankme"] == pytest.approx(references.rankme(values[: count - 1]), rel=1e-6)
    assert row["rankme"] <= count - 1
    alpha, _ = references.alpha_req(values, count, min(count - 1, 32))
    if np.isnan(alpha):
        assert row["alpha_req"] is row["alpha_r2"] is row["alpha_req_se"] is None
    else:
        assert row["alpha_req"] == pytest.approx(alpha, rel=1e-6)
    assert not row["se_reliable"]
    rows_table("geometry", [row])


def test_features_without_variance_are_refused(checkpoint: LoadedCheckpoint) -> None:
    generator = torch.Generator().manual_seed(0)
    one = 0.1 + torch.randn(32, generator=generator)
    features = one.repeat(333, 1)
    noise = 1 + 2e-7 * torch.randn(333, 32, generator=generator)
    for constant in (features, torch.zeros(333, 32), features * noise):
        with pytest.raises(DataError, match="layer -1 are the same") as error:
            _rows(constant, checkpoint)
        assert error.value.remedy
    tiny = one + 1e-4 * torch.randn(333, 32, generator=generator)
    assert _rows(tiny, checkpoint)["rankme"] > 20


@pytest.mark.parametrize(
    ("value", "message"), [(torch.inf, "layer 1 are not finite"), (1.0, "layer 1 are the same")]
)
def test_a_layer_that_cannot_be_measured_is_refused(
    checkpoint: LoadedCheckpoint, passed: ForwardPass, value: float, message: str
) -> None:
    layer = MomentAccumulator()
    layer.update(torch.full((COUNT, 32), value))
    with pytest.raises(DataError, match=message):
        geometry_rows(GEOMETRY, checkpoint, SEQUENCES, replace(passed, layers={1: layer}))
