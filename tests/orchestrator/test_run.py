"""Runs from the command line: exit codes, the last line's JSON, and what is kept of a run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dashboards.query import load
from tests.conftest import Texts
from tests.orchestrator.local_study import (
    Outcome,
    call,
    environment,
    inline,
    run_here,
    run_process,
    write_study,
)

CELLS = 14


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_series: Path, texts: Texts) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), tiny_series, texts.txt)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, study: Path) -> Path:
    """Results of a whole run; read-only."""
    results = tmp_path_factory.mktemp("finished") / "results"
    assert call(*inline("full", study, results)) == 0
    return results


def _times(results: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in results.rglob("*") if p.is_file()}


def test_a_whole_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, finished: Path, study: Path
) -> None:
    results = tmp_path / "results"
    outcome = run_here(capsys, *inline("full", study, results))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == f"results: {results}"
    last = outcome.last
    assert (last["cells"], last["done"], last["todo"], last["failed"]) == (CELLS, CELLS, 0, 0)
    assert last["by_kind"]["geometry"] == {"done": 3, "todo": 0, "failed": 0, "blocked": 0}
    assert Path(last["report"]).read_text().startswith("<!")
    for table in ("sequences", "checkpoints", "geometry", "influences", "head", "evals"):
        one, two = load(table, results), load(table, finished)
        assert one.num_rows == (1 if table == "sequences" else 3)
        assert one.equals(two), f"table {table} differs between two runs"
    assert load("geometry", results).column("step").to_pylist() == [0, 10, 100]
    assert load("geometry", results).column("tokens").to_pylist() == [0, 1000, 10000]


def test_stages_share_their_cells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: Path
) -> None:
    results = tmp_path / "results"
    head = run_here(capsys, *inline("head", study, results))
    assert (head.code, head.last["cells"], head.last["done"]) == (0, 4, 4)
    before = _times(results / "head")
    both = run_here(capsys, *inline("evals", study, results))
    assert (both.code, both.last["cells"], both.last["done"]) == (0, 4, 4)
    assert _times(results / "head") == before
    state = run_here(capsys, "status", "--study", str(study), "--results", str(results))
    assert (state.last["done"], state.last["todo"]) == (7, CELLS - 7)


def test_a_second_run_does_no_work(finished: Path, study: Path) -> None:
    before = _times(finished)
    done = run_process(
        *("full", "--study", str(study), "--results", str(finished)),
        before="import time; began = time.perf_counter()",
        after="print(round(time.perf_counter() - began, 2), sorted({'torch', 'ray', "
        "'transformers', 'datasets'} & set(sys.modules)), file=sys.stderr)",
    )
    assert done.code == 0
    seconds, loaded = done.err.splitlines()[-1].split(maxsplit=1)
    print(f"a full without work takes {seconds} s")
    assert loaded == "[]"
    assert _times(finished) == before


def _spoil(checkpoint: Path) -> None:
    """Puts a number that is none into the weights."""
    weights = load_file(checkpoint / "model.safetensors")
    name = min(weights)
    weights[name].view(-1)[3] = torch.nan
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})


def test_a_bad_checkpoint_costs_only_its_cells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, copy_series: Path, texts: Texts
) -> None:
    _spoil(copy_series / "step10")
    study, results = write_study(tmp_path, copy_series, texts.txt), tmp_path / "results"
    first = run_here(capsys, *inline("full", study, results))
    assert first.code == 1
    assert (first.last["done"], first.last["failed"], first.last["todo"]) == (CELLS - 4, 4, 0)
    assert "Traceback" not in first.out + first.err
    assert "values that are not finite" in first.out
    assert {f["cause"] for f in first.last["failures"]} == {"data"}
    assert "retry" in first.last["next"]
    failures = load("failures", results).to_pylist()
    assert {(f["revision"], f["attempts"]) for f in failures} == {("step10", 1)}
    assert all("read_weights" in f["traceback"] for f in failures)
    assert load("geometry", results).column("step").to_pylist() == [0, 100]

    # Given up is given up, until `retry` says otherwise; then it is tried again.
    before = _times(results / "failures")
    assert run_here(capsys, *inline("full", study, results)).code == 1
    assert _times(results / "failures") == before
    place = ("--results", str(results))
    assert run_here(capsys, "retry", *place, "--cause", "memory").last["cleared"] == 0
    head = next(f["cell_id"] for f in failures if f["kind"] == "head")
    assert run_here(capsys, "retry", *place, "--cell", head[:12]).last["cleared"] == 1
    assert run_here(capsys, "retry", *place).last["cleared"] == 3
    assert load("failures", results).num_rows == 0
    assert run_here(capsys, *inline("full", study, results)).code == 1
    assert load("failures", results).num_rows == 4


def test_what_failed_by_chance_succeeds_after_a_retry(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: Path, finished: Path
) -> None:
    from workers import checkpoint_task as worker

    results = tmp_path / "results"

    def full(*_: Any) -> None:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "load_checkpoint", full)
        first = run_here(capsys, *inline("full", study, results))
    assert (first.code, first.last["failed"], first.last["done"]) == (1, CELLS - 2, 2)
    assert set(load("failures", results).column("attempts").to_pylist()) == {2}
    cleared = run_here(capsys, "retry", "--cause", "memory", "--results", str(results))
    assert cleared.last["cleared"] == CELLS - 2
    again = run_here(capsys, *inline("full", study, results))
    assert (again.code, again.last["failed"], again.last["done"]) == (0, 0, CELLS)
    assert load("failures", results).num_rows == 0
    assert load("head", results).equals(load("head", finished))


def test_text_that_does_not_suffice_blocks_what_needs_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: Path
) -> None:
    results = tmp_path / "results"
    few = ("--set", "datasets.words.sequences=5000")
    outcome = run_here(capsys, *inline("full", study, results), *few)
    assert outcome.code == 1
    assert (outcome.last["failed"], outcome.last["blocked"]) == (1, 9)
    assert outcome.last["by_kind"]["checkpoint"]["done"] == 3
    assert "gives only" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, study: Path, finished: Path, number: signal.Signals
) -> None:
    results = tmp_path / "results"
    # Each commit takes its time, so that the interrupt comes between two of them.
    code = """
