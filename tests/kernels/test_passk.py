"""pass@k against counting, published values and slow bootstraps; crossings against sign changes."""

import csv
from itertools import combinations
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.kernels.passk import bootstrap, curves, guessing, means, pass_at_k

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published"
needs_data = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the counts of ../shared/data are not beside the repository"
)


@st.composite
def counted(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 60))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counted())
def test_it_is_the_share_of_subsets_with_a_right_one(given_counts: tuple[int, int, int]) -> None:
    n, c, k = given_counts
    exact = 1 - comb(n - c, k) / comb(n, k)
    assert pass_at_k(n, [c], k)[0] == pytest.approx(exact, abs=1e-13)
    if n - c < k:
        assert pass_at_k(n, [c], k)[0] == 1.0


def test_subsets_one_by_one() -> None:
    right = [True, False, True, False, False, False]
    for k in range(1, 7):
        subsets = [any(chosen) for chosen in combinations(right, k)]
        assert pass_at_k(6, [2], k)[0] == pytest.approx(np.mean(subsets), abs=1e-15)


@needs_data
def test_published_values_are_reproduced() -> None:
    with (PUBLISHED / "monkeys_math_counts_n10000.csv").open() as file:
        counts = {
            (row["model"], row["problem_idx"]): (int(row["n_samples"]), int(row["n_correct"]))
            for row in csv.DictReader(file)
        }
    by_k: dict[int, list[tuple[tuple[str, str], float]]] = {}
    with (PUBLISHED / "monkeys_math_passk_published.csv").open() as file:
        for row in csv.DictReader(file):
            problem = row["model"], row["problem_idx"]
            by_k.setdefault(int(row["k"]), []).append((problem, float(row["pass_at_k_published"])))
    assert len(by_k) == 14
    for k, published in by_k.items():
        n, c = zip(*(counts[problem] for problem, _ in published), strict=True)
        np.testing.assert_allclose(
            pass_at_k(n, c, k), [v for _, v in published], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0)])
def test_what_cannot_be_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="n"):
        pass_at_k(n, [c], k)


def test_problems_may_have_other_numbers_of_samples() -> None:
    np.testing.assert_array_equal(
        curves([4, 8], [1, 2], (1, 2)), [[0.25, 0.5], [0.25, pass_at_k(8, [2], 2)[0]]]
    )
    with pytest.raises(ValueError, match="n is 4"):
        pass_at_k([4, 8], [1, 2], 5)


def test_guesses_are_independent() -> None:
    shares = np.array([0.0, 0.1, 1.0])
    generator = np.random.default_rng(0)
    for k, expected in zip((1, 3), guessing(shares, (1, 3)), strict=True):
        drawn = (generator.random((200_000, 3, k)) < shares[:, None]).any(axis=2)
        assert drawn.mean() == pytest.approx(expected, abs=2e-3)


def test_means_and_their_uncertainty() -> None:
    values = np.random.default_rng(1).random((40, 3)) ** [1, 2, 3]
    found = means(values, 0)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    for place in range(3):
        column = values[:, place].tolist()
        deviation = sum((v - found.mean[place]) ** 2 for v in column) / 39
        assert found.stderr[place] == pytest.approx(sqrt(deviation / 40))
        # The percentile interval of a mean of 40 is close to ± 1.96 standard errors.
        width = found.high[place] - found.low[place]
        assert width == pytest.approx(2 * 1.96 * found.stderr[place], rel=0.1)


def test_one_problem_has_no_standard_error() -> None:
    found = means([[0.2, 0.4]], 0)
    assert np.isnan(found.stderr).all()
    np.testing.assert_array_equal(found.low, found.high)


def test_the_bootstrap_draws_whole_problems_by_its_seed() -> None:
    values = np.random.default_rng(2).random((12, 2))
    values[:, 1] = 3 * values[:, 0]
    drawn = bootstrap(values, 5, 2500)
    assert drawn.shape == (2500, 2)
    np.testing.assert_allclose(drawn[:, 1], 3 * drawn[:, 0])
    np.testing.assert_array_equal(drawn, bootstrap(values, 5, 2500))
    generator = np.random.default_rng(3)
    slow = [values[generator.integers(0, 12, 12), 0].mean() for _ in range(2500)]
    for percentile in (2.5, 50, 97.5):
        expected = np.percentile(slow, percentile)
        assert np.percentile(drawn[:, 0], percentile) == pytest.approx(expected, abs=0.02)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    first = np.random.default_rng(4).random((30, 1))
    difference = means(first + 0.01 - first, 0)
    assert difference.low[0] == pytest.approx(0.01)
    assert difference.high[0] == pytest.approx(0.01)
