"""Records that post-training learns from, and problems to answer, as they are stored."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import DataError
from jobs.posttrain_work import FileRecords, HubRecords, PicoRecords, Records
from workers import artifacts
from workers.artifacts import Files
from workers.hub_text import streamed_records
from workers.json_text import read_json

Record = dict[str, Any]

_PROBLEMS = {"problems": "arithmetic_train.jsonl", "heldout_problems": "arithmetic_heldout.jsonl"}


def load_records(records: Records, files: Files) -> list[Record]:
    """Returns the records of a source, in its order.

    Raises:
        DataError: A file that changed since it was planned or isn't JSON, a record that is no
            table of names and values, a dataset without that subset, split or file; none at all,
            or not as many as the study counts on.
        OSError: The hub cannot be reached.
    """
    match records:
        case FileRecords():
            found = _of_files(records, files)
        case HubRecords():
            found = _of_hub(records)
        case PicoRecords():
            found = _of_pico(records, artifacts.whole(files, records.corpus))
    chosen = list(islice(found, records.limit))
    if not chosen:
        raise DataError(f"'{records.name}' holds no records", "name data that has some")
    if isinstance(records, HubRecords):
        _check_number(records, len(chosen))
    return chosen


def _of_files(records: FileRecords, files: Files) -> Iterator[Record]:
    for name, sha256 in files.text(records.files).files:
        content = Path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{name} changed since it was planned", "run the command again")
        try:
            if name.endswith(".json"):
                found = read_json(content)
            else:
                found = [read_json(line) for line in content.split(b"\n") if line.strip()]
        except ValueError as error:
            raise DataError(f"{name} is not JSON: {error}", "mend it") from error
        for number, record in enumerate(found, start=1):
            if not isinstance(record, dict):
                raise DataError(
                    f"{name}: record {number} is {str(record)[:40]!r}, no table of names and "
                    "values",
                    "write {…} with its fields",
                )
            yield record


def _of_hub(records: HubRecords) -> Iterator[Record]:
    for number, record in enumerate(streamed_records(records), start=1):
        for name, wanted in records.where:
            if name not in record:
                raise DataError(
                    f"'{records.name}': record {number} has no field '{name}', only "
                    f"{', '.join(record)}",
                    f"correct training.{records.name}.where",
                )
            if str(record[name]).lower() not in {value.lower() for value in wanted}:
                break
        else:
            yield record


def _check_number(records: HubRecords, found: int) -> None:
    """Compares how many records were read with how many the study says there are."""
    if records.expected is None:
        return
    if found != min(records.expected, records.limit or records.expected):
        raise DataError(
            f"'{records.name}' has {found} records, and the study counts on {records.expected}",
            f"set training.{records.name}.records to their number",
        )


def _of_pico(records: PicoRecords, corpus: Path) -> Iterator[Record]:
    """Yields generated records; questions and sums in turns, where both are wanted."""
    if records.form in _PROBLEMS:
        yield from _lines(corpus / _PROBLEMS[records.form])
        return
    generator = np.random.default_rng(0)
    held = records.form == "heldout_instructions"
    sums = _lines(corpus / _PROBLEMS["heldout_problems" if held else "problems"])
    questions = _lines(corpus / f"questions_{'heldout' if held else 'train'}.jsonl")
    for question, problem in zip(questions, sums, strict=False):
        wrong = [c for place, c in enumerate(question["choices"]) if place != question["label"]]
        answer = problem["answer"]
        place = int(generator.choice([n for n, c in enumerate(answer) if c.isdigit()]))
        digit = (int(answer[place]) + int(generator.integers(1, 10))) % 10
        mistaken = f"{answer[:place]}{digit}{answer[place + 1 :]}"
        pairs = (
            (question["prompt"], question["answer"], str(generator.choice(wrong))),
            (problem["problem"], answer, mistaken),
        )
        for prompt, right, rejected in pairs:
            if records.form != "preferences":
                yield {"prompt": prompt, "completion": right}
            else:
                yield {"prompt": prompt, "chosen": right, "rejected": rejected}


def _lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
