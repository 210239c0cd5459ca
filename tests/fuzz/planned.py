"""Mutated studies and overrides: what planning one may do, and what it must give.

Planning ends with a plan or with one line that says what is wrong. A plan's cells are those of the
unchanged study exactly where nothing that identifies a cell was changed.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jobs.spec import Study
from orchestrator.plan import Plan
from tests.fuzz.mutants import Base, Mutant, resolved
from tests.fuzz.sandbox import Called, Sandbox, call
from tests.fuzz.watch import Watch

LONGEST_MESSAGE = 2_500
_CELLS_PER_SECOND = 2_000  # A study may ask for many.

LABELS = (
    *("name", "description", "suites.*.name", "suites.*.model", "suites.*.tokens_per_step"),
    *("suites.*.stage", "suites.*.first_token", "toy.*.name", "toy.*.description"),
    *("forward.batch_size", "winrates.judge.base_url"),
)
"""Fields that tell what rows are called, or what a machine can bear: they identify nothing."""

FOUND = (
    *("suites.*.tokenizer", "suites.*.path", "suites.*.paths*", "suites.*.steps*"),
    *("suites.*.schedule", "suites.*.measure_duplicates", "suites.*.allow_bin"),
    *("datasets.*.paths*", "training.*.records", "tasks.*.revision", "tasks.*.training_data*"),
    *("posttrain.*.name", "posttrain.*.models*", "posttrain.*.steps*"),
    *("posttrain.*.stages.*.epochs", "finetune.steps*", "passk.batch", "winrates.seed"),
)
"""Fields that count by what they find: files of equal contents, revisions, nothing to do."""


def judge(case: Mutant, number: int, sandbox: Sandbox, watch: Watch) -> dict[str, Any]:
    """Plans a mutant; returns the exit code, and what was wrong with how it went."""
    path = sandbox.studies / f"case-{number}.toml"
    path.write_bytes(case.content)
    before = sorted(p.name for p in sandbox.inputs.rglob("*"))
    overrides = [word for text in case.overrides for word in ("--set", text)]
    watch.seen.clear()
    called = call(("plan", "--json", "--study", str(path), *overrides))
    seen = list(watch.seen)
    path.unlink()
    wrong = [f"it did what it must not: {what}" for what in seen[:3]]
    if sorted(p.name for p in sandbox.inputs.rglob("*")) != before:
        wrong.append("it changed its inputs")
    if "Traceback" in called.error:
        wrong.append(f"a traceback: {called.error[-1500:]}")
    wrong += _wrong_end(called, case, path)
    if called.code == 0:
        wrong += _wrong_plan(called.plans, case.base)
    cells = sum(len(plan.cells) for plan in called.plans)
    return {
        "code": called.code,
        "base": case.base.name,
        "wrong": "; ".join(wrong),
        "more_seconds": cells / _CELLS_PER_SECOND,
    }


def _wrong_end(called: Called, case: Mutant, path: Path) -> Iterator[str]:
    """Says what is wrong with the exit code, the last line and the message."""
    if called.code not in (0, 2):
        yield f"exit code {called.code}"
        return
    last = json.loads(called.out.splitlines()[-1])
    if last["code"] != called.code:
        yield f"the last line has code {last['code']}, not {called.code}"
    if called.code == 0:
        return
    message, arrow, remedy = last["error"].rpartition(" → ")
    if not (arrow and message.strip() and remedy.strip()):
        yield f"no message with a remedy: {last['error']!r:.300}"
    if len(last["error"]) > LONGEST_MESSAGE:
        yield f"a message of {len(last['error'])} characters: {last['error']:.300}"
    given = " ".join((case.content.decode(errors="replace"), *case.overrides))
    words = {str(path), *re.findall(r"[\w/.-]{3,}", given)}
    if not (re.search(r"'[^']+'", message) or any(word in message for word in words)):
        yield f"a message that names nothing: {message!r:.300}"


def _wrong_plan(plans: list[Plan], base: Base) -> Iterator[str]:
    """Says what is wrong with a plan that was made."""
    [plan] = plans
    if Study.model_validate_json(plan.study.model_dump_json(exclude_unset=True)) != plan.study:
        yield "the study does not survive being written and read"
    cells = frozenset(cell.id for cell in plan.cells)
    before, after = base.resolved, resolved(plan.study)
    if not differences(*(_without(study, LABELS) for study in (before, after))):
        if cells != base.cells:
            changed = ", ".join(differences(before, after)) or "nothing"
            yield f"other cells, though {changed} changed"
        return
    known = (_without(_without_names(study), LABELS + FOUND) for study in (before, after))
    bound = differences(*map(_in_order, known))
    if not plan.study.suites:
        bound = [path for path in bound if path.startswith("toy")]
    if bound and cells == base.cells:
        yield f"the same cells, though {', '.join(bound)} changed"


def _without(document: Any, fields: tuple[str, ...], path: str = "") -> Any:
    """Returns a document without the fields whose paths fit any of some patterns."""
    match document:
        case dict():
            paths = {key: f"{path}.{key}".lstrip(".") for key in document}
            return {
                key: _without(value, fields, paths[key])
                for key, value in document.items()
                if not any(fnmatchcase(paths[key], field) for field in fields)
            }
        case list():
            return [_without(each, fields, f"{path}.{n}") for n, each in enumerate(document)]
    return document


def _without_names(study: dict[str, Any]) -> dict[str, Any]:
    """Returns a study whose texts, tasks and data are lists of those that something names."""
    texts = set(_texts(study))
    named = ("datasets", "tasks", "training")
    return study | {
        key: [value for name, value in study[key].items() if name in texts] for key in named
    }


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from _texts(value)
    elif isinstance(document, str):
        yield document


def _in_order(document: Any) -> Any:
    """Returns a document without what is empty; order and number of members don't count in it."""
    match document:
        case dict():
            found = {key: _in_order(document[key]) for key in sorted(document)}
            return {k: v for k, v in found.items() if v not in (None, {}, [])}
        case list():
            members = {json.dumps(_in_order(member)) for member in document}
            return [json.loads(member) for member in sorted(members)]
    return document


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Returns the paths at which two documents differ, in whatever order their tables are."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys: Any = dict.fromkeys([*first, *second])
        pairs = [(key, first.get(key, _ABSENT), second.get(key, _ABSENT)) for key in keys]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = list(zip(range(len(first)), first, second, strict=True))
    else:
        return [] if first == second and type(first) is type(second) else [path]
    return [
        found
        for key, one, other in pairs
        for found in differences(one, other, f"{path}.{key}".lstrip("."))
    ]


_ABSENT = object()
