"""Runs cases of fuzzing: `python -m tests.fuzz studies 0:500`, or `… files 17` for one of them.

Each case prints a line of JSON; `wrong` in it says what was wrong. Equal numbers are equal cases.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests import conftest  # First of all: it sets what libraries read while they are imported.
from tests.fuzz import mutants, planned
from tests.fuzz.children import Body, run_cases
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.study_texts import write_inputs
from tests.fuzz.watch import Watch
from tests.hub.client import use_hub
from tests.hub.published import publish_study
from tests.hub.server import LocalHub

PLAN_SECONDS = 10.0
MEASURE_SECONDS = 20.0
MEMORY = 2 * 2**30
RUN_EVERY = 100

Outcomes = Iterator[tuple[int, dict[str, Any]]]


def studies(cases: range, root: Path) -> Outcomes:
    """Plans mutated studies and overrides against a hub on loopback."""
    sandbox = Sandbox(root)
    write_inputs(sandbox.inputs)
    sandbox.studies.mkdir()
    found = list(mutants.bases())
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        use_hub(hub, patch, root / "cache" / "huggingface")
        for base in found:
            publish_study(hub, mutants.study_of(base, root), every=True)
        host = ("127.0.0.1", int(hub.address.rpartition(":")[2]))

        def prepare_bases() -> Body:
            sandbox.enter()
            return lambda place: {"base": mutants.planned(found[place], sandbox).as_json()}

        outcomes = list(run_cases(range(len(found)), prepare_bases, root / "log", 60.0))
        for _, outcome in outcomes:
            assert "base" in outcome, outcome
        bases = tuple(mutants.Base.of_json(outcome["base"]) for _, outcome in outcomes)

        def prepare() -> Body:
            sandbox.enter()
            watch = Watch(sandbox.writable, root, [host])
            return lambda case: planned.judge(mutants.mutant(case, bases), case, sandbox, watch)

        yield from run_cases(cases, prepare, root / "log", PLAN_SECONDS)


def files(cases: range, root: Path) -> Outcomes:
    """Measures mutated checkpoints, texts and records; every now and then by the command."""
    # Imported here, once for all children: it takes seconds, and planning needs none of it.
    from tests.fuzz import measured
    from tests.fuzz.numbers import Original

    measured.import_all()
    (root / "originals").mkdir()
    texts = conftest.make_texts(root / "originals")
    series = conftest.make_series(root / "originals", texts)
    sandbox = Sandbox(root)
    sandbox.inputs.mkdir()
    bare = Original(series / "step10", texts.jsonl, {})

    def prepare_original() -> Body:
        sandbox.enter()
        return lambda _: {"tables": measured.measure(bare, sandbox)}

    [(_, outcome)] = run_cases(range(1), prepare_original, root / "log", MEASURE_SECONDS)
    assert "tables" in outcome, outcome
    original = Original(bare.checkpoint, bare.text, outcome["tables"])

    def prepare() -> Body:
        sandbox.enter()
        watch = Watch(sandbox.writable, root)
        return lambda case: measured.judge(case, original, sandbox, watch)

    yield from run_cases(cases, prepare, root / "log", MEASURE_SECONDS, MEMORY)

    def prepare_runs() -> Body:
        sandbox.enter()
        watch = Watch(sandbox.writable, root)
        return lambda case: measured.judge_run(case, original, sandbox, watch)

    # Without a limit: what draws the report asks for more addresses than it uses.
    whole = [case for case in cases if case % RUN_EVERY == 0]
    yield from run_cases(whole, prepare_runs, root / "log", MEASURE_SECONDS)


_KINDS: dict[str, Callable[[range, Path], Outcomes]] = {"studies": studies, "files": files}


def main() -> int:
    """Runs the cases; returns 1 if something was wrong with any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=tuple(_KINDS))
    parser.add_argument("cases", help="a number, or first:end")
    options = parser.parse_args()
    first, colon, end = options.cases.partition(":")
    cases = range(int(first), int(end) if colon else int(first) + 1)
    wrong = 0
    with TemporaryDirectory(prefix="eigentrace-fuzz-") as folder:
        for case, outcome in _KINDS[options.kind](cases, Path(folder).resolve()):
            wrong += bool(outcome.get("wrong"))
            print(json.dumps({"case": case} | outcome), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
