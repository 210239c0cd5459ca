"""Planted defects of planning are found: an oracle that says nothing would prove nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StudyError
from jobs.work import HeadWork
from orchestrator import plan, run
from tests.fuzz import planned
from tests.fuzz.children import run_cases
from tests.fuzz.mutants import Base, Mutant, bases
from tests.fuzz.mutants import planned as planned_base
from tests.fuzz.sandbox import Sandbox
from tests.fuzz.study_texts import write_inputs
from tests.fuzz.watch import Watch

OVERRIDES = ("head.extreme_tokens=7",)


def _wrong(tmp_path: Path, *overrides: str) -> str:
    """What is wrong with planning the template with overrides, as a fuzz case does it."""
    sandbox = Sandbox(tmp_path)
    write_inputs(sandbox.inputs)
    [template] = [base for base in bases() if base.name == "template"]
    bare = Base(template.name, template.text)

    def prepare() -> Callable[[int], dict[str, Any]]:
        sandbox.enter()
        # What is planted changes the second plan, not the one that it is compared with.
        with pytest.MonkeyPatch.context() as patch:
            for target, real in REAL.items():
                patch.setattr(target, real)
            base = planned_base(bare, sandbox)
        watch = Watch(sandbox.writable, tmp_path)
        return lambda case: planned.judge(
            Mutant(base, base.text.encode(), overrides), case, sandbox, watch
        )

    [(_, outcome)] = run_cases(range(1), prepare, tmp_path / "log", 30.0)
    return str(outcome["wrong"])


REAL: dict[str, Any] = {
    "orchestrator.run.load_study": run.load_study,  # type: ignore[attr-defined]
    "orchestrator.plan.HeadWork": HeadWork,
}


@pytest.mark.parametrize(
    "overrides",
    [(), OVERRIDES, ("description=x",), ("head.extreme_tokens=0",), ("head.extreme_tokens=20",)],
)
def test_nothing_is_wrong_with_nothing_planted(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    assert _wrong(tmp_path, *overrides) == ""


def _raising(error: BaseException) -> Any:
    def fail(*_given: Any) -> None:
        raise error

    return fail


def _blind(*given: Any) -> HeadWork:
    """A work that leaves a parameter out of its identity."""
    return replace(HeadWork(*given), extreme_tokens=20)


def _moody(*given: Any) -> HeadWork:
    """A work whose identity has something of no study in it."""
    return replace(HeadWork(*given), extreme_tokens=99)


def _writing(*given: Any) -> Any:
    Path("left-behind").write_text("x")
    return REAL["orchestrator.run.load_study"](*given)


@pytest.mark.parametrize(
    ("target", "planted", "overrides", "said"),
    [
        ("orchestrator.run.load_study", _raising(KeyError("x")), OVERRIDES, "KeyError"),
        ("orchestrator.run.load_study", _raising(SystemExit(0)), OVERRIDES, "SystemExit"),
        ("orchestrator.run.load_study", _raising(StudyError("", "")), OVERRIDES, "no message"),
        ("orchestrator.run.load_study", _raising(StudyError("!", "?")), OVERRIDES, "names nothing"),
        ("orchestrator.run.load_study", _writing, OVERRIDES, "it did what it must not: open"),
        ("orchestrator.plan.HeadWork", _blind, OVERRIDES, "the same cells, though head.extreme"),
        ("orchestrator.plan.HeadWork", _moody, ("description=x",), "other cells, though descr"),
    ],
)
def test_what_is_planted_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    planted: Any,
    overrides: tuple[str, ...],
    said: str,
) -> None:
    assert plan.HeadWork is HeadWork  # type: ignore[attr-defined]
    monkeypatch.setattr(target, planted)
    assert said in _wrong(tmp_path, *overrides)
