"""Files of texts, chats, questions, problems and pairs: mutated, read, and read once more."""

import json
import random
from pathlib import Path
from typing import Any

from jobs.capability_spec import ChatLoss, Evals
from jobs.finetune_spec import Finetune
from jobs.finetune_work import FinetuneWork
from jobs.posttrain_spec import LocalExamples
from jobs.posttrain_work import FileRecords
from jobs.spec import Study
from jobs.task_spec import HarnessTask, PairsTask
from orchestrator.plan import Plan
from tests.fuzz.mutations import mutate_bytes, mutate_tree, nested, some_value
from tests.fuzz.running import Ended, run_cells, study_of
from tests.fuzz.sandbox import Sandbox
from workers.artifacts import SharedFiles
from workers.finetune.examples import load_pairs
from workers.problems import read_problems
from workers.records import load_records
from workers.telling import reporting_failure

RECORDS = ("text", "chats", "questions", "problems", "pairs")

_RECORDS: dict[str, dict[str, Any]] = {
    "text": {"text": "the quiet river moves under a small green hill"},
    "chats": {
        "messages": [
            {"role": "user", "content": "the old house?"},
            {"role": "assistant", "content": "sings near the water"},
        ]
    },
    "questions": {
        "support": "the small bird sings",
        "question": "what sings",
        "correct_answer": "bird",
        "distractor1": "house",
        "distractor2": "road",
        "distractor3": "door",
    },
    "problems": {"problem": "1 + 2?", "answer": "3"},
    "pairs": {"prompt": "the river", "completion": "moves"},
}


def damage_records(
    kind: str, folder: Path, checkpoint: Path, text: Path, chance: random.Random
) -> tuple[str, Study]:
    """Writes a file of records, some of them mutated; returns what was done, and who reads it."""
    record = _RECORDS[kind]
    lines = [json.dumps(record | {"number": n}).encode() for n in range(6)]
    if kind == "text":
        lines += text.read_bytes().splitlines()
    place = chance.randrange(6)
    way = chance.choice(
        ["none", "tree", "tree", "line", "file", "value", "deep", "huge", "mark", "half"]
    )
    match way:
        case "tree":
            lines[place] = json.dumps(mutate_tree(record, chance)).encode()
        case "line":
            lines[place] = mutate_bytes(lines[place], chance)
        case "value":
            lines[place] = json.dumps(some_value(chance)).encode()
        case "deep":
            lines[place] = json.dumps(record | {"more": nested(150, chance)}).encode()
            if chance.random() < 0.5:
                lines[place] = b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        case "half":
            lines[place] = lines[place].replace(b"the", b"\\ud800", 1).replace(b"1", b"\\udfff", 1)
        case "huge":
            lines[place] = json.dumps(record | {"more": "x " * 2**19}).encode()
        case "mark":
            lines[0] = b"\xef\xbb\xbf" + lines[0]
    content = b"\n".join(lines) + b"\n"
    if way == "file":
        content = mutate_bytes(content, chance)
    file = text if kind == "text" else folder / f"{kind}.jsonl"
    file.write_bytes(content)
    data = LocalExamples(paths=(str(file),))
    match kind:
        case "chats":
            evals = Evals(chats=ChatLoss(data=("chats",), sequences=4, sequence_length=64))
            return way, study_of(checkpoint, text, training={"chats": data}, evals=evals)
        case "problems":
            # Read by way of chats, which cost no sampling: the records are known the same way.
            evals = Evals(chats=ChatLoss(data=("chats",), sequences=4, sequence_length=64))
            return way, study_of(checkpoint, text, training={"chats": data}, evals=evals)
        case "questions":
            task = HarnessTask(task="sciq", data=(str(file),))
            asked = {"tasks": {"asked": task}, "evals": Evals(tasks=("asked",))}
            return way, study_of(checkpoint, text, **asked)
        case "pairs":
            pairs = PairsTask(
                training=(str(file),), validation=(str(file),), prompt="prompt", answer="completion"
            )
            return way, study_of(
                checkpoint, text, tasks={"pairs": pairs}, finetune=Finetune(tasks=("pairs",))
            )
    return way, study_of(checkpoint, text)


def run_records(kind: str, plan: Plan, sandbox: Sandbox) -> Ended:
    """Runs the cells that read the records, or what reads them there."""
    files = SharedFiles(sandbox.writable[0])
    failures: list[Any] = []
    if kind == "questions":
        return run_cells([cell for cell in plan.cells if cell.work.kind == "eval"], sandbox)
    [cell, *_] = [c for c in plan.cells if c.work.kind in {"chats", "finetune"}]
    if kind == "chats":
        return run_cells([cell], sandbox)
    read = 0
    with reporting_failure([cell], failures.append):
        if isinstance(cell.work, FinetuneWork):
            read = len(load_pairs(cell.work.examples, files)[0])
        else:
            records = cell.work.records  # type: ignore[union-attr]
            assert isinstance(records, FileRecords)
            read = len(read_problems("problems", load_records(records, files)))
    return Ended({"read": json.dumps(read)}, tuple(failures))


def wrong_records(kind: str, ended: Ended, folder: Path) -> list[str]:
    """Says whether a file was read in full, and as any reader of JSON lines reads it."""
    content = (folder / f"{kind}.jsonl").read_bytes()
    lines = [line for line in content.split(b"\n") if line.strip()]
    try:
        records = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        return [f"read what is not JSON: {error}"]
    if not all(isinstance(record, dict) for record in records):
        return ["read records that are no tables"]
    match kind:
        case "text":
            wanted = sum(bool(str(r.get("text") or "").strip()) for r in records)
            read = json.loads(ended.tables["sequences"])[0]["documents"]
        case "chats":
            wanted, read = len(records), json.loads(ended.tables["sequences"])[0]["documents"]
        case "questions":
            outcomes = json.loads(ended.tables["outcomes"])
            wanted, read = len(records), len({row["example"] for row in outcomes})
        case _:
            wanted, read = len(records), json.loads(ended.tables["read"])
    return [] if read == wanted else [f"{read} of {wanted} records were read"]
