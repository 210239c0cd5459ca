"""Sweeps over M and L: the last layer's spectrum on fewer and on shorter sequences.

Invariant: nothing is run again; every point reads the pass that the geometry reads.
"""

from typing import Any

import torch

from jobs.errors import DataError
from jobs.work import GeometryWork
from workers.features import ForwardPass
from workers.measure import Rows
from workers.sequences import TokenSequences
from workers.spectra import LAST_LAYER, feature_columns
from workers.tally import phase


@phase("fit")
def sweep_rows(work: GeometryWork, sequences: TokenSequences, passed: ForwardPass) -> Rows:
    """Returns the rows of side table `sweeps`: the points over M, then those over L.

    Args:
        work: Which points; they may be none.
        sequences: What the pass read.
        passed: A pass with the work's sequence lengths.

    Raises:
        DataError: A point beyond the M or the L of the dataset, or one whose features don't vary
            or are not finite.
    """
    _check_points(work, sequences)
    by_samples = [
        _row(work, sequences, passed.features[:count], {"sweep": "samples", "n_sequences": count})
        for count in work.sample_counts
    ]
    by_length = [
        _row(work, sequences, passed.swept[length], {"sweep": "length", "seq_len": length})
        for length in work.sequence_lengths
    ]
    return by_samples + by_length


def _check_points(work: GeometryWork, sequences: TokenSequences) -> None:
    for field, points, most, setting in (
        ("sample_counts", work.sample_counts, len(sequences), "sequences"),
        ("sequence_lengths", work.sequence_lengths, sequences.seq_len, "sequence_length"),
    ):
        beyond = [point for point in points if point > most]
        if beyond:
            raise DataError(
                f"geometry.{field} asks for {max(beyond)}, but dataset '{work.dataset}' has "
                f"{setting} = {most}",
                f"raise its `{setting}`, or leave the point out",
            )


def _row(
    work: GeometryWork, sequences: TokenSequences, features: torch.Tensor, point: dict[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": work.dataset,
        "sequences_fingerprint": sequences.fingerprint,
        "n_sequences": len(sequences),
        "seq_len": sequences.seq_len,
    } | point
    # A sequence that was cut at the point's length has that length.
    full = sequences.lengths[: len(features)] >= row["seq_len"]
    row["share_full_length"] = float(full.double().mean())
    try:
        columns, _ = feature_columns(features, LAST_LAYER)
    except DataError as error:
        raise DataError(
            f"{error.message}, {row['n_sequences']} of them, cut at {row['seq_len']} tokens",
            "leave that point out of geometry.sample_counts or geometry.sequence_lengths",
        ) from error
    return row | columns
