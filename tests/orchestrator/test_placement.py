"""Models are placed by memory: large ones get a GPU that holds them, small ones share one."""

from dataclasses import replace

import pytest

from jobs.cells import Cell
from jobs.work import CheckpointWork, GeometryWork, SequencesWork
from orchestrator.model_sizes import ModelSizes
from orchestrator.placement import GpuKind, Seat, place
from tests.jobs.posttrain_works import PASSK, POSTTRAIN, SAMPLE, SAMPLING
from tests.jobs.winrate_works import RESPOND
from tests.orchestrator.hub_cells import checkpoint, drawing

A100, A10G, T4 = (
    GpuKind("A100", 8, 8, 80 * 10**9),
    GpuKind("A10G", 4, 4, 24 * 10**9),
    GpuKind("T4", 4, 1, 16 * 10**9),
)
SMALL = checkpoint(0, 141_000_000, model="pythia-70m")
MIDDLE = checkpoint(0, 13_800_000_000, model="pythia-6.9b")
LARGE = checkpoint(0, 23_700_000_000, model="pythia-12b")


def _seat(cell: Cell, *kinds: GpuKind) -> Seat:
    seats, of_group = place([cell], ModelSizes((cell,)), kinds, 2)
    assert list(of_group) == [cell.group]
    return seats[of_group[cell.group]]


def _geometry(about: object, dtype: str = "bfloat16") -> Cell:
    return Cell(GeometryWork("words", "0" * 64, "last", dtype), (), about)  # type: ignore[arg-type]


def test_small_models_share_and_large_ones_get_a_whole() -> None:
    assert _seat(_geometry(SMALL), A100) == Seat("0.25 GPU", 0.25, 32)
    assert _seat(_geometry(MIDDLE), A100) == Seat("0.5 GPU", 0.5, 16)
    assert _seat(_geometry(LARGE), A100) == Seat("0.5 GPU", 0.5, 16)
    assert _seat(_geometry(LARGE, "float32"), A100) == Seat("1 GPU", 1.0, 8)


def test_a_model_that_the_smallest_can_not_hold_names_those_that_can() -> None:
    assert _seat(_geometry(SMALL), T4, A100).kind == ""
    assert _seat(_geometry(MIDDLE), T4, A10G, A100) == Seat("1 A10G", 1.0, 4, "A10G")
    assert _seat(_geometry(LARGE), T4, A10G, A100) == Seat("0.5 A100", 0.5, 16, "A100")
    assert _seat(_geometry(LARGE, "float32"), T4) == Seat("1 GPU", 1.0, 4)  # Then none can.


def test_gpus_of_unknown_memory_are_not_shared() -> None:
    assert _seat(_geometry(SMALL), GpuKind("", 4, 4, None)) == Seat("1 GPU", 1.0, 4)


def test_what_no_gpu_helps_waits_for_none() -> None:
    for cell in (drawing(), Cell(PASSK, (), SMALL)):
        assert _seat(cell, A100) == Seat("without a GPU", 0, 2)
    assert isinstance(drawing().work, SequencesWork)


@pytest.mark.parametrize("work", [CheckpointWork(), RESPOND])
def test_whatever_loads_a_model_has_a_gpu(work: object) -> None:
    assert _seat(Cell(work, (), SMALL), A100).gpus == 0.25  # type: ignore[arg-type]


def test_engines_and_training_take_what_they_need() -> None:
    assert _seat(Cell(SAMPLE, (), SMALL), A100) == Seat("1 GPU", 1.0, 8)
    split = replace(SAMPLE, sampling=replace(SAMPLING, tensor_parallel=4))
    assert _seat(Cell(split, (), LARGE), A100) == Seat("4 GPUs", 4.0, 2)
    assert _seat(Cell(POSTTRAIN, (), SMALL), A100).gpus == 0.25
    assert _seat(Cell(POSTTRAIN, (), MIDDLE), A100).gpus == 1
    together = replace(POSTTRAIN, processes=8)
    assert _seat(Cell(together, (), MIDDLE), A100) == Seat("8 GPUs", 8.0, 1)


def test_a_group_has_the_seat_of_its_most_demanding_cell() -> None:
    cells = [Cell(CheckpointWork(), (), LARGE), _geometry(LARGE, "float32")]
    seats, of_group = place(cells, ModelSizes(tuple(cells)), (A100,), 2)
    assert list(seats.values()) == [Seat("1 GPU", 1.0, 8)]
    assert set(of_group.values()) == {"1 GPU"}
