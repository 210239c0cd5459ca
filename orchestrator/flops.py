"""FLOPs of a model's passes, and how many of a processor's peak are assumed to be reached."""

from jobs.frozen import DType
from orchestrator.hardware import Processor
from orchestrator.model_sizes import ModelSize

UTILIZATION = {"gpu": 0.3, "gpu float32": 0.6, "cpu": 0.5}
"""Share of the peak that matrix products reach: on tensor cores, without them, and on a CPU."""

FACTORIZATION = {"gpu": 0.03, "cpu": 0.25}
"""Share of the float64 peak that eigendecompositions reach; half of one moves vectors alone."""

BLOCK_SECONDS = 1e-3
"""One block of the network on one batch, forward, however small the model is."""

FACTORIZATION_FLOPS = 12
"""Times d³: 9 for eigenvalues and vectors, 8/3 for singular values."""


def matrix_rate(processor: Processor, dtype: DType = "float32") -> float:
    """Returns the FLOP/s that matrix products are assumed to reach."""
    peak = processor.peak(dtype)
    if processor.memory is None:
        return peak * UTILIZATION["cpu"]
    return peak * UTILIZATION["gpu" if peak > processor.float32 else "gpu float32"]


def factorization_rate(processor: Processor) -> float:
    """Returns the FLOP/s that eigendecompositions are assumed to reach."""
    share = FACTORIZATION["cpu" if processor.memory is None else "gpu"]
    return processor.float64 * share


def forward_flops(size: ModelSize, tokens: int, length: int, logits: bool) -> float:
    """Returns the FLOPs of a pass: matrices, the attention's two products, and the logits."""
    matrices = size.body + (size.rows * size.width if logits else 0)
    return tokens * (2.0 * matrices + 4.0 * size.layers * length * size.width)
