"""Costs worked out by hand, and what cells share."""

import pytest

from jobs.cells import Cell
from jobs.frozen import DType
from jobs.pico_spec import PicoCorpus, PicoModel
from jobs.work import CorpusWork, PretrainWork
from orchestrator.costs import Costs
from orchestrator.hardware import GPUS, cpu
from orchestrator.model_sizes import ModelSizes, pretrained_size
from tests.orchestrator.hub_cells import checkpoint, drawing, measured

_ROW = {  # 1,000 rows of width 100 twice, and 800,000 parameters in 10 blocks.
    ("suite", "model-1b"): {
        "n_parameters": 1_000_000,
        "d": 100,
        "n_layers": 10,
        "head_rows": 1000,
        "tied": False,
        "weight_bytes": 0,
    }
}


def _costs(cells: list[Cell], batch_size: int = 32) -> Costs:
    return Costs(cells, ModelSizes(tuple(cells), _ROW), batch_size)


def test_a_checkpoint_by_hand() -> None:
    drawn = drawing(sequences=100, length=50)
    about = checkpoint(1, weights=1_000_000_000)
    cells = [drawn, *measured(about, drawn)]
    costs, gpu = _costs(cells), GPUS["h100"]
    found = {cell.work.kind: costs.parts(cell, gpu) for cell in cells}
    load = found["checkpoint"][0]
    assert (load.name, load.shared) == ("load", "load")
    assert load.seconds == pytest.approx(0.05 + 1e9 / 500e6)
    # 5,000 tokens through 800,000 parameters, 100,000 of the head, 10 blocks of attention.
    flops = 5000 * (2 * (800_000 + 100_000) + 4 * 10 * 50 * 100)
    forward = found["loss"][1]
    assert (forward.name, forward.shared) == ("pass", drawn.id)
    assert forward.seconds == pytest.approx(flops / (0.3 * 989e12) + 4 * 10 * 1e-3)
    assert found["geometry"][:2] == (load, forward)
    spectra = found["geometry"][2]
    assert spectra.seconds == pytest.approx(4 * 12 * 100**3 / (0.03 * 34e12) + 4 * 2e-3)
    head = found["head"][1]
    assert head.seconds == pytest.approx(1000**2 * 100 / (0.6 * 67e12) + 0.02)
    assert {part.shared for part in (spectra, head)} == {None}


def test_recorded_seconds_hold_the_load_only_where_there_is_no_pass() -> None:
    drawn = drawing()
    costs = _costs(cells := [drawn, *measured(checkpoint(1), drawn)])
    names = {c.work.kind: [p.name for p in costs.recorded(c, cpu(1))] for c in cells}
    assert names == {
        "sequences": ["sequences"],
        "checkpoint": ["load"],
        "head": ["load", "head statistics"],
        "geometry": ["pass", "spectra"],
        "loss": ["pass"],
    }


def test_without_a_loss_no_logits_are_computed() -> None:
    drawn = drawing()
    cells = [drawn, *measured(checkpoint(1), drawn)]
    geometry = next(cell for cell in cells if cell.work.kind == "geometry")
    with_loss = _costs(cells).parts(geometry, cpu(1))[1].seconds
    without = _costs([drawn, geometry]).parts(geometry, cpu(1))[1].seconds
    assert with_loss - without == pytest.approx(5000 * 2 * 100_000 / 50e9)


def test_pretraining_by_hand() -> None:
    corpus = Cell(CorpusWork(PicoCorpus(vocabulary_size=512, training_tokens=500_000), "source"))
    model = PicoModel(last_step=100, threads=2)
    training = Cell(PretrainWork(model, corpus.id), (corpus.id,))
    costs = _costs([corpus, training])
    assert costs.parts(corpus, cpu(1))[0].seconds == pytest.approx(10 + 2)
    size = pretrained_size(PretrainWork(model, corpus.id), 512)
    flops = 3 * 512 * (2 * (size.body + 512 * 64) + 4 * 4 * 64 * 64)
    expected = 0.05 + 100 * (flops / (2 * 100e9 * 0.5) + 3 * 4 * 1e-3)
    for threads in (1, 8):  # Its own threads count, not those of the worker.
        found = costs.parts(training, cpu(threads))[0].seconds
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_faster_hardware_takes_less(dtype: DType) -> None:
    drawn = drawing(sequences=5000, length=512)
    cells = [drawn, *measured(checkpoint(1, model="m-1b"), drawn, dtype)]
    costs = _costs(cells)
    takes = [
        sum(part.seconds for part in costs.parts(cells[3], processor))
        for processor in (cpu(1), cpu(64), GPUS["t4"], GPUS["a100-40gb"], GPUS["h100"])
    ]
    assert takes == sorted(takes, reverse=True)
