"""What the workers' tests share: a loaded checkpoint, its pass, and cells to run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cells import Cell
from tests.conftest import Texts
from tests.workers.measured import SEQUENCES, measure_pass
from tests.workers.tasks import prepare, small_study
from workers import disk, download, network, tally
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


@pytest.fixture
def counted() -> Callable[[tally.Counted, str], float]:
    """Tells how much of something this process has counted since the test began."""
    before = tally.counts()
    return lambda what, label: (
        tally.counts().get((what, label), 0.0) - before.get((what, label), 0.0)
    )


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets nothing wait long, and notes for how long downloads would have waited."""
    noted: list[float] = []
    monkeypatch.setattr(disk, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(network, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(network, "_TELL_SECONDS", 0.02)
    waiting = download.Watch.wait

    def wait(self: download.Watch, seconds: float) -> None:
        if seconds:
            noted.append(seconds)
        waiting(self, 0)

    monkeypatch.setattr(download.Watch, "wait", wait)
    return noted
