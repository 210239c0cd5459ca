"""Collapse of overlaps: complete, absent, and where there is nothing to tell."""

import math
from pathlib import Path

import numpy as np
import pytest

from dashboards.crystallization import collapse, crystallization_sentence
from dashboards.tables import read
from tests.dashboards import synthetic

TOKENS = np.array([0.0, 10, 100, 1000])
COURSE = np.array([0.8, 1.2, 1.6, 1.1])


def test_equal_courses_collapse_and_constant_ones_do_not() -> None:
    assert collapse([(TOKENS, COURSE), (TOKENS, COURSE)]) == pytest.approx(1)
    flat = np.ones(4)
    assert collapse([(TOKENS, flat), (TOKENS, 2 * flat)]) == pytest.approx(0)
    assert 0 < collapse([(TOKENS, COURSE), (TOKENS, COURSE + 0.2)]) < 1


def test_only_the_common_range_counts() -> None:
    longer = (np.append(TOKENS, 1e6), np.append(COURSE, 50.0))
    assert collapse([(TOKENS, COURSE), longer]) == pytest.approx(1)


def test_nothing_to_tell() -> None:
    flat = np.ones(4)
    assert math.isnan(collapse([(TOKENS, COURSE)]))
    assert math.isnan(collapse([(TOKENS, flat), (TOKENS, flat)]))
    assert math.isnan(collapse([(TOKENS, COURSE), (TOKENS + 5000, COURSE)]))


def test_the_sentence_compares_both_scales(tmp_path: Path) -> None:
    results = synthetic.start(tmp_path / "results")
    assert crystallization_sentence(read(results)) is None
    for model, d in (("small", 64), ("large", 256)):
        for step, value in zip((0, 1, 8, 64), COURSE, strict=True):
            synthetic.head(
                results, model, step, 0.1, d=d, overlap_mean=value / math.sqrt(d),
                overlap_mean_scaled=value,
            )  # fmt: skip
    sentence = crystallization_sentence(read(results))
    assert sentence is not None
    assert (
        "2 models over the same tokens: a common course explains 100% of its variance" in sentence
    )
