"""A results folder has one driver at a time, and makes again what was deleted but is needed."""

import shutil
import subprocess
import sys
from pathlib import Path

from jobs.cells import Cell
from jobs.events import Finished
from jobs.records import rows_table
from orchestrator.store import Store
from tests.orchestrator.fake_cells import making, measuring
from tests.orchestrator.local_study import environment

_HOLDER = """
import sys
from orchestrator.store import Store
with Store(sys.argv[1]).lease(lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def _made(cell: Cell) -> Finished:
    return Finished(cell.id, (("sequences", rows_table("sequences", [{"dataset": "words"}])),), {})


def test_a_second_driver_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(results)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        waited = []

        def let_go() -> None:
            waited.append(first.poll())
            first.communicate()

        with Store(results).lease(let_go):
            assert first.wait(10) == 0
        assert waited == [None]


def test_a_deleted_artifact_is_made_again_only_where_it_is_needed(tmp_path: Path) -> None:
    corpus = making(0)
    drawn = making(1, (corpus.id,))
    loss = measuring(0, 7, (drawn.id,))
    cells = [corpus, drawn, loss]
    store = Store(tmp_path / "results")
    for cell in cells[:2]:
        store.commit(cell, _made(cell))
        (store.place.path / "artifacts" / cell.id).mkdir(parents=True)
    assert store.ledger(cells).done == {corpus.id, drawn.id}
    shutil.rmtree(store.place.path / "artifacts" / corpus.id)
    assert store.ledger(cells).done == {corpus.id, drawn.id}
    shutil.rmtree(store.place.path / "artifacts" / drawn.id)
    assert store.ledger(cells).done == frozenset()
    assert store.ledger(cells[:2]).done == {corpus.id, drawn.id}
