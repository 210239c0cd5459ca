"""What a task does when all goes well, and after it was stopped."""

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from jobs.cells import Cell
from jobs.columns import KEYS
from jobs.errors import DataError
from jobs.events import Alive, Event, Finished, Progress, Started
from jobs.pico_spec import PicoModel
from jobs.records import TABLES
from jobs.spec import Forward
from jobs.work import PretrainWork, SequencesWork
from orchestrator.plan import make_plan
from tests.conftest import Texts
from tests.workers.tasks import M, kinds, prepare, raising, run_cells, small_study, task_of
from workers import checkpoint_task, run
from workers.artifacts import SharedFiles
from workers.corpus import train_tokenizer, write_tokenizer
from workers.hub import load_checkpoint
from workers.pretrain import pretrain
from workers.run import run_task
from workers.stream import stream_task

MEASURED = {"checkpoints", "head", "geometry", "influences", "evals"}


def _sequences(tiny_series: Path, texts: Texts) -> Cell:
    plan = make_plan(small_study(tiny_series, texts))
    return next(cell for cell in plan.cells if isinstance(cell.work, SequencesWork))


def test_one_load_and_one_pass_per_text_feed_all_cells(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, inputs = [], []

    def counted(*args: Any) -> Any:
        loaded = load_checkpoint(*args)
        loads.append(args)
        loaded.model.get_decoder().register_forward_pre_hook(
            lambda _module, args, options: inputs.append((*args, *options.values())[0].shape),
            with_kwargs=True,
        )
        return loaded

    monkeypatch.setattr(checkpoint_task, "load_checkpoint", counted)
    events = run_cells(cells, tmp_path)
    assert Counter(c.work.kind for c in cells) == {
        "checkpoint": 1,
        "head": 1,
        "geometry": 2,
        "loss": 2,
    }
    assert len(loads) == 1
    # Beside the texts, the check of the logits: two tokens, twice, for each loss.
    assert Counter(shape[0] for shape in inputs) == {16: 4, 8: 2, 1: 4}
    assert {tuple(shape) for shape in inputs if shape[0] == 1} == {(1, 2)}
    assert sum(shape[0] for shape in inputs if shape[0] > 1) == 2 * M
    finished = kinds(events, Finished)
    assert {event.cell_id for event in finished} == {cell.id for cell in cells}
    tables = [name for event in finished for name, _ in event.tables]
    assert set(tables) == MEASURED
    by_id = {cell.id: cell for cell in cells}
    for event in finished:
        # The primary table comes last.
        assert event.tables[-1][0] == by_id[event.cell_id].work.table
        for name, rows in event.tables:
            assert set(rows.column_names) <= set(TABLES[name].names) - {k.name for k in KEYS}
            assert rows.num_rows == (4 if name == "geometry" else 1)


def test_events_come_in_order(cells: list[Cell], tmp_path: Path) -> None:
    events = run_cells(cells, tmp_path)
    for cell in cells:
        mine = [event for event in events if event.cell_id == cell.id]
        assert isinstance(mine[0], Started)
        assert isinstance(mine[-1], Finished)
        assert len(kinds(mine, Started)) == len(kinds(mine, Finished)) == 1
        assert set(map(type, mine[1:-1])) <= {Progress}
    assert {e.done for e in kinds(events, Progress)} == {16, 32, 40}


def test_provenance(cells: list[Cell], tmp_path: Path) -> None:
    for event in kinds(run_cells(cells, tmp_path), Finished):
        about = event.provenance
        assert set(about["libraries"]) >= {"torch", "transformers", "tokenizers"}
        assert about["threads"] == 1
        assert about["dtype"] == "float32"
        assert about["device"].startswith("cpu")
        assert about["seconds"] >= 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_numbers(
    tiny_series: Path, texts: Texts, tmp_path: Path, dtype: Any
) -> None:
    values: list[dict[str, float]] = []
    for study in (
        small_study(tiny_series, texts),
        small_study(tiny_series, texts, forward=Forward(dtype=dtype)),
    ):
        found: dict[str, float] = {}
        for event in kinds(run_cells(prepare(study, tmp_path)[2], tmp_path), Finished):
            for name, table in event.tables:
                row = table.to_pylist()[0]
                found |= {
                    f"{name}.{column}.{row.get('dataset', row.get('task'))}": row[column]
                    for column in ("rankme", "value", "norm_cv", "overlap_mean")
                    if column in row
                }
        values.append(found)
    exact, half = values
    assert len(exact) == 6
    for name, value in exact.items():
        if name.startswith("head"):
            assert half[name] == value
        else:
            assert half[name] != value
            assert half[name] == pytest.approx(value, rel=2e-2)


def test_a_published_artifact_is_not_made_twice(
    tiny_series: Path, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = _sequences(tiny_series, texts)
    first = kinds(run_cells([cell], tmp_path), Finished)[0]
    monkeypatch.setattr(run, "draw_sequences", raising(AssertionError("made twice")))
    again = kinds(run_cells([cell], tmp_path), Finished)[0]
    assert again.tables == first.tables
    ((name, rows),) = first.tables
    assert name == "sequences"
    assert set(rows.column_names) == set(TABLES["sequences"].names) - {k.name for k in KEYS}


def test_a_pretraining_resumes_where_it_was_stopped(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PicoModel(
        hidden_size=32, layers=1, heads=1, sequence_length=16, batch_size=2, last_step=8
    )
    train = Cell(PretrainWork(model, "c" * 64))
    made = tmp_path / "artifacts" / ("c" * 64)
    made.mkdir(parents=True)
    tokenizer = train_tokenizer(list(texts.documents), 300)
    write_tokenizer(tokenizer, made / "tokenizer")
    ids = [token for text in texts.documents for token in tokenizer.encode(text).ids]
    save_file({"tokens": torch.tensor(ids, dtype=torch.uint16)}, made / "train.safetensors")
    steps: list[int] = []

    def watched(model: PicoModel, corpus: Path, folder: Path, report: Any) -> Any:
        def tell(done: int, total: int) -> None:
            steps.append(done)
            report(done, total)

        monkeypatch.setattr("workers.pretrain._REPORT_EVERY", 1)
        return pretrain(model, corpus, folder, tell)

    def killed(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "pretrain", watched)
    with pytest.raises(KeyboardInterrupt):
        run_task(task_of([train]), SharedFiles(tmp_path), killed)
    assert not (tmp_path / "artifacts" / train.id).exists()
    assert steps == [0, 1, 2, 3, 4, 5]
    steps.clear()
    finished = run_cells([train], tmp_path)[-1]
    assert isinstance(finished, Finished)
    assert steps == [5, 6, 7, 8]
    ((name, rows),) = finished.tables
    assert (name, rows.num_rows) == ("training_log", 8)
    kept = {f.name for f in (tmp_path / "artifacts" / train.id).iterdir()}
    assert kept == {"rows.json", "manifest.json", *(f"step{s}" for s in (0, 1, 2, 4, 8))}


def test_a_stream_gives_every_event_and_ends(cells: list[Cell], tmp_path: Path) -> None:
    streamed = [
        event
        for event in stream_task(task_of(cells), SharedFiles(tmp_path))
        if not isinstance(event, Alive)
    ]
    called = run_cells(cells, tmp_path)
    assert [(type(e), e.cell_id) for e in streamed] == [(type(e), e.cell_id) for e in called]


def test_a_stream_ends_also_when_its_thread_does(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure_checkpoint", raising(SystemExit(3)))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    assert list(stream_task(task_of(cells), SharedFiles(tmp_path))) == []


def test_threads_are_set_in_the_tasks_own_thread(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []

    def rows(*_args: Any) -> Any:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        raise DataError("enough", "")

    monkeypatch.setattr(checkpoint_task, "checkpoint_rows", rows)
    try:
        list(stream_task(replace(task_of(cells[:1]), threads=2), SharedFiles(tmp_path)))
    finally:
        torch.set_num_threads(before)
    assert seen == [("task", 2)]


def test_a_stream_that_is_closed_stops_its_task(cells: list[Cell], tmp_path: Path) -> None:
    stream = stream_task(task_of(cells), SharedFiles(tmp_path))
    next(stream)
    stream.close()
    assert not any(thread.name == "task" for thread in threading.enumerate())
