"""Estimates: all counts once, by hand; more machines never take longer, more cells never less."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cells import Cell
from jobs.place import Place
from jobs.spec import LocalSuite, Study
from jobs.study import load_study
from orchestrator.costs import Costs
from orchestrator.estimate import Estimate, estimate, estimate_plan
from orchestrator.hardware import GPUS, Machines, cpu, gpu_machines
from orchestrator.measured import Rates
from orchestrator.model_sizes import ModelSizes
from orchestrator.plan import Plan, make_plan
from orchestrator.store import Ledger
from tests.orchestrator.hub_cells import TOKENIZER, checkpoint, drawing, measured, series
from tests.orchestrator.local_study import run_process

ONE = gpu_machines(1, "h100")
GIGABYTE = 1_000_000_000


def _estimate(
    cells: Sequence[Cell],
    machines: Machines = ONE,
    *,
    rates: Rates | None = None,
    bandwidth: int = 100_000_000,
    left: Sequence[Cell] | None = None,
) -> Estimate:
    sizes = ModelSizes(tuple(cells))
    costs = Costs(cells, sizes, 32)
    chosen = cells if left is None else left
    return estimate(chosen, sizes, costs, rates or Rates(), machines, bandwidth)


def _modelled(cells: Sequence[Cell]) -> dict[str, float]:
    """Seconds of each part of a series of equal checkpoints."""
    costs = Costs(cells, ModelSizes(tuple(cells)), 32)
    processor = ONE.processor
    return {part.name: part.seconds for cell in cells for part in costs.parts(cell, processor)}


def test_a_load_and_a_pass_count_once_for_each_checkpoint() -> None:
    cells = series(3)
    takes = _modelled(cells)
    found = _estimate(cells)
    stages = found.stages
    assert stages["fetch"].seconds == pytest.approx(takes["sequences"] + 3 * takes["load"])
    assert stages["head"].seconds == pytest.approx(3 * takes["head statistics"])
    assert stages["geometry"].seconds == pytest.approx(3 * (takes["pass"] + takes["spectra"]))
    assert stages["evals"].seconds == 0
    assert {name: stage.cells for name, stage in stages.items()} == {
        "fetch": 4,
        "head": 3,
        "geometry": 3,
        "evals": 3,
    }
    alone = [cell for cell in cells if cell.work.kind == "loss"]
    only = _estimate(cells, left=alone).stages["evals"].seconds
    assert only == pytest.approx(3 * (takes["load"] + takes["pass"]))


def test_files_count_once_and_only_where_something_is_left() -> None:
    drawn = drawing()
    abouts = [
        checkpoint(1, GIGABYTE),
        checkpoint(2, GIGABYTE),
        checkpoint(3, GIGABYTE, "model-1b 2"),
    ]
    cells = [drawn, *(cell for about in abouts for cell in measured(about, drawn))]
    found = _estimate(cells)
    assert found.download_bytes == 2 * GIGABYTE + 1_000 + TOKENIZER.size
    assert found.stages["fetch"].download_bytes == found.download_bytes
    assert found.stages["geometry"].download_bytes == 0
    left = _estimate(cells, left=cells[-2:])
    assert left.download_bytes == GIGABYTE + 1_000 + TOKENIZER.size
    assert left.stages["geometry"].download_bytes == left.download_bytes
    assert left.stages["evals"].download_bytes == 0


def test_a_node_holds_what_is_measured_and_two_ahead() -> None:
    cells = series(40, GIGABYTE)
    each = GIGABYTE + 1_000 + TOKENIZER.size
    assert _estimate(cells).peak_disk_bytes == 3 * each
    assert _estimate(cells, gpu_machines(8, "h100")).peak_disk_bytes == 24 * each
    assert _estimate(cells, gpu_machines(12, "h100")).peak_disk_bytes == 18 * each
    few = _estimate(series(2, GIGABYTE))
    assert few.peak_disk_bytes == few.download_bytes


def test_a_stage_needs_room_for_its_own_checkpoints() -> None:
    cells = series(40, GIGABYTE)
    each = GIGABYTE + 1_000 + TOKENIZER.size
    stages = _estimate(cells).stages
    assert {stage.peak_disk_bytes for stage in stages.values()} == {3 * each}
    assert (
        stages["geometry"].download_bytes == 0
    )  # They lie there, and need their room all the same.
    drawn = 4 * 100 * 51
    assert {name: stage.artifact_bytes for name, stage in stages.items()} == {
        **{"fetch": drawn, "head": 0, "geometry": 0, "evals": 0}
    }
    # The one checkpoint whose loss is missing, and all of which the geometry is.
    left = [cell for cell in cells if cell.work.kind == "geometry"] + [cells[-1]]
    some = _estimate(cells, left=left)
    assert some.stages["geometry"].peak_disk_bytes == some.peak_disk_bytes == 3 * each
    assert some.stages["evals"].peak_disk_bytes == each


def test_time_on_the_clock_by_hand() -> None:
    cells = series(4, GIGABYTE)
    slow = _estimate(cells, bandwidth=1_000_000)
    assert slow.transfer_seconds == pytest.approx(slow.download_bytes / 1e6)
    first = (GIGABYTE + 1_000 + TOKENIZER.size) / 1e6
    assert slow.seconds == pytest.approx(10 + first + slow.transfer_seconds)
    fast = _estimate(cells, bandwidth=10**12)
    assert fast.compute_seconds == pytest.approx(fast.work_seconds)
    assert fast.seconds == pytest.approx(10 + fast.work_seconds, rel=0.01)
    two = _estimate(cells, gpu_machines(2, "h100"), bandwidth=10**12)
    assert two.compute_seconds == pytest.approx(fast.work_seconds / 2)
    many = _estimate(cells, gpu_machines(64, "h100"))
    assert many.compute_seconds == many.longest_seconds
    assert many.transfer_seconds == pytest.approx(many.download_bytes / (8 * 100e6))


def test_a_chain_takes_as_long_as_its_links() -> None:
    plan = make_plan(load_study("smoke"))
    found = _estimate(plan.cells, Machines(cpu(1), 100))
    kinds = found.seconds_by_kind
    chain = kinds["corpus"] + max(kinds["pretrain"], kinds["sequences"])
    assert found.compute_seconds == found.longest_seconds
    assert chain < found.longest_seconds < found.work_seconds
    first, last = plan.cells[0], plan.cells[-1]
    assert found.chains.keys() == {cell.group for cell in plan.cells}
    assert found.chains[first.group] == found.longest_seconds
    for cell in plan.cells:
        for need in (other for other in plan.cells if other.id in cell.needs):
            assert need.group == cell.group or found.chains[need.group] > found.chains[cell.group]
    assert 0 < found.chains[last.group] < found.longest_seconds
    trained = ModelSizes(plan.cells).trained(plan.cells[1].id)
    assert found.stages["fetch"].artifact_bytes == found.artifact_bytes
    assert found.artifact_bytes == 7 * trained.weight_bytes + 2 * 200_000 + 4 * 400 * 65


def test_nothing_left_takes_nothing(tmp_path: Path) -> None:
    plan = make_plan(load_study("smoke"))
    done = frozenset(cell.id for cell in plan.cells)
    found = estimate_plan(plan, Place(tmp_path), Ledger(done, {}), [], ONE)
    assert (found.cells, found.seconds, found.download_bytes) == (0, 0.0, 0)
    assert found.seconds_by_kind == {}


def test_measured_rates_overrule_what_is_assumed() -> None:
    cells = series(2)
    assumed = _estimate(cells)
    assert {stage.basis for stage in assumed.stages.values()} == {"assumed"}
    costs = Costs(cells, ModelSizes(tuple(cells)), 32)
    rates = Rates()
    load, *_, head = costs.parts(cells[2], ONE.processor)
    rates.add(load, 3 * load.seconds)
    mixed = _estimate(cells, rates=rates)
    more = mixed.stages["fetch"].seconds - assumed.stages["fetch"].seconds
    assert more == pytest.approx(2 * 2 * load.seconds)
    assert (mixed.stages["fetch"].basis, mixed.stages["head"].basis) == ("mixed", "assumed")
    assert mixed.basis == "mixed"
    rates.add(head, 5 * head.seconds)
    again = _estimate(cells, rates=rates).stages["head"]
    assert again.basis == "measured"
    assert again.seconds == pytest.approx(10 * head.seconds)


def test_the_precision_of_the_pass_decides_what_fits() -> None:
    drawn = drawing()
    large = checkpoint(1, 14 * GIGABYTE, model="large-7b")
    notes = _estimate([drawn, *measured(large, drawn, "float32")], gpu_machines(1, "l4")).notes
    assert "large-7b takes 28.0 GB in float32" in notes[1]
    fits = _estimate([drawn, *measured(large, drawn, "bfloat16")], gpu_machines(1, "l4")).notes
    assert len(fits) == 1


@given(
    weights=st.lists(st.integers(1, 10**11), min_size=1, max_size=8),
    kind=st.sampled_from(sorted(GPUS)),
    counts=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    bandwidth=st.integers(10**5, 10**10),
)
def test_more_gpus_never_take_longer(
    weights: list[int], kind: str, counts: tuple[int, int], bandwidth: int
) -> None:
    few, many = sorted(counts)
    drawn = drawing()
    abouts = [checkpoint(step, size) for step, size in enumerate(weights)]
    cells = [drawn, *(cell for about in abouts for cell in measured(about, drawn))]
    slow = _estimate(cells, gpu_machines(few, kind), bandwidth=bandwidth)
    fast = _estimate(cells, gpu_machines(many, kind), bandwidth=bandwidth)
    assert fast.seconds <= slow.seconds
    assert fast.work_seconds == slow.work_seconds
    doubled = _estimate(cells, gpu_machines(few, kind), bandwidth=2 * bandwidth)
    assert doubled.seconds <= slow.seconds


@given(
    weights=st.lists(st.integers(1, 10**11), min_size=1, max_size=6),
    workers=st.integers(1, 9),
    chosen=st.sets(st.integers(0, 24)),
    more=st.sets(st.integers(0, 24)),
)
def test_more_cells_never_take_less(
    weights: list[int], workers: int, chosen: set[int], more: set[int]
) -> None:
    drawn = drawing()
    abouts = [checkpoint(step, size) for step, size in enumerate(weights)]
    cells = [drawn, *(cell for about in abouts for cell in measured(about, drawn))]
    few = [cell for place, cell in enumerate(cells) if place in chosen]
    many = [cell for place, cell in enumerate(cells) if place in chosen | more]
    machines = replace(ONE, workers=workers)
    less, greater = (_estimate(cells, machines, left=left) for left in (few, many))
    assert less.seconds <= greater.seconds * (1 + 1e-12)
    assert less.work_seconds <= greater.work_seconds * (1 + 1e-12)
    for name in ("cells", "download_bytes", "peak_disk_bytes", "artifact_bytes"):
        assert getattr(less, name) <= getattr(greater, name)
    for stage in greater.stages.values():
        assert stage.peak_disk_bytes <= greater.peak_disk_bytes
    for stage_name, stage in less.stages.items():
        assert stage.peak_disk_bytes <= greater.stages[stage_name].peak_disk_bytes


def test_a_large_plan_opens_no_file_and_loads_nothing_heavy(tmp_path: Path) -> None:
    cells = tuple(series(250))
    study = Study(name="large", suites=(LocalSuite(name="suite"),))
    plan = Plan(study, cells)
    found = estimate_plan(plan, Place(tmp_path / "none"), Ledger(frozenset(), {}), cells, ONE)
    assert found.cells == 1001
    assert not list(tmp_path.iterdir())
    done = run_process(
        *("plan", "--results", str(tmp_path / "none"), "--gpus", "64"),
        after="print(sorted({'torch', 'ray', 'transformers', 'datasets', 'pandas'} "
        "& set(sys.modules)), file=sys.stderr)",
    )
    assert (done.code, done.err.splitlines()[-1]) == (0, "[]")
    assert io.StringIO(done.out).readline().startswith("results: ")
