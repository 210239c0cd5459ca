"""Sweeps over M and L against passes that were made on fewer and on shorter sequences."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import DataError
from jobs.records import rows_table
from jobs.work import GeometryWork
from tests.workers.measured import COUNT, SEQUENCES, own
from tests.workers.models import random_sequences, silent, token_sequences
from workers.features import ForwardPass, forward_pass
from workers.hub import LoadedCheckpoint
from workers.measure import geometry_rows
from workers.sequences import TokenSequences
from workers.sweeps import sweep_rows

COUNTS, LENGTHS = (50, 120, COUNT), (3, 7, 12)
WORK = GeometryWork("sample", "0" * 64, "last", "float32", COUNTS, LENGTHS)
TOKENS = random_sequences(COUNT, vocabulary=250)


def _pass(
    checkpoint: LoadedCheckpoint, sequences: TokenSequences, lengths: tuple[int, ...] = ()
) -> ForwardPass:
    return forward_pass(
        checkpoint.model,
        sequences,
        batch_size=16,
        layers=False,
        loss=False,
        report=silent,
        sequence_lengths=lengths,
    )


@pytest.fixture(scope="module")
def swept(checkpoint: LoadedCheckpoint) -> ForwardPass:
    return _pass(checkpoint, SEQUENCES, LENGTHS)


def _same_as_geometry(
    row: dict[str, Any], checkpoint: LoadedCheckpoint, sequences: TokenSequences
) -> None:
    """Compares a point with the last layer's row of a pass over just its sequences."""
    (expected,), _ = geometry_rows(
        replace(WORK, sample_counts=(), sequence_lengths=()),
        checkpoint,
        sequences,
        _pass(checkpoint, sequences),
    )
    assert set(row) - set(expected) == {"sweep"}
    # Tiny eigenvalues, and singular values that are their roots, hold rounding of the pass.
    leeway = {"spectrum": 1e-6, "singular_values": 1e-4}
    for name in set(row) - {"sweep", "dataset", "sequences_fingerprint"}:
        if name in leeway:
            atol = leeway[name] * float(expected[name][0])
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-4, atol=atol)
        else:
            assert row[name] == pytest.approx(expected[name], rel=1e-4), name


def _cut(sequences: Iterable[list[int]], length: int) -> TokenSequences:
    return token_sequences([sequence[:length] for sequence in sequences], length)


def test_a_sweep_has_the_points_that_were_asked_for(
    checkpoint: LoadedCheckpoint, swept: ForwardPass
) -> None:
    rows = sweep_rows(WORK, SEQUENCES, swept)
    points = [(row["sweep"], row["n_sequences"], row["seq_len"]) for row in rows]
    assert points == [
        *(("samples", count, 12) for count in COUNTS),
        *(("length", COUNT, length) for length in LENGTHS),
    ]
    for row in rows:
        assert set(row) == own("sweeps")
        assert row["dataset"] == "sample"
        assert row["sequences_fingerprint"] == SEQUENCES.fingerprint
    assert rows_table("sweeps", rows).num_rows == 6


def test_fewer_samples_are_a_smaller_draw(checkpoint: LoadedCheckpoint, swept: ForwardPass) -> None:
    rows = sweep_rows(replace(WORK, sequence_lengths=()), SEQUENCES, swept)
    for row, count in zip(rows, COUNTS, strict=True):
        _same_as_geometry(row, checkpoint, token_sequences(TOKENS[:count], 12))


def test_shorter_sequences_are_sequences_cut_short(
    checkpoint: LoadedCheckpoint, swept: ForwardPass
) -> None:
    rows = sweep_rows(replace(WORK, sample_counts=()), SEQUENCES, swept)
    for row, length in zip(rows, LENGTHS, strict=True):
        _same_as_geometry(row, checkpoint, _cut(TOKENS, length))


def test_the_whole_is_a_point_too(checkpoint: LoadedCheckpoint, swept: ForwardPass) -> None:
    work = replace(WORK, sample_counts=(COUNT,), sequence_lengths=(12,))
    (whole,), _ = geometry_rows(work, checkpoint, SEQUENCES, swept)
    for row in sweep_rows(work, SEQUENCES, swept):
        for name in ("rankme", "rankme_se", "alpha_req", "alpha_req_se", "share_full_length"):
            assert row[name] == whole[name]


def test_without_points_there_are_no_rows(
    checkpoint: LoadedCheckpoint, passed: ForwardPass
) -> None:
    work = replace(WORK, sample_counts=(), sequence_lengths=())
    assert sweep_rows(work, SEQUENCES, passed) == []


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            {"sample_counts": (10, COUNT + 1)},
            f"sample_counts asks for 201, but dataset 'sample' has sequences = {COUNT}",
        ),
        (
            {"sequence_lengths": (64, 13, 2)},
            "sequence_lengths asks for 64, but dataset 'sample' has sequence_length = 12",
        ),
    ],
)
def test_points_beyond_the_dataset_are_refused(
    checkpoint: LoadedCheckpoint, swept: ForwardPass, points: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        sweep_rows(replace(WORK, **points), SEQUENCES, swept)
    assert "raise its `sequence" in error.value.remedy


def test_a_point_that_cannot_be_measured_is_named(checkpoint: LoadedCheckpoint) -> None:
    # The first tokens are all the same, as one that begins every text would be.
    sequences = token_sequences([[1, *tokens] for tokens in TOKENS], 13)
    passed = _pass(checkpoint, sequences, (1, 2))
    work = replace(WORK, sample_counts=(), sequence_lengths=(2, 1))
    with pytest.raises(DataError, match="the same for every sequence, 200 of them, cut at 1 token"):
        sweep_rows(work, sequences, passed)
    assert torch.isfinite(passed.swept[1]).all()
