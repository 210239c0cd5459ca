"""Singular values of very many very small matrices at once.

LAPACK takes them one by one, which costs microseconds each however small they are.
"""

import torch
from torch import Tensor

_SWEEPS = 30


def singular_values(matrices: Tensor) -> Tensor:
    """Singular values by one-sided Jacobi rotations (Hestenes 1958), on all matrices at once.

    Columns are turned in pairs until all are orthogonal; their norms are the singular values then,
    the small ones to full relative precision (Demmel and Veselić 1992).

    Args:
        matrices: Shape (m, n, R), the matrices last; any floating type.

    Returns:
        Descending, shape (min(m, n), R), of the same type. NaN where a matrix isn't finite.
    """
    rows, columns, count = matrices.shape
    turned = (matrices.transpose(0, 1) if columns > rows else matrices).clone()
    finite = torch.isfinite(turned).flatten(0, 1).all(dim=0)
    turned[..., ~finite] = 0.0
    size = turned.shape[1]
    tolerance = 4 * torch.finfo(turned.dtype).eps
    pairs = [(p, q) for p in range(size) for q in range(p + 1, size)]
    for _ in range(_SWEEPS):
        # Whether some pair was not yet orthogonal; one look at the device for each sweep.
        skewed = turned.new_zeros(count, dtype=torch.bool)
        for p, q in pairs:
            skewed |= _rotate(turned, p, q, tolerance)
        if not bool(skewed.any()):
            break
    values = torch.linalg.vector_norm(turned, dim=0).sort(dim=0, descending=True).values
    return torch.where(finite, values, torch.nan)


def _rotate(matrices: Tensor, p: int, q: int, tolerance: float) -> Tensor:
    """Makes columns p and q orthogonal, in place, and returns where they were not."""
    first, second = matrices[:, p], matrices[:, q]
    a, b = first.square().sum(dim=0), second.square().sum(dim=0)
    c = (first * second).sum(dim=0)
    skewed = c.abs() > tolerance * (a * b).sqrt()
    # t is the smaller root of t² + 2ζt = 1 with ζ = (b − a)/2c, the tangent of the rotation.
    zeta = (b - a) / torch.where(skewed, 2 * c, 1.0)
    tangent = torch.copysign(1 / (zeta.abs() + torch.hypot(zeta, torch.ones_like(zeta))), zeta)
    tangent = torch.where(skewed, tangent, 0.0)
    cosine = torch.rsqrt(1 + tangent.square())
    sine = cosine * tangent
    matrices[:, p], matrices[:, q] = (
        cosine * first - sine * second,
        sine * first + cosine * second,
    )
    return skewed
