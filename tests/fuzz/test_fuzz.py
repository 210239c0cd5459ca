"""Mutated studies, overrides and files: never a traceback, a hang, or a wrong success."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.orchestrator.local_study import ROOT, environment

SHOWN = 10


def _outcomes(kind: str, cases: range, seconds: float) -> list[dict[str, Any]]:
    """Runs cases in a process of their own, from which children are forked."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", kind, f"{cases.start}:{cases.stop}"],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {outcome["case"] for outcome in found} == set(cases), done.stderr[-3000:]
    wrong = [outcome for outcome in found if outcome.get("wrong")]
    told = "\n".join(
        f"python -m tests.fuzz {kind} {outcome['case']}: {outcome['wrong']}"
        for outcome in wrong[:SHOWN]
    )
    assert not wrong, f"{len(wrong)} of {len(cases)} cases went wrong:\n{told}"
    assert done.returncode == 0
    return found


@pytest.mark.parametrize(
    ("cases", "seconds"),
    [
        pytest.param(range(500), 500, marks=pytest.mark.slow),
        pytest.param(range(10_000), 7000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_studies_and_overrides_are_planned_or_refused(cases: range, seconds: float) -> None:
    outcomes = _outcomes("studies", cases, seconds)
    codes = Counter(outcome["code"] for outcome in outcomes)
    assert min(codes[0], codes[2]) > len(cases) // 10
    assert len({outcome["base"] for outcome in outcomes}) > 10


@pytest.mark.parametrize(
    ("cases", "seconds"),
    [
        pytest.param(range(500), 500, marks=pytest.mark.slow),
        pytest.param(range(1_000), 3500, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_files_are_measured_or_refused(cases: range, seconds: float) -> None:
    outcomes = _outcomes("files", cases, seconds)
    ends = Counter(outcome["end"] for outcome in outcomes if "end" in outcome)
    assert min(ends["finished"], ends["failed"]) > len(cases) // 10
    ways = {outcome["way"].split()[0] for outcome in outcomes}
    assert len(ways) > 10
    # Those of the whole command: some of the files have failed, and the command has gone on.
    assert 1 in {outcome["code"] for outcome in outcomes if "code" in outcome}
