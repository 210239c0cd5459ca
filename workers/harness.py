"""lm-eval's tasks on the records at hand, and its view of a checkpoint that is loaded already.

Nothing is shared between checkpoints but the questions themselves: lm-eval's cache of requests,
whose key doesn't name the model, is never used, and no answer is kept.
"""

import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from jobs.errors import DataError
from jobs.identity import digest
from jobs.questions import HarnessQuestions, HubData, PicoQuestions, Questions
from jobs.sources import TextFiles
from workers import artifacts
from workers.artifacts import Files
from workers.hub import LoadedCheckpoint
from workers.pico_tasks import pico_config
from workers.scoring import TokenRequest

FEWSHOT_SEED = 1234
"""lm-eval's default."""

_USUAL_NEW_TOKENS = 256  # lm-eval's own for tasks that name none.
_CODE = re.compile(r"!function|^\s*(include|class|custom_dataset|unsafe_code)\s*:", re.MULTILINE)

_tasks: dict[str, Any] = {}  # By the identity of their questions.

# It warns of each model that is given to it loaded.
logging.getLogger("lm_eval").setLevel(logging.ERROR)


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
    return _tasks[key]


def _set_up(questions: Questions, files: Files) -> Any:
    name = questions.name
    match questions:
        case PicoQuestions():
            folder = artifacts.whole(files, questions.corpus)
            config, shots = pico_config(questions, folder), 0
        case HarnessQuestions():
            config, shots = _harness_config(questions, files), questions.shots
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
    task.set_fewshot_seed(FEWSHOT_SEED)
    if not len(task.eval_docs):
        raise DataError(f"task '{name}' has no questions", "give it records")
    return task


def build_requests(task: Any, limit: int | None) -> list[Instance]:
    """Returns lm-eval's requests of a task's first examples, fresh ones at every call.

    Raises:
        DataError: A record lacks a field that the task reads.
    """
    try:
        task.build_all_requests(limit=limit, cache_requests=False, rank=0, world_size=1)
    except Exception as error:  # Templates fail in as many ways as there are records.
        raise DataError(
            f"task '{task.config.task}' cannot be asked: {type(error).__name__}: {error}",
            "check that the records have the fields that the task reads",
        ) from error
    found: list[Instance] = task.instances
    return found


class LoadedModel(HFLM):
    """A loaded checkpoint as lm-eval sees it."""

    def __init__(self, checkpoint: LoadedCheckpoint, batch_size: int) -> None:
        """Wraps a checkpoint; nothing is loaded or moved.

        Args:
            checkpoint: The checkpoint.
            batch_size: Requests per forward pass.
        """
        super().__init__(
            pretrained=checkpoint.model, tokenizer=checkpoint.tokenizer, batch_size=batch_size
        )

    @property
    def max_gen_toks(self) -> int:
        """Longest answer for tasks that name none: half of a context too small for lm-eval's."""
        return min(_USUAL_NEW_TOKENS, self.max_length // 2)

    def token_requests(self, pairs: Iterable[tuple[int, int, str, str]]) -> list[TokenRequest]:
        """Returns continuations as lm-eval tokenizes and truncates them.

        Args:
            pairs: Example, option, context and continuation.
        """
        requests = []
        for example, option, context, continuation in pairs:
            if context:
                before, after = self._encode_pair(context, continuation)
            else:
                before = [self.prefix_token_id]
                after = self.tok_encode(continuation, add_special_tokens=False)
                if after and after[0] == self.prefix_token_id:
                    before, after = after[:1], after[1:]
            room = self.max_length + 1 - len(after)
            requests.append(
                TokenRequest(
                    example,
                    option,
                    tuple(before[-room:] if room > 0 else ()),
                    tuple(after[-self.max_length :]),
                    truncated=len(before) > room,
                )
            )
        return requests

    def is_truncated(self, request: Instance) -> bool:
        """Returns whether a request's prompt is cut from the left to fit the context."""
        context = request.args[0]
        if request.request_type == "generate_until":
            longest = request.args[1].get("max_gen_toks") or self.max_gen_toks
            return len(self.tok_encode(context)) > self.max_length - longest
        (found,) = self.token_requests([(0, 0, context, request.args[1])])
        return found.truncated


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
    return {
        **config,
        "custom_dataset": lambda **_: datasets.DatasetDict({split: records}),
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "fewshot_split": None,
        "test_split": split,
    }


def _definition(questions: HarnessQuestions, files: Files) -> dict[str, Any]:
    """Returns what lm-eval, or the user's file, says of a task."""
    if questions.config is None:
        return dict(load_yaml(_shipped(str(questions.task)), resolve_func=True))
    (name, _), *_ = files.text(questions.config).files
    try:
        text = Path(name).read_text(encoding="utf-8")
        if found := _CODE.search(text):
            raise DataError(
                f"{name} says '{found[0].strip()}': a task file may neither include others nor run "
                "code",
                "write its fields out",
            )
        config = load_yaml(Path(name), resolve_func=False)
    except DataError:
        raise
    except Exception as error:  # What YAML's parser makes of any file.
        raise DataError(f"{name} is no task file: {error}", "see lm-eval's guide") from error
    if not isinstance(config, dict):
        raise DataError(f"{name} is no task file: it holds no fields", "see lm-eval's guide")
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
    records = []
    for name, sha256 in text.files:
        content = Path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{name} changed since it was planned", "run the command again")
        try:
            records += [json.loads(line) for line in content.decode().splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"{name} is not JSON lines: {error}", "mend the line") from error
    if not records:
        raise DataError(f"{', '.join(name for name, _ in text.files)}: no records", "add some")
    try:
        return datasets.Dataset.from_list(records)
    except Exception as error:  # Arrow's many ways to say that records differ in kind.
        raise DataError(
            f"{text.files[0][0]}: the records don't have the same fields: {error}", "mend them"
        ) from error
