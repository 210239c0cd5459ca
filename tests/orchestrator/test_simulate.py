"""Simulated runs: the real scheduler in simulated time, and what it can't be faster than."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cells import Cell
from orchestrator.simulate import TaskSeconds, simulate
from orchestrator.simulated_nodes import SimulatedCluster
from tests.orchestrator.fake_cells import making, measuring

SIZE = 1000  # Bytes of a checkpoint of `measuring`.


def _each(seconds: float) -> TaskSeconds:
    def of_task(cells: Sequence[Cell]) -> Iterator[float]:
        yield from (seconds for _ in cells)

    return of_task


def _cells(groups: int, each: int = 1, hub: bool = False) -> list[Cell]:
    return [measuring(g * each + n, g, hub=hub) for g in range(groups) for n in range(each)]


def test_equal_cells_on_as_many_workers() -> None:
    cluster = SimulatedCluster(2, 2, 1e9, startup_seconds=3.0)
    found = simulate(_cells(8, 2), _each(10.0), cluster, 40.0)
    assert found.seconds == pytest.approx(3 + 40)
    assert found.busy_seconds == pytest.approx(160)
    assert found.held_seconds == pytest.approx(4 * 43)
    assert (found.cells, found.most_nodes, found.losses) == (16, 2, 0)


def test_the_first_download_is_waited_for_and_others_are_hidden() -> None:
    cluster = SimulatedCluster(1, 1, bandwidth=SIZE / 5.0)
    found = simulate(_cells(4, hub=True), _each(10.0), cluster, 40.0)
    assert found.seconds == pytest.approx(5 + 4 * 10)


def test_a_slow_line_is_what_counts() -> None:
    cluster = SimulatedCluster(1, 1, bandwidth=SIZE / 30.0)
    found = simulate(_cells(4, hub=True), _each(10.0), cluster, 40.0)
    assert found.seconds == pytest.approx(4 * 30 + 10)


def test_a_chain_runs_one_after_the_other() -> None:
    first = making(0)
    cells = [first, measuring(0, 0, (first.id,))]
    cluster = SimulatedCluster(4, 1, 1e9)
    assert simulate(cells, _each(7.0), cluster, 14.0).seconds == pytest.approx(14)


def test_nodes_come_late_and_go_when_nothing_is_left_for_them() -> None:
    first = making(0)
    rest = [measuring(n, n, (first.id,)) for n in range(1, 5)]
    last = measuring(9, 9, tuple(cell.id for cell in rest))
    cluster = SimulatedCluster(4, 1, 1e9, boot_seconds=100.0, idle_seconds=20.0)
    found = simulate([first, *rest, last], _each(300.0), cluster, 900.0)
    assert found.most_nodes == 4
    # A node comes and makes the first; three more come for the rest; the last one runs alone.
    assert 1100 <= found.seconds <= 1105
    assert found.held_seconds < 4 * 900
    assert found.busy_seconds == pytest.approx(6 * 300)


def test_what_is_lost_is_done_again() -> None:
    steady = SimulatedCluster(2, 2, 1e9, startup_seconds=5.0)
    lossy = SimulatedCluster(2, 2, 1e9, startup_seconds=5.0, losses_per_hour=4.0, seed=1)
    whole = simulate(_cells(200), _each(60.0), steady, 3000.0)
    found = simulate(_cells(200), _each(60.0), lossy, 3000.0)
    assert found.losses > 2
    assert found.cells == whole.cells == 200
    assert found.busy_seconds == pytest.approx(whole.busy_seconds)
    assert found.seconds > whole.seconds
    again = simulate(_cells(200), _each(60.0), lossy, 3000.0)
    assert again == found


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.floats(0.1, 100), min_size=1, max_size=30),
    nodes=st.integers(1, 4),
    workers=st.integers(1, 3),
    boot=st.none() | st.floats(1, 60),
)
def test_no_run_beats_its_bound_and_all_is_done(
    lengths: list[float], nodes: int, workers: int, boot: float | None
) -> None:
    cells = _cells(len(lengths))
    takes = {cell.id: length for cell, length in zip(cells, lengths, strict=True)}
    cluster = SimulatedCluster(nodes, workers, 1e9, boot_seconds=boot)
    whole, slots = sum(lengths), nodes * workers
    found = simulate(cells, lambda task: [takes[c.id] for c in task], cluster, whole / slots)
    assert found.cells == len(cells)
    assert found.seconds >= max(whole / slots, *lengths) - 1e-6
    # Graham's bound, and what passes until the last node is there.
    late = 0.0 if boot is None else boot + 5 + whole / 500
    assert found.seconds <= whole / slots + max(lengths) + late + 1e-6
    assert 0 < found.utilization <= 1 + 1e-9
