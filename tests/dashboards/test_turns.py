"""Turns: found where they were planted, and none invented where there are none."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.turns import FLOOR, Array, find_swings

POINTS = 18


def autoregressive(count: int, correlation: float = 0.5) -> Array:
    return correlation ** np.abs(np.subtract.outer(np.arange(count), np.arange(count))).astype(
        np.float64
    )


def noisy(shape: Array, covariance: Array, draws: int, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    root = np.linalg.cholesky(covariance)
    noise = generator.standard_normal((draws, len(shape))) @ root.T
    series: Array = 100 + shape + noise
    return series


def planted(turns: int, height: float, count: int = POINTS) -> tuple[Array, list[int]]:
    """A series of straight swings of a height, and the places of its turns."""
    corners = np.round(np.linspace(0, count - 1, turns + 2)).astype(int)
    heights = height * (np.arange(turns + 2) % 2 == 0)
    return np.interp(np.arange(count), corners, heights), corners[1:-1].tolist()


def found_within_one(turns: int, height: float, draws: int = 200) -> float:
    shape, places = planted(turns, height)
    covariance = autoregressive(POINTS)
    hits = 0
    for values in noisy(shape, covariance, draws):
        ends = [swing.last for swing in find_swings(values, covariance)][:-1]
        hits += len(ends) == turns and all(
            abs(end - place) <= 1 for end, place in zip(ends, places, strict=True)
        )
    return hits / draws


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_planted_turns_are_found_within_one_checkpoint(turns: int) -> None:
    """Swings of 12 σ, σ that of one value: 8.5 standard errors of the difference of two."""
    assert found_within_one(turns, 12.0) >= 0.95


@pytest.mark.parametrize(
    "shape",
    [
        np.zeros(POINTS),
        np.linspace(0, 5, POINTS),
        np.linspace(0, -20, POINTS),
        20 * (1 - np.exp(-np.arange(POINTS) / 2)),
        np.where(np.arange(POINTS) < 4, 0.0, 15.0),
    ],
    ids=["flat", "slow", "fall", "saturating", "jump"],
)
def test_no_turn_is_invented_in_a_monotone_series(shape: Array) -> None:
    covariance = autoregressive(POINTS)
    runs = [find_swings(values, covariance) for values in noisy(shape, covariance, 300)]
    # Three standard errors of a share of 5 % over 300 series.
    assert sum(len(swings) == 1 for swings in runs) / 300 >= 0.95 - 3 * 0.0126 * (shape[-1] == 15)


def test_noise_that_all_checkpoints_share_hides_no_turn() -> None:
    shape = np.array([0.0, -2, -4, -2, 0, 1, 0, -1])
    shared = 100.0 + 0.01 * np.eye(8)
    assert [swing.sign for swing in find_swings(1000 + shape, shared)] == [0]
    values = 100 + shape
    assert [swing.sign for swing in find_swings(values, shared)] == [-1, 1, -1]
    assert [swing.sign for swing in find_swings(values, np.diag(np.diag(shared)))] == [0]


def test_four_phases_of_an_exact_series() -> None:
    values = np.array([10.0, 6, 3, 5, 9, 12, 8, 7, 7.5, 11])
    swings = find_swings(values, np.zeros((10, 10)))
    assert [(s.first, s.last, s.sign) for s in swings] == [
        (0, 2, -1), (2, 5, 1), (5, 7, -1), (7, 9, 1)
    ]  # fmt: skip
    assert all(s.confidence == 1 and s.earliest == s.last == s.latest for s in swings)


def test_unknown_uncertainty_gives_no_confidence() -> None:
    swings = find_swings(np.array([3.0, 2, 1, 2, 3]), None)
    assert [(swing.sign, swing.confidence) for swing in swings] == [(-1, None), (1, None)]
    assert find_swings(np.array([3.0, 3.0]), None)[0].confidence is None


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [5.0, 5.01, 4.99]])
def test_short_and_flat_series_have_one_flat_stretch(values: list[float]) -> None:
    count = len(values)
    (swing,) = find_swings(np.array(values), np.zeros((count, count)))
    assert (swing.first, swing.last, swing.sign) == (0, count - 1, 0)


def test_a_turn_tells_the_points_that_it_may_be_at() -> None:
    values = np.array([1000.0, 1005, 1020, 1020.1, 1019.9, 1005, 1000])
    swings = find_swings(values, np.eye(7))
    assert (swings[0].last, swings[0].earliest, swings[0].latest) == (3, 2, 4)
    assert swings[0].confidence is not None
    assert swings[0].confidence > 0.99


def test_what_is_no_series_is_refused() -> None:
    for values in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="at least one value"):
            find_swings(values, None)
    with pytest.raises(ValueError, match="do not go"):
        find_swings(np.array([1.0, 2.0]), np.eye(3))


def most_swings(values: Array) -> tuple[int, float]:
    """Every alternating chain of every length, one after another."""
    best = (0, 0.0)
    for length in range(2, len(values) + 1):
        for places in itertools.combinations(range(len(values)), length):
            chosen = values[list(places)]
            changes = np.diff(chosen)
            needed = FLOOR * np.maximum(np.abs(chosen[1:]), np.abs(chosen[:-1]))
            alternates = (np.sign(changes[1:]) == -np.sign(changes[:-1])).all()
            if alternates and (np.abs(changes) > needed).all():
                best = max(best, (length - 1, float(np.abs(changes).sum())))
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(95, 105), min_size=1, max_size=8))
def test_the_chain_is_the_best_of_all(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.float64)
    swings = find_swings(values, np.zeros((len(values), len(values))))
    swung = [swing for swing in swings if swing.sign]
    variation = sum(abs(values[swing.extreme] - values[swing.origin]) for swing in swung)
    count, most = most_swings(values)
    assert (len(swung), variation) == (count, pytest.approx(most))
    assert [s.first for s in swings[1:]] == [s.last for s in swings[:-1]]
    assert (swings[0].first, swings[-1].last) == (0, len(values) - 1)
