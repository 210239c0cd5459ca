"""A cell is found by how its id begins: where it ran, and how it stands."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from jobs.cells import Cell
from jobs.errors import UsageError
from jobs.events import Failed, Finished
from jobs.place import Place
from jobs.records import rows_table
from orchestrator.compact import compact
from orchestrator.live import telling
from orchestrator.logs import logs
from orchestrator.progress import Running, Snapshot
from orchestrator.store import Store
from tests.orchestrator.fake_cells import making

DONE, FAILED, RUNNING, OTHER = (making(number) for number in range(4))
WHERE = {"node": "10.0.0.3", "pid": 812, "log": "worker-1.err", "seconds": 3.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    for cell in (DONE, OTHER):
        rows = rows_table("sequences", [{"dataset": "words"}])
        store.commit(cell, Finished(cell.id, (("sequences", rows),), WHERE))
    failure = Failed(FAILED.id, "data", "it is empty", "", "a [traceback]", WHERE)
    store.fail(FAILED, failure, 2)
    return store


def _asked(place: Place, cell: Cell) -> tuple[str, dict[str, str]]:
    out = io.StringIO()
    outcome = logs(place, cell.id[:12], Console(file=out, width=300))
    assert outcome["code"] == 0
    (found,) = outcome["cells"]
    assert found["cell_id"] == cell.id
    return out.getvalue(), found


def test_a_finished_cell_tells_where_it_ran_also_after_compaction(store: Store) -> None:
    for merged in (False, True):
        text, found = _asked(store.place, DONE)
        assert "sequences: done in 3.0 s · node 10.0.0.3 pid 812 · log worker-1.err" in text
        assert found["state"] == "done in 3.0 s"
        if not merged:
            assert compact(store, lambda _done, _total: None).files_after == 1


def test_a_failed_cell_shows_its_traceback(store: Store) -> None:
    text, _ = _asked(store.place, FAILED)
    assert "failed (data) after 2 attempts: it is empty · node 10.0.0.3 pid 812" in text
    assert "a [traceback]" in text


def test_a_cell_at_work_tells_where(store: Store) -> None:
    running = (Running(RUNNING.id, RUNNING.label, "10.0.0.4 pid 7", 65.0, None),)
    snapshot = Snapshot("running", (), running, (), 1, 1, 0.0, 0, 0.0)
    with telling(store.place, "words", print) as publish:
        publish(lambda: snapshot)
        text, _ = _asked(store.place, RUNNING)
    assert f"{RUNNING.label}: running for 1 min 5 s · node 10.0.0.4 pid 7" in text


def test_a_cell_that_ended_is_not_at_work_though_the_driver_last_said_so(store: Store) -> None:
    running = tuple(Running(c.id, c.label, "10.0.0.4 pid 7", 1.0, None) for c in (DONE, FAILED))
    snapshot = Snapshot("running", (), running, (), 1, 1, 0.0, 0, 0.0)
    with telling(store.place, "words", print) as publish:
        publish(lambda: snapshot)
        assert _asked(store.place, DONE)[1]["state"] == "done in 3.0 s"
        assert _asked(store.place, FAILED)[1]["state"].startswith("failed (data)")


def test_an_id_that_nothing_has_is_an_error(store: Store) -> None:
    with pytest.raises(UsageError, match="no cell whose id begins with 'zz'"):
        logs(store.place, "zz", Console(quiet=True))
