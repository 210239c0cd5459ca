"""Singular values by rotations, beside LAPACK's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.kernels.jacobi import singular_values


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**20))
def test_values_are_those_of_lapack(rows: int, columns: int, count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).standard_normal((rows, columns, count))
    found = singular_values(torch.from_numpy(drawn))
    expected = np.linalg.svd(np.moveaxis(drawn, -1, 0), compute_uv=False).T
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_small_values_keep_their_digits() -> None:
    left = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 3)))[0]
    scaled = torch.from_numpy(left * [1.0, 1e-6, 1e-12]).unsqueeze(-1)
    np.testing.assert_allclose(singular_values(scaled)[:, 0], [1.0, 1e-6, 1e-12], rtol=1e-12)


@pytest.mark.parametrize("matrix", [np.zeros((3, 2)), np.ones((3, 3)), np.diag([3.0, 0.0])])
def test_degenerate_matrices(matrix: np.ndarray) -> None:
    found = singular_values(torch.from_numpy(matrix).unsqueeze(-1))[:, 0]
    np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), atol=1e-15)


def test_a_matrix_that_is_not_finite_harms_no_other() -> None:
    matrices = torch.ones(2, 2, 3, dtype=torch.float64)
    matrices[0, 0, 1] = torch.inf
    found = singular_values(matrices)
    assert torch.isnan(found[:, 1]).all()
    torch.testing.assert_close(found[:, 0], torch.tensor([2.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found[:, 2], found[:, 0])
