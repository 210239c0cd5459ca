"""Upkeep of results keeps out of the way of a run."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from jobs.errors import StoreError, UsageError
from jobs.place import Place
from orchestrator import upkeep
from orchestrator.live import telling
from orchestrator.progress import Snapshot
from orchestrator.store import Store


def test_results_are_not_compacted_while_a_run_is_at_work(bucket: str) -> None:
    store = Store(f"s3://{bucket}/run")
    snapshot = Snapshot("running", (), (), (), 1, 1, 0.0, 0, 0.0)
    with telling(store.place, "words", print) as publish:
        publish(lambda: snapshot)
        with pytest.raises(UsageError, match="a run is at work on s3://"):
            upkeep.compact(store.place, Console(quiet=True))
    assert upkeep.compact(store.place, Console(quiet=True))["files_after"] == 0


def test_results_that_cannot_be_written_are_not_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "results")
    with pytest.raises(StoreError, match="there are no results"):
        upkeep.compact(place, Console(quiet=True))
    Store(place)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="Permission denied") as caught:
        upkeep.compact(place, Console(quiet=True))
    assert "--results" in caught.value.remedy
    assert not (tmp_path / "results" / ".lease").exists()
