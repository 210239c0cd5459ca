"""The logits' spectrum against that of logits that are formed, and what it doesn't know."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import references
from tests.kernels.test_spectrum import PRECISE, decompose, power_law, seeds, values_of
from tests.references import Array
from workers.kernels.logits import logits_spectrum
from workers.kernels.spectrum import rankme


@PRECISE
@given(seed=seeds, width=st.integers(3, 24), tokens=st.integers(4, 60))
def test_rankme_of_logits_is_that_of_the_logits_and_knows_no_gauge(
    seed: int, width: int, tokens: int
) -> None:
    generator = np.random.default_rng(seed)
    features, head = power_law(100, width, seed), generator.standard_normal((tokens, width))
    gain = generator.uniform(0.2, 5, width)

    def logits(rows: Array, weights: Array) -> float:
        return rankme(logits_spectrum(decompose(torch.from_numpy(rows)), torch.from_numpy(weights)))

    value = logits(features, head)
    assert value == pytest.approx(references.rankme_logits(features, head), rel=1e-6)
    assert logits(features, head + 4 * gain) == pytest.approx(value, rel=1e-8)
    assert logits(features * gain, head / gain) == pytest.approx(value, rel=1e-8)
    raw, moved = rankme(values_of(features)), rankme(values_of(features * gain))
    assert abs(moved / raw - 1) > 1e-6


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        logits_spectrum(decompose(torch.randn(9, 3)), torch.ones(5, 4))
