"""Gaps: holes in a regular stride, and scheduled steps that are not there."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.published import Absent, checkpoint_of, series_of, whole
from workers.audit import audit


def _gaps(steps: Sequence[int], **options: Any) -> list[tuple[int | None, str]]:
    found = audit(series_of({step: whole(step) for step in steps}), **options)
    assert not found.refused
    assert {f.verdict for f in found.findings} <= {"gap"}
    return [(f.step, f.sentence) for f in found.findings]


@pytest.mark.parametrize(
    ("steps", "gaps"),
    [
        ((1000, 2000, 3000, 5000, 6000), [4000]),
        ((0, 1, 2, 4, 8, 16, 1000, 2000, 3000, 6000, 7000, 8000, 10000, 11000), [4000, 9000]),
        ((0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512), []),
        ((0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 640, 768, 896), []),
        ((1000, 2000, 4000), []),  # What comes after may be spaced otherwise.
        ((10, 20, 30, 45, 60, 61), []),
        ((1, 3, 10, 30, 100, 300, 1000, 3000), []),
        ((), []),
    ],
)
def test_holes_in_a_regular_stride(steps: Sequence[int], gaps: list[int]) -> None:
    assert [step for step, _ in _gaps(steps)] == gaps


@given(st.integers(1, 500), st.integers(4, 30), st.integers(0, 10), st.data())
def test_planted_holes_are_found(stride: int, count: int, powers: int, data: st.DataObject) -> None:
    first = (1 << powers) // stride * stride + stride
    regular = [first + stride * place for place in range(count)]
    # The stride must be seen on both sides of what is taken away, and be the commonest.
    hole = data.draw(st.integers(2, count - 2)) if count > 4 else None
    taken = {hole} if hole is not None and hole + 1 < count - 1 else set()
    steps = [1 << power for power in range(powers)]
    steps += [step for place, step in enumerate(regular) if place not in taken]
    assert [step for step, _ in _gaps(steps)] == [regular[place] for place in taken]


def test_a_schedule_says_itself_what_is_missing() -> None:
    steps = (1000, 2000, 3000, 5000, 6000)
    assert _gaps(steps, scheduled={"org/model"}) == []
    (gap,) = _gaps(steps, scheduled={"org/model"}, missing=[Absent(4000)])
    assert gap == (4000, "org/model has no revision step?, which is scheduled")


def test_series_of_a_model_have_strides_of_their_own() -> None:
    early = [checkpoint_of(s, whole(s), repository="org/early") for s in range(0, 9)]
    late = [checkpoint_of(s, whole(s)) for s in range(10, 90, 10)]
    assert not audit([*early, *late]).findings
