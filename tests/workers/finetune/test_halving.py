"""Successive halving: the rungs, and the same decisions as Ray Tune's own ASHA."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from jobs.finetune_work import Halving
from workers.finetune.halving import goes_on, is_rung

LOSSES = st.floats(0.01, 10)


@pytest.mark.parametrize(
    ("halving", "epochs", "rungs"),
    [
        (Halving(1, 3), 3, [1]),
        (Halving(1, 3), 10, [1, 3, 9]),
        (Halving(2, 2), 8, [2, 4]),
        (Halving(3, 2), 3, []),
        (Halving(1, 2), 1, []),
    ],
)
def test_rungs(halving: Halving, epochs: int, rungs: list[int]) -> None:
    assert [e for e in range(1, epochs + 1) if is_rung(halving, e, epochs)] == rungs


@given(
    st.lists(st.lists(LOSSES, min_size=9, max_size=9), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(2, 4),
)
def test_decides_as_ray_tune_does_when_trials_come_one_after_another(
    courses: list[list[float]], grace: int, reduction: int
) -> None:
    halving, epochs = Halving(grace, reduction), 9
    theirs = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="loss",
        mode="min",
        max_t=epochs,
        grace_period=grace,
        reduction_factor=reduction,
    )
    run: list[list[float]] = []
    for number, course in enumerate(courses):
        trial = SimpleNamespace(trial_id=str(number))
        theirs.on_trial_add(None, trial)
        seen: list[float] = []
        for epoch, loss in enumerate(course, start=1):
            seen.append(loss)
            if epoch == epochs:
                break
            asked = theirs.on_trial_result(None, trial, {"epoch": epoch, "loss": loss})
            before = [each[epoch - 1] for each in run if len(each) >= epoch]
            ours = not is_rung(halving, epoch, epochs) or goes_on(loss, before, reduction)
            assert ours == (asked == TrialScheduler.CONTINUE)
            if not ours:
                break
        run.append(seen)


def test_losses_that_are_not_finite_judge_nobody() -> None:
    assert goes_on(5.0, [], 3)
    assert goes_on(5.0, [float("inf"), float("nan")], 3)
    assert not goes_on(5.0, [1.0, float("inf")], 3)
