"""Measured rates: taken from finished cells, divided among what they share, compacted or not."""

from pathlib import Path

import pytest

from jobs.cells import Cell
from jobs.errors import StoreError
from jobs.events import Finished
from jobs.place import Place
from jobs.records import rows_table
from orchestrator.compact import compact
from orchestrator.costs import Costs, Part
from orchestrator.hardware import GPUS, Processor, cpu
from orchestrator.measured import Rates, measured_rates, recorded_sizes
from orchestrator.model_sizes import ModelSizes
from orchestrator.store import Store
from tests.orchestrator.hub_cells import checkpoint, drawing, measured, series

GPU = GPUS["h100"]
H100 = "NVIDIA H100 80GB HBM3"
SIZES = {
    "n_parameters": 1000,
    "d": 10,
    "n_layers": 2,
    "head_rows": 20,
    "tied": False,
    "weight_bytes": 4000,
}


def _finish(store: Store, cell: Cell, seconds: float, device: str = H100, threads: int = 1) -> None:
    row = SIZES if cell.work.kind == "checkpoint" else {}
    tables = ((cell.work.table, rows_table(cell.work.table, [row])),)
    about = {"seconds": seconds, "device": device, "threads": threads}
    store.commit(cell, Finished(cell.id, tables, about))


def _rates(store: Store, cells: list[Cell], processor: Processor = GPU) -> Rates:
    costs = Costs(cells, ModelSizes(tuple(cells)), 32)
    done = store.ledger().done
    return measured_rates(store.place, cells, done, costs, processor)


def _modelled(cells: list[Cell], processor: Processor = GPU) -> dict[str, dict[str, float]]:
    costs = Costs(cells, ModelSizes(tuple(cells)), 32)
    return {
        cell.work.kind: {part.name: part.seconds for part in costs.parts(cell, processor)}
        for cell in cells
    }


@pytest.mark.parametrize("compacted", [False, True])
def test_shared_seconds_are_taken_away(tmp_path: Path, compacted: bool) -> None:
    store, cells = Store(tmp_path / "results"), series(3)
    by_kind = _modelled(cells)
    for cell in cells:  # Twice the load, three times the pass, four times each cell's own part.
        parts = by_kind[cell.work.kind]
        seconds = {
            "sequences": 4 * parts.get("sequences", 0.0),
            "checkpoint": 2 * parts.get("load", 0.0),
            "head": 2 * parts.get("load", 0.0) + 4 * parts.get("head statistics", 0.0),
            "loss": 3 * parts.get("pass", 0.0),
            "geometry": 3 * parts.get("pass", 0.0) + 4 * parts.get("spectra", 0.0),
        }[cell.work.kind]
        _finish(store, cell, seconds)
    if compacted:
        compact(store, lambda _done, _total: None)
    rates = _rates(store, cells)
    expected = {"load": 2, "pass": 3, "head statistics": 4, "spectra": 4, "sequences": 4}
    found = {part: rate for parts in by_kind.values() for part, rate in parts.items()}
    for name, seconds in found.items():
        part = Part(name, seconds)  # type: ignore[arg-type]
        assert rates.rate(part) == pytest.approx(expected[name], rel=1e-3)


def test_without_its_shared_part_a_cell_corrects_all_of_it(tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "results"), series(1)
    geometry = next(cell for cell in cells if cell.work.kind == "geometry")
    parts = _modelled([cells[0], geometry])["geometry"]
    _finish(store, geometry, 5 * (parts["pass"] + parts["spectra"]))
    rates = _rates(store, [cells[0], geometry])
    assert rates.rate(Part("pass", 1.0)) == pytest.approx(5, rel=1e-3)
    assert rates.rate(Part("spectra", 1.0)) == pytest.approx(5, rel=1e-3)
    assert rates.rate(Part("load", 1.0)) is None


def test_other_devices_tell_nothing(tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "results"), series(1)
    for cell in cells:
        _finish(store, cell, 10.0, device="NVIDIA A100-SXM4-40GB")
    assert _rates(store, cells).rate(Part("load", 1.0)) is None
    assert _rates(store, cells, GPUS["a100-40gb"]).rate(Part("load", 1.0)) is not None


def test_on_a_cpu_the_threads_count(tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "results"), series(1)
    loss = next(cell for cell in cells if cell.work.kind == "loss")
    _finish(store, loss, 2 * _modelled(cells, cpu(4))["loss"]["pass"], cpu(4).name, threads=4)
    assert _rates(store, cells, cpu(1)).rate(Part("pass", 1.0)) == pytest.approx(2, rel=1e-3)


def test_the_nearest_size_counts() -> None:
    rates = Rates()
    for seconds, ratio in ((1.0, 2.0), (100.0, 3.0), (100.0, 5.0), (100.0, 90.0)):
        rates.add(Part("pass", seconds), seconds * ratio)
    found = [rates.rate(Part("pass", seconds)) for seconds in (0.1, 1.0, 9.0, 11.0, 100.0, 1e6)]
    assert found == [2.0, 2.0, 2.0, 5.0, 5.0, 5.0]
    rates.add(Part("pass", 1e6), 1e6)
    assert rates.rate(Part("pass", 1e6)) == 1.0


@pytest.mark.parametrize("compacted", [False, True])
def test_sizes_come_from_any_recorded_checkpoint(tmp_path: Path, compacted: bool) -> None:
    store, drawn = Store(tmp_path / "results"), drawing()
    cells = [drawn]
    for model in ("one", "two"):
        for step in range(3):
            cells += measured(checkpoint(step, model=model), drawn)
    recorded = [cell for cell in cells if cell.work.kind == "checkpoint"][1:3]
    for cell in recorded:
        _finish(store, cell, 1.0)
    if compacted:
        compact(store, lambda _done, _total: None)
    done = store.ledger().done
    found = recorded_sizes(store.place, cells, done)
    assert found.keys() == {("suite", "one")}
    assert SIZES.items() <= found["suite", "one"].items()


def test_only_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Cell] = []

    def own_record(_place: Place, cell: Cell) -> dict[str, object]:
        read.append(cell)
        return {"seconds": 1.0, "device": H100}

    monkeypatch.setattr("orchestrator.measured._own_record", own_record)
    cells = series(500)
    costs = Costs(cells, ModelSizes(tuple(cells)), 32)
    done = frozenset(cell.id for cell in cells)
    rates = measured_rates(Place(tmp_path), cells, done, costs, GPU)
    assert rates.rate(Part("spectra", 1.0)) is not None
    assert len(read) <= 1 + 4 * 8


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "results"), series(1)
    _finish(store, cells[0], 1.0)
    damaged = tmp_path / "results" / "sequences" / f"{cells[0].id}.parquet"
    damaged.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=cells[0].id):
        _rates(store, cells)
