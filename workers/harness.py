"""lm-eval's tasks on the records at hand.

Nothing is shared between checkpoints but the questions themselves: lm-eval's cache of requests,
whose key doesn't name the model, is never used, and no answer is kept.
"""

import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.tasks
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from jobs.errors import DataError
from jobs.identity import digest
from jobs.questions import HarnessQuestions, HubData, PicoQuestions, Questions
from jobs.sources import TextFiles
from workers import artifacts
from workers.artifacts import Files
from workers.json_text import read_json
from workers.pico_tasks import pico_config

OUTPUTS = ("multiple_choice", "loglikelihood", "generate_until")
"""What a task may ask for."""

_FEWSHOT_SEED = 1234  # lm-eval's default.
_CODE = ("include", "class", "custom_dataset", "unsafe_code")
# How templates, samplers, metrics and records that don't fit each other fail; not RuntimeError and
# OSError, which say what became of the machine.
_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError),
    *(SyntaxError, TemplateError, TypeError, ValueError),
)

_tasks: dict[str, Any] = {}  # By the identity of their questions.

# It warns of each model that is given to it loaded.
logging.getLogger("lm_eval").setLevel(logging.ERROR)
# Bars of theirs would tear the run's own progress apart.
datasets.disable_progress_bars()
lm_eval.api.task.tqdm = functools.partial(lm_eval.api.task.tqdm, disable=True)


def load_task(questions: Questions, files: Files) -> Any:
    """Returns lm-eval's task, with its records; the same object for the same questions.

    Raises:
        DataError: lm-eval has no such task, its file cannot be read, needs code or other files, or
            the records don't fit.
        OSError: The hub cannot be reached.
    """
    key = digest(questions.identity)
    if key not in _tasks:
        _tasks[key] = _set_up(questions, files)
    task = _tasks[key]
    task.set_config("task", questions.name)  # Another study may have called it otherwise.
    rewind(task)
    return task


def rewind(task: Any) -> None:
    """Makes a task draw its solved examples anew, so that every checkpoint is shown the same."""
    task.set_fewshot_seed(_FEWSHOT_SEED)


@contextmanager
def asking(name: str) -> Iterator[None]:
    """Tells what goes wrong between a task and its records as an error of the data."""
    try:
        yield
    except _MISFITS as error:
        raise DataError(
            f"task '{name}' cannot be asked: {type(error).__name__}: {error}",
            "check that the records have the fields that the task reads, and enough records for "
            "`shots`",
        ) from error


def _set_up(questions: Questions, files: Files) -> Any:
    name = questions.name
    match questions:
        case PicoQuestions():
            folder = artifacts.whole(files, questions.corpus)
            config, shots = pico_config(questions, folder), 0
        case HarnessQuestions():
            config, shots = _harness_config(questions, files), questions.shots
    _check_kind(name, config)
    try:
        task = ConfigurableTask(config={**config, "task": name})
    except OSError:
        raise
    except Exception as error:  # Templates fail in as many ways as there are records.
        raise DataError(
            f"task '{name}' cannot be set up: {type(error).__name__}: {error}",
            "check that the records have the fields that the task reads",
        ) from error
    task.set_config("num_fewshot", shots)
    return task


def _check_kind(name: str, config: dict[str, Any]) -> None:
    """Refuses what isn't asked of a language model by text and scored here."""
    output = config.get("output_type", "generate_until")
    if output == "loglikelihood_rolling":
        raise DataError(
            f"task '{name}' has no questions: it is the likelihood of whole texts",
            "measure it as a dataset of evals.loss",
        )
    if output not in OUTPUTS:
        raise DataError(
            f"task '{name}' asks for '{output}'", f"give one that asks for {', '.join(OUTPUTS)}"
        )
    for field in ("class", "unsafe_code", "doc_to_image", "doc_to_audio"):
        if config.get(field):
            raise DataError(
                f"task '{name}' needs more than text and templates: it has `{field}`",
                "leave it out, or write a `config` without it",
            )


def build_requests(task: Any, limit: int | None) -> list[Instance]:
    """Returns lm-eval's requests of a task's first examples, fresh ones at every call.

    Raises:
        DataError: A record lacks a field that the task reads.
    """
    rewind(task)
    with asking(task.config.task):
        task.build_all_requests(limit=limit, cache_requests=False, rank=0, world_size=1)
    found: list[Instance] = task.instances
    return found


def right_options(task: Any, document: dict[str, Any]) -> frozenset[int]:
    """Returns the places of the right options of a multiple-choice question.

    Raises:
        DataError: There is none; lm-eval would count the question as answered wrongly.
    """
    options = task.doc_to_choice(document)
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    named = gold if isinstance(gold, list) else [gold]
    places = {options.index(n) if isinstance(n, str) and n in options else n for n in named}
    right = frozenset(p for p in places if isinstance(p, int) and 0 <= p < len(options))
    if not right:
        raise DataError(
            f"task '{task.config.task}': label {gold!r} is none of the {len(options)} options",
            "check the labels of the records; some published test sets have none",
        )
    return right


