"""Sampling by transformers: rows, counts and pass@k, and what is refused."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from jobs.cells import Cell
from jobs.events import Failed, Finished, Progress
from tests.workers.measured import own
from tests.workers.sampled import (
    PLAIN,
    WORDS,
    passk_cell,
    records_of,
    rows_of,
    sample_cell,
)
from tests.workers.tasks import kinds, run_cells
from workers import engines, sample
from workers.kernels.passk import pass_at_k
from workers.sample import fingerprint, normalized


@pytest.fixture(autouse=True)
def _no_engine() -> Iterator[None]:
    yield
    engines.let_go()


@pytest.fixture
def step(tiny_series: Path) -> Path:
    return tiny_series / "step100"


def test_rows_tell_all_of_the_samples(
    step: Path, tmp_path: Path, counted: Callable[[str, str], float]
) -> None:
    cell = sample_cell(step, records_of(tmp_path))
    events = run_cells([cell], tmp_path)
    (finished,) = kinds(events, Finished)
    ((name, table),) = finished.tables
    assert (name, set(table.column_names)) == ("samples", own("samples"))
    rows = table.to_pylist()
    assert [row["prompt"] for row in rows] == list(WORDS)
    assert [row["problem"] for row in rows] == list(range(6))
    for place, row in enumerate(rows):
        assert row["reference"] == str(place)
        assert row["n"] == len(row["texts"]) == len(row["answers"]) == len(row["correct"]) == 4
        assert row["n_correct"] == sum(row["correct"])
        assert row["n_timeouts"] == 0
        assert all(0 <= count <= 6 for count in row["tokens_sampled"])
        assert row["engine"].startswith("transformers 5.")
        assert [answer is not None for answer in row["answers"]] == row["well_formed"]
    assert len({text for row in rows for text in row["texts"]}) > 6
    assert kinds(events, Progress)[-1] == Progress(cell.id, 24, 24)
    sampled = sum(sum(row["tokens_sampled"]) for row in rows)
    assert counted("sampled_tokens", "transformers") == sampled
    for phase in ("load", "sample", "grade"):
        assert counted("phase_seconds", phase) > 0


def test_samples_do_not_depend_on_what_shares_their_run(step: Path, tmp_path: Path) -> None:
    records = records_of(tmp_path)
    whole = rows_of([sample_cell(step, records)], tmp_path)
    parts = rows_of([sample_cell(step, records, f, 2) for f in (4, 0, 2)], tmp_path)
    parts.sort(key=lambda row: row["problem"])
    assert parts == whole
    other = rows_of([sample_cell(step, records, seed=1)], tmp_path)
    assert [row["texts"] for row in other] != [row["texts"] for row in whole]


def test_padding_rows_of_the_head_are_never_sampled(
    step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    texts = sample._texts

    def noting(tokenizer: object, prompt: list[int], sampled: list[list[int]]) -> list[str]:
        seen.extend(token for tokens in sampled for token in tokens)
        return texts(tokenizer, prompt, sampled)

    monkeypatch.setattr(sample, "_texts", noting)
    rows_of([sample_cell(step, records_of(tmp_path), samples=64, temperature=3.0)], tmp_path)
    vocabulary = len(AutoTokenizer.from_pretrained(step))
    assert len(set(seen)) > vocabulary // 2
    assert max(seen) < vocabulary


def test_pass_at_k_follows_from_the_counts(step: Path, tmp_path: Path) -> None:
    records = records_of(tmp_path)
    cells = [sample_cell(step, records, first, 3, temperature=2.0) for first in (0, 3)]
    samples = rows_of(cells, tmp_path)
    # As if some had been right.
    for cell, correct in zip(cells, ([0, 1, 4], [2, 0, 3]), strict=True):
        path = tmp_path / "artifacts" / cell.id / "counts.json"
        counts = json.loads(path.read_text())
        assert counts["n"] == [4, 4, 4]
        path.write_text(json.dumps(counts | {"correct": correct, "answers": {"0": 3, "4": 1}}))
    (finished,) = kinds(run_cells([passk_cell(cells)], tmp_path), Finished)
    ((name, table),) = finished.tables
    assert (name, set(table.column_names)) == ("passk", own("passk"))
    rows = table.to_pylist()
    well_formed = np.mean([each for row in samples for each in row["well_formed"]])
    # 6 of the 24 pooled answers are the 0 of the first problem, 2 the 4 of the fifth.
    shares = np.array([6, 0, 0, 0, 2, 0]) / 24
    for row, k in zip(rows, (1, 2, 4), strict=True):
        each = pass_at_k(4, [0, 1, 4, 2, 0, 3], k)
        assert row["k"] == k
        assert row["pass_at_k"] == pytest.approx(each.mean())
        assert row["stderr"] == pytest.approx(each.std(ddof=1) / 6**0.5)
        assert row["low"] <= row["pass_at_k"] <= row["high"]
        assert row["guessing"] == pytest.approx(np.mean(1 - (1 - shares) ** k))
        assert (row["n_problems"], row["n_samples"]) == (6, 4)
        assert row["correct_counts"] == [0, 1, 4, 2, 0, 3]
        assert row["well_formed"] == pytest.approx(well_formed)
        assert row["template_fingerprint"] == fingerprint(
            [(row["prompt"], row["reference"]) for row in samples]
        )


def test_counts_pool_the_answers() -> None:
    row = {"prompt": "?", "reference": "1", "n": 3, "n_correct": 1, "temperature": 1.0}
    row |= {"well_formed": [True, False, True], "answers": ["$1 $", None, r"\dfrac{1}{2}"]}
    row |= {"top_p": 1.0, "seed": 0, "engine": "e"}
    counts = sample._counts([row, row])
    assert counts["answers"] == Counter({"1": 2, r"\frac{1}{2}": 2})
    assert counts["well_formed"] == 4
    assert normalized(" 1 / 2 ") == "1/2"


def test_published_samples_are_drawn_once(
    step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = sample_cell(step, records_of(tmp_path))
    rows = rows_of([cell], tmp_path)
    monkeypatch.setattr(sample, "_sample_one", None)
    assert rows_of([cell], tmp_path) == rows


def test_what_cannot_be_sampled_fails_its_own_cell_alone(step: Path, tmp_path: Path) -> None:
    records = records_of(tmp_path)
    good = sample_cell(step, records, 0, 3)
    beyond = sample_cell(step, records, 6, 3)
    events = run_cells([beyond, good, passk_cell([good], (1, 8))], tmp_path)
    late, few = kinds(events, Failed)
    assert (late.cell_id, late.cause) == (beyond.id, "data")
    assert "are 6, and the run from 6 on is empty" in late.message
    assert "pass@8 of 'words' needs as many samples of each problem, and one has 4" in few.message
    assert few.remedy == "raise passk.samples, or lower passk.k"
    assert [event.cell_id for event in kinds(events, Finished)] == [good.id]


def test_a_prompt_without_room_is_refused(step: Path, tmp_path: Path) -> None:
    cell = sample_cell(step, records_of(tmp_path, ["river " * 200]))
    (failed,) = kinds(run_cells([cell], tmp_path), Failed)
    assert "no room for an answer in the model's context of 128" in failed.message


def test_weights_that_are_gone_fail_all_cells(tiny_series: Path, tmp_path: Path) -> None:
    records = records_of(tmp_path)
    cells = [sample_cell(tiny_series / "step7", records, first, 3) for first in (0, 3)]
    failed = kinds(run_cells(cells, tmp_path), Failed)
    assert [event.cell_id for event in failed] == [cell.id for cell in cells]


def test_without_vllm_the_remedy_is_the_other_engine(
    step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    cell = sample_cell(step, records_of(tmp_path), engine="vllm")
    (failed,) = kinds(run_cells([cell], tmp_path), Failed)
    assert "vLLM cannot be imported" in failed.message
    assert 'passk.engine = "transformers"' in failed.remedy


def test_a_temperature_that_vllm_would_raise_is_refused(step: Path, tmp_path: Path) -> None:
    cell = sample_cell(step, records_of(tmp_path), engine="vllm", temperature=1e-3)
    (failed,) = kinds(run_cells([cell], tmp_path), Failed)
    assert "below 0.01" in failed.message


def test_other_work_lets_the_engine_go(
    step: Path, tmp_path: Path, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of([sample_cell(step, records_of(tmp_path))], tmp_path)
    assert len(engines._held) == 1
    run_cells(cells[:1], tmp_path)
    assert not engines._held


def test_seeds_of_problems_differ() -> None:
    seeds = {engines.seed_of(replace(PLAIN, seed=s), p) for s in range(20) for p in range(50)}
    assert len(seeds) == 1000
    assert 0 <= min(seeds) <= max(seeds) < 2**62
