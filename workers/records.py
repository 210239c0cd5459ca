"""Records that post-training learns from, and problems to answer, as they are stored."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from jobs.errors import DataError
from jobs.posttrain_work import FileRecords, HubRecords, PicoRecords, Records
from workers import artifacts
from workers.artifacts import Files

Record = dict[str, Any]

_PROBLEMS = {"problems": "arithmetic_train.jsonl", "heldout_problems": "arithmetic_heldout.jsonl"}


def load_records(records: Records, files: Files) -> list[Record]:
    """Returns the records of a source, in its order.

    Raises:
        DataError: A file that changed since it was planned or isn't JSON, a record that is no
            table of names and values, a dataset without that subset or split; none at all.
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
    return chosen


def _of_files(records: FileRecords, files: Files) -> Iterator[Record]:
    for name, sha256 in files.text(records.files).files:
        content = Path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{name} changed since it was planned", "run the command again")
        try:
            if name.endswith(".json"):
                found = json.loads(content)
            else:
                found = [json.loads(line) for line in content.split(b"\n") if line.strip()]
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
    try:
        found = datasets.load_dataset(
            records.repository,
            records.config,
            split=records.split,
            revision=records.commit,
            streaming=True,
        )
    except ValueError as error:  # How `datasets` says that there is no such subset or split.
        raise DataError(
            f"'{records.name}' cannot be read from {records.repository}: {error}",
            "check its `config` and `split`",
        ) from error
    yield from (dict(record) for record in found)


def _of_pico(records: PicoRecords, corpus: Path) -> Iterator[Record]:
    """Yields generated records; questions and sums in turns, where both are wanted."""
    if records.form in _PROBLEMS:
        yield from _lines(corpus / _PROBLEMS[records.form])
        return
    generator = np.random.default_rng(0)
    sums = _lines(corpus / _PROBLEMS["problems"])
    for question, problem in zip(_lines(corpus / "questions_train.jsonl"), sums, strict=False):
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
            if records.form == "instructions":
                yield {"prompt": prompt, "completion": right}
            else:
                yield {"prompt": prompt, "chosen": right, "rejected": rejected}


def _lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
