"""Mutated files: what measuring a checkpoint may do with them, and what it must give.

A file that cannot be measured becomes failures that name it and say what to do. What is measured
all the same are the numbers of the file as it is, computed here once more on another route.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dashboards.query import load
from jobs.errors import UsageError
from jobs.events import Failed
from orchestrator.plan import make_plan
from tests.fuzz.damage_config import damage_config, damage_tokenizer
from tests.fuzz.damage_weights import damage_index, damage_tensors, damage_weights
from tests.fuzz.numbers import Original, wrong_numbers
from tests.fuzz.records import RECORDS, damage_records, run_records, wrong_records
from tests.fuzz.running import Ended, Tables, read_all_the_same, run_plan, study_of
from tests.fuzz.sandbox import Sandbox, call
from tests.fuzz.watch import Watch
from tests.orchestrator.local_study import inline, write_study

_CAUSES = {"data", "memory", "user"}
_CHECKPOINT: tuple[Callable[[Path, random.Random], str], ...] = (
    *[damage_weights] * 3,
    *[damage_tensors] * 2,
    damage_index,
    *[damage_config] * 3,
    *[damage_tokenizer] * 2,
)


def measure(original: Original, sandbox: Sandbox) -> Tables:
    """Returns what measuring the unchanged files gives."""
    ended = run_plan(make_plan(study_of(original.checkpoint, original.text)), sandbox)
    assert not ended.failures, ended.failures
    return ended.tables


def import_all() -> None:
    """Imports what reads records, which takes seconds."""
    import lm_eval  # noqa: F401

    import workers.evaluate
    import workers.finetune.chat_sequences  # noqa: F401


def judge_run(number: int, original: Original, sandbox: Sandbox, watch: Watch) -> dict[str, Any]:
    """Mutates a file of a checkpoint and runs the command; returns what was wrong with it."""
    chance = random.Random(f"run {number}")
    folder = sandbox.root / "inputs" / f"run-{number}"
    checkpoint, text = folder / "step10", folder / "text.jsonl"
    shutil.copytree(original.checkpoint, checkpoint)
    shutil.copy(original.text, text)
    damage = chance.choice(_CHECKPOINT)
    way = f"{damage.__name__} {damage(checkpoint, chance)}"
    study = write_study(folder, checkpoint, text)
    results = sandbox.writable[0] / f"run-{number}"
    watch.seen.clear()
    called = call(inline("full", study, results))
    wrong = [f"it did what it must not: {what}" for what in watch.seen[:3]]
    if called.code not in {0, 1, 2} or "Traceback" in called.error:
        wrong.append(f"exit code {called.code}: {called.error[-1500:]}")
    else:
        last = json.loads(called.out.splitlines()[-1])
        failures = load("failures", results).to_pylist() if called.code != 2 else []
        if last["code"] != called.code or bool(failures) != (called.code == 1):
            wrong.append(f"exit code {called.code} with {len(failures)} failures, {last}")
        if called.code == 1 and not all(f["message"] and f["remedy"] for f in last["failures"]):
            wrong.append(f"failures without a message or a remedy: {last['failures']}")
    return {"way": way, "code": called.code, "wrong": "; ".join(wrong)}


def judge(number: int, original: Original, sandbox: Sandbox, watch: Watch) -> dict[str, Any]:
    """Mutates a file and measures with it; returns what was wrong with how it went."""
    chance = random.Random(f"file {number}")
    folder = sandbox.root / "inputs" / f"case-{number}"
    checkpoint, text = folder / "step10", folder / "text.jsonl"
    shutil.copytree(original.checkpoint, checkpoint)
    shutil.copy(original.text, text)
    kind = ""
    if chance.random() < 0.75:
        damage = chance.choice(_CHECKPOINT)
        way = f"{damage.__name__} {damage(checkpoint, chance)}"
        study = study_of(checkpoint, text)
    else:
        kind = chance.choice(RECORDS)
        way, study = damage_records(kind, folder, checkpoint, text, chance)
    watch.seen.clear()
    wrong: list[str] = []
    ended = Ended({}, ())
    try:
        plan = make_plan(study)
    except UsageError as error:
        end = "refused"
        wrong += _wrong_message(error.message, error.remedy, folder)
    else:
        ended = (
            run_plan(plan, sandbox) if kind in {"", "text"} else run_records(kind, plan, sandbox)
        )
        if not ended.failures and not kind and "head" not in ended.tables:
            ended = read_all_the_same(checkpoint, plan)
        end = "failed" if ended.failures else "finished"
        for failure in ended.failures:
            wrong += _wrong_failure(failure, folder)
    wrong += [f"it did what it must not: {what}" for what in watch.seen[:3]]
    if (checkpoint / "ran").exists():
        wrong.append("it ran code of the checkpoint")
    if end != "refused" and not kind:
        wrong += wrong_numbers(ended, original, checkpoint, sandbox, plan)
    if end == "finished" and kind:
        wrong += wrong_records(kind, ended, folder)
    told = next((f"{f.cause}: {f.message} → {f.remedy}" for f in ended.failures), "")
    shutil.rmtree(folder)
    return {"way": f"{kind}{way}", "end": end, "told": told[:300], "wrong": "; ".join(wrong)}


def _wrong_failure(failure: Failed, folder: Path) -> list[str]:
    told = f"{failure.cause}: {failure.message} → {failure.remedy}"
    if "defect of Eigentrace" in failure.remedy:
        return [f"{told}\n{failure.traceback[-1200:]}"]
    if failure.cause not in _CAUSES:
        return [f"a failure of another cause: {told}"]
    # What memory lacks is no fault of a file, and names none.
    if failure.cause == "memory":
        return []
    return _wrong_message(failure.message, failure.remedy, folder)


def _wrong_message(message: str, remedy: str, folder: Path) -> list[str]:
    if len(message) > 1500 or len(remedy) > 1500:
        return [f"a message of {len(message)} characters: {message:.200}"]
    named = (folder.name, "'", "tensor", "sequences", "rows of the LM head", "loss", "features")
    if not remedy or not any(name in message for name in named):
        return [f"a message that names nothing, or no remedy: {message} → {remedy}"]
    return []
