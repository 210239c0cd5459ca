"""A run that is killed at any moment and started again ends as one that nothing disturbed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dashboards.query import load
from orchestrator.store import Store
from tests.conftest import Texts
from tests.orchestrator.local_study import environment, inline, write_study

TABLES = ("audit", "sequences", "checkpoints", "geometry", "influences", "head", "evals")

# A process forks a child for every run, so that torch is imported once. The child kills itself
# right before the n-th file or folder gets its final name: that is between write and rename, and
# for the last file of a cell between its side table and its primary one.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from orchestrator import run
import orchestrator.drive, orchestrator.inline, dashboards.report, datasets

def child(arguments, fatal):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    sys.stdout = open(os.devnull, "w")
    calls = 0
    def deadly(real):
        def call(self, target):
            nonlocal calls
            counts = Path(target).name != ".live.json"  # Written by the clock.
            calls += counts
            if counts and calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, target)
        return call
    Path.replace, Path.rename = deadly(Path.replace), deadly(Path.rename)
    os._exit(run.main(arguments))

def files(results):
    return {str(p.relative_to(results)): p.stat().st_mtime_ns for p in results.glob("*/*.parquet")}

root, arguments = Path(sys.argv[1]), sys.argv[2:]
for fatal in range(1, 1000):
    results = root / str(fatal)
    again = [results if a == "RESULTS" else a for a in arguments]
    again = [str(a) for a in again]
    first = child(again, fatal)
    killed = os.WIFSIGNALED(first) and os.WTERMSIG(first) == signal.SIGKILL
    kept = files(results)
    second = os.waitstatus_to_exitcode(child(again, 0))
    after = files(results)
    print(json.dumps({
        "results": str(results), "killed": killed, "second": second, "kept": len(kept),
        "all": len(after), "rewritten": [p for p, t in kept.items() if after.get(p) != t],
    }), flush=True)
    if not killed:
        break
"""


@pytest.mark.slow
def test_a_kill_at_any_rename_loses_nothing_and_doubles_nothing(
    tmp_path: Path, tiny_series: Path, texts: Texts
) -> None:
    study = write_study(tmp_path, tiny_series, texts.txt)
    arguments = inline("full", study, Path("RESULTS"))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment({"EIGENTRACE_CACHE": str(tmp_path / "cache")}),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    *killed, undisturbed = runs
    # The cache of hashes, the marker, an artifact, 14 cells, 3 side tables, and the report.
    assert len(killed) >= 20
    assert all(r["killed"] for r in killed)
    assert not undisturbed["killed"]
    assert undisturbed["all"] == 17
    expected = {table: load(table, undisturbed["results"]) for table in TABLES}
    ids = Store(undisturbed["results"]).ledger().done
    for found in killed:
        assert (found["second"], found["all"]) == (0, 17), found
        # What was finished stays as it is; a side table without its primary is written again.
        spared = [path for path in found["rewritten"] if not path.startswith("influences/")]
        assert spared == []
        assert len(found["rewritten"]) <= 1
        assert Store(found["results"]).ledger().done == ids
        for table, rows in expected.items():
            assert load(table, found["results"]).equals(rows), f"{table} after {found}"
    # One more file survives each kill, up to the last: work is lost only in flight.
    assert sorted(r["kept"] for r in killed) == [r["kept"] for r in killed]
    assert {r["kept"] for r in killed} == set(range(18))
