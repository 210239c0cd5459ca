"""The tractable model beside autograd, finite differences and the paper's theorems."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from workers.kernels import toy
from workers.kernels.toy import Loss, Run, Start, descend, initial, log_schedule

SKEWED = (8, 4, 2, 1)
LOSSES: tuple[Loss, ...] = ("cross_entropy", "squared_error")


def one_hot(counts: tuple[int, ...]) -> torch.Tensor:
    return torch.eye(len(counts), dtype=torch.float64).repeat_interleave(torch.tensor(counts), 0)


def residual(run: Run, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The paper's A."""
    logits = features @ weights
    outputs = logits.softmax(-1) if run.loss == "cross_entropy" else logits
    return outputs - one_hot(run.counts)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("start", ["gaussian", "balanced"])
@pytest.mark.parametrize(("counts", "width"), [(SKEWED, 2), ((2, 2, 2), 3), ((5,), 1), ((3, 1), 4)])
def test_runs_are_those_of_autograd(
    loss: Loss, start: Start, counts: tuple[int, ...], width: int
) -> None:
    runs = [Run(counts, width, 0.3, 0.02, seed, loss, start) for seed in range(3)]
    steps = (0, 1, 7, 40)
    found = descend(runs, steps, keep=(0, 1, 2))
    for place, run in enumerate(runs):
        for when, (f, w) in enumerate(references.descend_alone(run, *initial(run), steps)):
            np.testing.assert_allclose(found.features[place, when], f, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(found.weights[place, when], w, rtol=1e-10, atol=1e-13)
            sigma = np.linalg.svd(f, compute_uv=False).astype(np.float64)
            np.testing.assert_allclose(found.sigma_features[place, when], sigma, atol=1e-12)
            assert float(found.rankme[place, when]) == pytest.approx(references.rankme(sigma**2))
            value, own = references.toy_outputs(run, f, w)
            assert float(found.loss[place, when]) == pytest.approx(value)
            np.testing.assert_allclose(found.probabilities[place, when], own, rtol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_step_is_equation_12_and_the_gradient_by_finite_differences(loss: Loss) -> None:
    run = Run(SKEWED, 2, 0.5, 0.01, 3, loss)
    found = descend([run], (0, 1), keep=(0,))
    (f, moved), (w, turned) = found.features[0], found.weights[0]
    by_equation = residual(run, f, w)
    torch.testing.assert_close(moved, f - 0.01 * by_equation @ w.T, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(turned, w - 0.01 * f.T @ by_equation, rtol=1e-12, atol=1e-14)
    for tensor, gradient in ((f, (f - moved) / 0.01), (w, (w - turned) / 0.01)):
        for place in np.ndindex(*tensor.shape):
            before = float(tensor[place])
            values = []
            for change in (1e-6, -1e-6):
                tensor[place] = before + change
                values.append(references.toy_outputs(run, f.numpy(), w.numpy())[0])
            tensor[place] = before
            slope = sum(run.counts) * (values[0] - values[1]) / 2e-6
            assert float(gradient[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("start", ["gaussian", "balanced"])
def test_what_theorem_b2_conserves_is_off_by_the_step_size(loss: Loss, start: Start) -> None:
    """Gradient flow conserves fᵀf − WWᵀ; Euler steps miss it by O(η) at a fixed time."""
    errors = []
    for halvings in range(5):
        rate = 0.02 / 2**halvings
        found = descend(
            [Run(SKEWED, 2, 0.4, rate, seed, loss, start) for seed in range(4)],
            (0, 50 * 2**halvings),
            keep=range(4),
        )
        f, w = found.features, found.weights
        kept = f.mT @ f - w @ w.mT
        errors.append(float((kept[:, 1] - kept[:, 0]).norm()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[0] < 0.2
    assert orders[-1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("width", [2, 3, 4])
def test_theorem_b2_from_the_balanced_start(loss: Loss, width: int) -> None:
    run = Run(SKEWED, width, 0.4, 4e-4, 1, loss, "balanced")
    found = descend([run], (0, 1000, 5000), keep=(0,))
    torch.testing.assert_close(found.sigma_features, found.sigma_weights, rtol=2e-3, atol=1e-4)
    for f, w in zip(found.features[0], found.weights[0], strict=True):
        right = torch.linalg.svd(f, full_matrices=False)[2]
        left = torch.linalg.svd(w, full_matrices=False)[0]
        # Up to sign; the singular values of a random start are apart.
        torch.testing.assert_close(
            (right @ left).abs(), torch.eye(width).double(), atol=0.02, rtol=0
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_theorem_b3_singular_values_grow_by_equations_17_and_18(loss: Loss) -> None:
    rate = 6e-5
    run = Run(SKEWED, 2, 0.4, rate, 2, loss, "balanced")
    found = descend([run], (0, 1, 5000, 5001), keep=(0,))
    for before in (0, 2):
        f, w = found.features[0, before], found.weights[0, before]
        u1, sigma1, v1 = torch.linalg.svd(f, full_matrices=False)
        u2, sigma2, v2 = torch.linalg.svd(w, full_matrices=False)
        aligned = (v1 @ u2).diagonal().sign()  # V₁ = U₂ up to sign: turn the signs alike.
        g = torch.einsum("bi,bc,ic->i", u1, residual(run, f, w), v2 * aligned[:, None])
        growth = found.sigma_features[0, before + 1] - found.sigma_features[0, before]
        torch.testing.assert_close(growth, -rate * g * sigma2, rtol=5e-3, atol=1e-9)
        growth = found.sigma_weights[0, before + 1] - found.sigma_weights[0, before]
        torch.testing.assert_close(growth, -rate * g * sigma1, rtol=5e-3, atol=1e-9)


def test_one_example_of_one_class_follows_its_closed_form() -> None:
    """Squared error, d = 1, f = w: the scalar map s ← s + η s (1 − s²), to s = 1."""
    run = Run((1,), 1, 0.1, 0.05, 0, "squared_error", "balanced")
    found = descend([run], tuple(range(200)), keep=(0,))
    size = abs(float(initial(run)[1][0, 0]))
    sign = float(torch.sign(found.features[0, 0, 0, 0] * found.weights[0, 0, 0, 0]))
    for step in range(200):
        assert float(found.sigma_features[0, step, 0]) == pytest.approx(size, rel=1e-9)
        if sign < 0:
            pytest.skip("this seed starts against its target")
        size += 0.05 * size * (1 - size**2)


def test_squared_error_settles_at_the_best_rank_d_fit() -> None:
    """½‖fW − Y‖² ends at the d most frequent classes: the singular values of Y are √counts."""
    run = Run((9, 4, 2, 1), 2, 0.05, 0.1, 0, "squared_error")
    found = descend([run], (0, 4000))
    expected = 0.5 * (2 + 1) / 16
    assert float(found.loss[0, -1]) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(found.probabilities[0, -1], [1, 1, 0, 0], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple),
    width=st.integers(1, 4),
    loss=st.sampled_from(LOSSES),
    chunk=st.integers(1, 200),
    many=st.integers(1, 9),
)
def test_a_run_does_the_same_whatever_runs_beside_it(
    counts: tuple[int, ...], width: int, loss: Loss, chunk: int, many: int
) -> None:
    runs = [Run(counts, width, 0.2 + 0.1 * s, 0.01 * (1 + s), s, loss) for s in range(many)]
    together = descend(runs, (0, 3, 11), keep=range(many))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "_CHUNK_ELEMENTS", chunk)
        chunked = descend(runs, (0, 3, 11), keep=range(many))
    alone = [descend([run], (0, 3, 11), keep=(0,)) for run in runs]
    for name in ("features", "weights", "rankme", "loss", "probabilities", "sigma_weights"):
        whole = getattr(together, name)
        torch.testing.assert_close(whole, getattr(chunked, name), rtol=1e-12, atol=1e-14)
        single = torch.cat([getattr(part, name) for part in alone])
        torch.testing.assert_close(whole, single, rtol=1e-12, atol=1e-14)


def test_a_run_that_diverges_is_told_and_harms_no_other() -> None:
    good = Run(SKEWED, 2, 0.3, 0.01, 0, "squared_error")
    bad = Run(SKEWED, 2, 0.3, 5.0, 1, "squared_error")
    found = descend([bad, good], (0, 1, 100, 200))
    assert found.diverged.tolist() == [100, -1]
    assert math.isnan(float(found.rankme[0, -1]))
    torch.testing.assert_close(found.rankme[1:], descend([good], (0, 1, 100, 200)).rankme)


def test_only_the_runs_that_are_named_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(SKEWED, 2, 0.3, 0.01, seed) for seed in range(5)]
    monkeypatch.setattr(toy, "_CHUNK_ELEMENTS", 2 * 15 * 4)
    some, every = descend(runs, (0, 9), keep=(1, 2, 4)), descend(runs, (0, 9), keep=range(5))
    torch.testing.assert_close(some.features, every.features[[1, 2, 4]])
    torch.testing.assert_close(some.weights, every.weights[[1, 2, 4]])


def test_seeds_and_scales_are_told_apart() -> None:
    first, second = (initial(Run(SKEWED, 2, 0.1, 0.1, seed)) for seed in (0, 1))
    assert not np.allclose(first[0], second[0])
    larger = initial(Run(SKEWED, 2, 0.2, 0.1, 0))
    np.testing.assert_allclose(larger[0], 2 * first[0])
    f, w = initial(Run(SKEWED, 3, 0.1, 0.1, 0, start="balanced"))
    np.testing.assert_allclose(f.T @ f, w @ w.T, atol=1e-15)


def test_schedule_is_logarithmic_and_ends_where_it_should() -> None:
    steps = log_schedule(10000, 40)
    assert steps[0] == 0
    assert steps[-1] == 10000
    assert all(a < b for a, b in itertools.pairwise(steps))
    late = np.diff(np.log1p(steps))[-10:]
    np.testing.assert_allclose(late, late.mean(), rtol=0.02)
    assert log_schedule(1, 2) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"counts": ()}, "at least one example"),
        ({"counts": (2, 0)}, "at least one example"),
        ({"width": 0}, "at least one dimension"),
        ({"scale": 0.0}, "positive"),
        ({"learning_rate": float("nan")}, "positive"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, object], told: str) -> None:
    good: dict[str, object] = {
        "counts": (2, 1), "width": 1, "scale": 0.1, "learning_rate": 0.1, "seed": 0
    }  # fmt: skip
    with pytest.raises(ValueError, match=told):
        Run(**{**good, **changes})  # type: ignore[arg-type]


def test_runs_of_several_shapes_and_wrong_schedules_are_refused() -> None:
    run = Run((2, 1), 1, 0.1, 0.1, 0)
    with pytest.raises(ValueError, match="one shape"):
        descend([run, Run((2, 1), 2, 0.1, 0.1, 0)], (0, 1))
    with pytest.raises(ValueError, match="one shape"):
        descend([], (0, 1))
    for steps in ((), (1, 1), (-1, 2)):
        with pytest.raises(ValueError, match="ascend"):
            descend([run], steps)
    with pytest.raises(ValueError, match="no schedule"):
        log_schedule(0, 10)