import sys, time
from orchestrator import run, store
commit = store.Store.commit
def slowly(*arguments):
    commit(*arguments)
    time.sleep(0.5)
store.Store.commit = slowly
sys.exit(run.main())
"""
    running = subprocess.Popen(
        [sys.executable, "-c", code, *inline("full", study, results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(results.glob("*/*.parquet"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130, err
    assert Outcome(130, out, err).last["code"] == 130
    assert "Traceback" not in err
    kept = {p: t for p, t in _times(results).items() if p.endswith(".parquet")}
    assert 3 <= len(kept) < CELLS
    assert not list(results.rglob("*.tmp"))
    assert call(*inline("full", study, results)) == 0
    after = _times(results)
    assert {p: after[p] for p in kept} == kept
    assert load("evals", results).equals(load("evals", finished))


def test_a_report_is_drawn_again_when_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, finished: Path
) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "results"))
    before = (results / "report.html").stat().st_mtime_ns
    outcome = run_here(capsys, "report", "--results", str(results))
    assert outcome.code == 0
    assert (results / "report.html").stat().st_mtime_ns > before


def test_plan_and_status_print_json_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: Path, finished: Path
) -> None:
    shared = ("--study", str(study), "--json", "--results")
    for command, results, done in (("plan", tmp_path / "new", 0), ("status", finished, CELLS)):
        outcome = run_here(capsys, command, *shared, str(results))
        found = json.loads(outcome.out)
        assert (found["cells"], found["done"], found["failed"]) == (CELLS, done, 0)
        assert found["todo"] == CELLS - done
        assert sum(sum(kind.values()) for kind in found["by_kind"].values()) == CELLS
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_status_follows_a_run_to_its_end(tmp_path: Path, study: Path) -> None:
    """From another process, from before there are workers; then it says how the cells ended."""
    results = tmp_path / "results"
    code = """
import sys, time
from orchestrator import commands, run, store
def slowly(function, seconds):
    return lambda *arguments: (time.sleep(seconds), function(*arguments))[1]
commands._inline_executor = slowly(commands._inline_executor, 3)
store.Store.commit = slowly(store.Store.commit, 0.25)
sys.exit(run.main())
"""
    run = subprocess.Popen(
        [sys.executable, "-c", code, *inline("full", study, results)],
        stdout=subprocess.DEVNULL,
        env=environment(),
        cwd=tmp_path,
    )
    follow = ("status", "--watch", "--study", str(study), "--results", str(results))
    try:
        while not (results / ".live.json").exists() and run.poll() is None:
            time.sleep(0.02)
        watched = subprocess.run(
            [sys.executable, "-m", "orchestrator.run", *follow],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=tmp_path,
            check=True,
        )
        assert run.wait(60) == 0
    finally:
        run.kill()
        run.wait()
    assert f"(process {run.pid})" in watched.stdout
    before, _, after = watched.stdout.partition("running since")
    assert "starting since" in before
    assert "1 of 1 workers" in after
    assert "no run is at work on these results" in after
    assert json.loads(watched.stdout.splitlines()[-1])["done"] == CELLS


def test_two_results_are_compared_and_compacted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, finished: Path, study: Path
) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    compacted = run_here(capsys, "compact", "--results", str(copy))
    assert compacted.code == 0
    assert compacted.last["files_after"] < compacted.last["files_before"]
    same = run_here(capsys, "diff", str(finished), str(copy))
    assert (same.code, same.last["tables"]) == (0, {})
    assert run_here(capsys, *inline("full", study, copy)).last["done"] == CELLS
    shorter = tmp_path / "shorter"
    assert call(*inline("head", study, shorter)) == 0
    other = run_here(capsys, "diff", str(finished), str(shorter))
    assert other.code == 1
    assert other.last["tables"]["geometry"]["only_first"] == 3
    assert "geometry" in other.out
