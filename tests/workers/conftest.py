"""What the workers' tests share: a loaded checkpoint, its pass, and cells to run."""

from pathlib import Path

import pytest

from jobs.cells import Cell
from tests.conftest import Texts
from tests.workers.measured import SEQUENCES, measure_pass
from tests.workers.tasks import prepare, small_study
from workers.features import ForwardPass
from workers.hub import LoadedCheckpoint, load_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tiny_series: Path) -> LoadedCheckpoint:
    folder = tiny_series / "step100"
    return load_checkpoint(folder, folder, "float32", "cpu")


@pytest.fixture(scope="session")
def passed(checkpoint: LoadedCheckpoint) -> ForwardPass:
    return measure_pass(checkpoint, SEQUENCES)


@pytest.fixture
def cells(tiny_series: Path, texts: Texts, tmp_path: Path) -> list[Cell]:
    """The cells of step 0, whose sequences are drawn."""
    return prepare(small_study(tiny_series, texts), tmp_path)[0]


@pytest.fixture
def tokenizer(tiny_series: Path) -> Path:
    return tiny_series / "step0"