def template_fingerprint(requests: Iterable[Instance]) -> str:
    """Returns the SHA-256 of all prompts and answers, in order."""
    sha256 = hashlib.sha256()
    for request in requests:
        said = [part for part in request.args if isinstance(part, str)]
        sha256.update(json.dumps([request.doc_id, request.idx, *said]).encode())
    return sha256.hexdigest()


def _harness_config(questions: HarnessQuestions, files: Files) -> dict[str, Any]:
    config = _definition(questions, files)
    if isinstance(questions.data, HubData):
        if config.get("dataset_path") != questions.data.repository:
            raise DataError(
                f"lm-eval's task '{questions.task}' reads {config.get('dataset_path')}, not "
                f"{questions.data.repository}",
                f'set tasks.{questions.name}.repository = "{config.get("dataset_path")}"',
            )
        arguments = {**(config.get("dataset_kwargs") or {}), "revision": questions.data.commit}
        return {**config, "dataset_kwargs": arguments}
    records = _records(files.text(questions.data))
    split = config.get("test_split") or config.get("validation_split") or "test"
    fewshot = config.get("fewshot_config")
    return {
        **config,
        "custom_dataset": lambda **_: datasets.DatasetDict({split: records}),
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        # Named, since only then a question is kept out of its own solved examples.
        "fewshot_split": split,
        "fewshot_config": {**fewshot, "split": split} if isinstance(fewshot, dict) else None,
        "test_split": split,
    }


def _definition(questions: HarnessQuestions, files: Files) -> dict[str, Any]:
    """Returns what lm-eval, or the user's file, says of a task."""
    if questions.config is None:
        path = _shipped(str(questions.task))
        # Before its functions are imported, which some tasks fetch.
        _check_kind(questions.name, load_yaml(path, resolve_func=False))
        try:
            return dict(load_yaml(path, resolve_func=True))
        except Exception as error:  # What modules of tasks may need.
            raise DataError(
                f"lm-eval's task '{questions.task}' cannot be read: "
                f"{type(error).__name__}: {error}",
                "install what it needs, or give a `config` of your own",
            ) from error
    ((name, content), *_) = _contents(files.text(questions.config))
    try:
        # Not recursive: the identity knows this file alone.
        config = load_yaml(Path(name), resolve_func=False, recursive=False)
    except Exception as error:  # What YAML's parser makes of any file.
        raise DataError(f"{name} is no task file: {error}", "see lm-eval's guide") from error
    unwanted = [f"{field}:" for field in _CODE if field in config]
    if b"!function" in content:
        unwanted.append("!function")
    if unwanted:
        raise DataError(
            f"{name} says '{unwanted[0]}': a task file may neither include others nor run code",
            "write its fields out",
        )
    return dict(config)


@functools.cache
def _shipped(name: str) -> Path:
    """Returns the file of one of lm-eval's own tasks.

    Found by its text, since lm-eval's own index parses ten thousand files first.
    """
    line = re.compile(rf"^task:\s*['\"]?{re.escape(name)}['\"]?\s*$", re.MULTILINE)
    folder = Path(lm_eval.tasks.__file__).parent
    for path in sorted(folder.rglob("*.yaml")):
        if line.search(path.read_text(encoding="utf-8")):
            return path
    raise DataError(
        f"lm-eval has no task '{name}'", "see `lm_eval ls tasks`, or give a `config` of your own"
    )


def _records(text: TextFiles) -> datasets.Dataset:
    """Returns the records of JSONL files, in memory alone."""
    records: list[dict[str, Any]] = []
    for place, record in records_of(text):
        if records and (odd := record.keys() ^ records[0].keys()):
            raise DataError(
                f"{place} differs from the first record in the fields {', '.join(sorted(odd))}",
                "give all records the same fields, null where a value is missing",
            )
        records.append(record)
    if not records:
        raise DataError(f"{', '.join(name for name, _ in text.files)}: no records", "add some")
    try:
        return datasets.Dataset.from_list(records)
    except Exception as error:  # Arrow's many ways to say that values differ in kind.
        raise DataError(
            f"{text.files[0][0]}: a field has values of different kinds: {error}", "mend them"
        ) from error


def records_of(text: TextFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each record of JSONL files after its place, `file, line n`.

    Raises:
        DataError: A file changed since it was planned; a line that is no record.
    """
    for name, content in _contents(text):
        # Not splitlines(): strings in JSON may hold what Unicode takes for the end of a line.
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            place = f"{name}, line {number}"
            try:
                record = read_json(line)
            except ValueError as error:
                raise DataError(f"{place} is not JSON: {error}", "mend the line") from error
            if not isinstance(record, dict):
                raise DataError(f"{place} is no record: {line[:40]!r}", "write {…} with its fields")
            yield place, record


def _contents(text: TextFiles) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of each file, as planned."""
    for name, sha256 in text.files:
        content = Path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{name} changed since it was planned", "run the command again")
        yield name, content
