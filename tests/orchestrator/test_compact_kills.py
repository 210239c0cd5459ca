"""A compaction that is killed at any moment leaves every row readable, and can be run again."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dashboards.query import provenance
from orchestrator.compact import compact
from orchestrator.store import Store
from tests.orchestrator.local_study import environment
from tests.orchestrator.test_compact import filled, geometry, loss, quiet, tables

# A process forks a child for every run. The child kills itself right before its n-th rename or
# removal of a file.
_DRIVER = """
import json, os, shutil, signal, sys
from pathlib import Path
from orchestrator.compact import compact
from orchestrator.store import Store

template, root = Path(sys.argv[1]), Path(sys.argv[2])
for fatal in range(1, 1000):
    results = root / str(fatal)
    shutil.copytree(template, results)
    pid = os.fork()
    if pid == 0:
        calls = 0
        def deadly(real):
            def call(path, *arguments, **options):
                global calls
                calls += path.suffix != ".tmp" or real is replace
                if calls == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(path, *arguments, **options)
            return call
        replace = Path.replace
        Path.replace, Path.unlink = deadly(replace), deadly(Path.unlink)
        compact(Store(results), lambda done, total: None)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    if fatal > 100 or not os.path.exists(results):
        break
    if len(list(results.glob("*/*.parquet"))) == 4:
        break
"""


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_a_kill_at_any_rename_or_removal_loses_nothing(tmp_path: Path, earlier: bool) -> None:
    template = tmp_path / "template"
    store = filled(template, 3, 2)
    if earlier:
        # Older, longer versions of two cells lie in merged files.
        for number in (1, 2):
            loss(store, number, value=0.75, rows=3)
        compact(store, quiet)
        for number in (1, 2, 30):
            loss(store, number, value=0.25)
        geometry(store, 30)
    rows, records, ledger = tables(template), provenance(template), store.ledger()
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(template), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *killed, last = [int(code) for code in done.stdout.split()]
    files = len(list(template.glob("*/*.parquet"))) - 1
    assert (len(killed), last) == (files + 3, 0)
    assert set(killed) == {-signal.SIGKILL}
    for fatal in range(1, len(killed) + 1):
        results = tmp_path / str(fatal)
        assert tables(results) == rows, fatal
        assert provenance(results) == records, fatal
        again = Store(results)
        assert again.ledger() == ledger, fatal
        assert compact(again, quiet).files_after == 3
        assert tables(results) == rows, fatal
        assert provenance(results) == records, fatal
