"""What is fetched: the largest checkpoint must fit in the disk budget."""

import pytest

from jobs.errors import UsageError
from orchestrator.downloads import check_budget
from tests.orchestrator.hub_cells import checkpoint, drawing, measured

CELLS = [cell for step in (1, 2, 3) for cell in measured(checkpoint(step, step * 10**9), drawing())]


def test_a_budget_for_the_largest_checkpoint_will_do() -> None:
    check_budget(CELLS, 3 * 10**9 + 3_000)
    check_budget([drawing()], 1)
    check_budget([], 1)


def test_the_largest_checkpoint_that_doesnt_fit_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"2\.9 GB has no room for suite/model-1b@step3 \(3\.0 GB\) → .* 9\.0 GB"
    ):
        check_budget(CELLS, 2_900_000_000)
