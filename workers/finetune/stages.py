"""Stages of post-training: from one checkpoint to the next ones, with a row for every step.

Invariant: the checkpoints depend on the first weights, the tokenizer, the records and the work
alone. A stage that is killed and called again goes on from its last saved state and ends in the
same bytes as one that was left alone.
"""

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from jobs.cells import Cell
from jobs.errors import CellError, DataError
from jobs.events import Progress, Started
from jobs.posttrain_work import PosttrainWork
from jobs.sources import Produced
from workers import artifacts
from workers.artifacts import ROWS, Files
from workers.finetune import group, rlvr
from workers.finetune.keeping import Keeper, Publisher
from workers.finetune.trainers import trainer_of
from workers.grade import grader
from workers.hub import load_checkpoint, take_chat_template
from workers.measure import Rows
from workers.records import Record, load_records
from workers.tally import phase
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.threads import fixed_threads

_GRADING_SECONDS = 5.0
_COLUMNS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "reward": "reward",
    rlvr.SPREAD: "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "rewards/margins": "margin",
    "rewards/accuracies": "preferred",
    "completions/mean_length": "completion_length",
}


def post_train(task: Task, files: Files, report: Report) -> None:
    """Runs the stages of a task, all from one checkpoint, one after another.

    The rows of a stage whose artifact is published already are read from there: a kill between
    publication and the rows' commit then costs no second training.
    """
    clock = Clock()
    for cell in task.cells:
        with reporting_failure([cell], report):
            report(Started(cell.id))
            if files.artifact(cell.id, ROWS) is None:
                _make(cell, task, files, report)
            tables = {cell.work.table: artifacts.published_rows(files, cell.id)}
            report(finished(cell, tables, task, clock.lap()))


def _make(cell: Cell, task: Task, files: Files, report: Report) -> None:
    work, checkpoint = cell.work, cell.checkpoint
    if not isinstance(work, PosttrainWork) or checkpoint is None:
        raise ValueError(f"a cell of kind {work.kind} is no stage of post-training")

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done, total))

    with ExitStack() as stack:
        weights = stack.enter_context(artifacts.held(files, checkpoint.source, progress))
        tokenizer = stack.enter_context(artifacts.held(files, checkpoint.tokenizer, progress))
        folder = stack.enter_context(artifacts.resumable_artifact(files, cell.id))
        learnt = isinstance(checkpoint.source, Produced)
        rows = run_stage(work, weights, tokenizer, files, folder, task.device, progress, learnt)
        (folder / ROWS).write_text(json.dumps(rows))


@phase("train")
def run_stage(
    work: PosttrainWork,
    weights: Path,
    tokenizer: Path,
    files: Files,
    folder: Path,
    device: str,
    report: Callable[[int, int], None],
    learnt: bool = False,
) -> Rows:
    """Runs one stage, in as many processes as the work says, and writes its checkpoints.

    Each `folder/step{N}/` is a transformers folder with its tokenizer, adapters merged, and
    appears whole. While the stage lasts, `folder/state/` holds what a second call needs to go on.
    In bfloat16, the weights that are trained are float32 and each pass is rounded; what is saved
    is rounded as well.

    Args:
        work: The stage.
        weights: Folder of the checkpoint that it begins from.
        tokenizer: Folder of the tokenizer.
        files: Where this node finds the training data.
        folder: Where the checkpoints go; that of an earlier, killed call is resumed.
        device: `cpu`, `cuda` or `mps`.
        report: Called with (steps done, all steps).
        learnt: Whether a chain made the checkpoint, so that a chat template beside its weights is
            what it was trained with.

    Returns:
        One row per optimizer step: the own columns of table `posttrain`.

    Raises:
        DataError: A checkpoint, a tokenizer or records that cannot be used.
        DivergedError: Loss or gradient is no longer finite.
        CellError: The worker has too few GPUs.
    """
    if work.dtype == "float16":
        raise DataError(
            "float16 has too small a range for training", "set forward.dtype to bfloat16 or float32"
        )
    _check_devices(work.processes, device)
    shutil.rmtree(folder / "state" / "trainer", ignore_errors=True)  # Half saved at a kill.
    given = (work, weights, tokenizer, load_records(work.records, files), folder)
    run = partial(train, learnt=learnt)
    if work.processes == 1:
        rows = run(*given, device, report)
    else:
        kind = device.partition(":")[0]
        rows = group.together(work.processes, kind, run, given, report)
    shutil.rmtree(folder / "state", ignore_errors=True)
    return rows


def train(
    work: PosttrainWork,
    weights: Path,
    tokenizer: Path,
    records: Sequence[Record],
    folder: Path,
    device: str,
    report: Callable[[int, int], None],
    learnt: bool = False,
) -> Rows:
    """Does what `run_stage` says, alone or as one process of a group, and leaves the last state."""
    training, state = work.training, folder / "state"
    # A group splits its model before that sees a GPU: one alone might not hold it.
    loaded = load_checkpoint(
        weights, tokenizer, "float32", device if work.processes == 1 else "cpu"
    )
    model, words = loaded.model, loaded.tokenizer
    if words.eos_token is None:
        raise DataError(
            f"the tokenizer in {tokenizer} has no end-of-text token, so no answer could end",
            "name one as eos_token in its tokenizer_config.json",
        )
    config = copy.deepcopy(model.config)  # As it was: trainers change what it says of padding.
    config.dtype = getattr(torch, work.dtype)
    model.requires_grad_(True)
    had_template = bool(words.chat_template)
    if learnt:
        take_chat_template(words, weights)
    publish = Publisher(work, weights, tokenizer, config, words, had_template, folder).publish
    keeper = Keeper(work, state, publish, report)
    grading = (
        grader(work.records, _GRADING_SECONDS)
        if training.method == "rlvr"
        else nullcontext(_nothing)
    )
    with fixed_threads(work.threads), _quiet(), grading as grade:
        trainer = trainer_of(work, model, words, records, grade, device, state / "trainer", keeper)
        before = keeper.last_state()
        trainer.train(resume_from_checkpoint=None if before is None else str(before))
        publish(trainer.model, training.steps)
    return [
        {
            "method": training.method,
            "data": training.data,
            "seed": work.seed,
            "training_step": log["step"],
            **{column: log[name] for name, column in _COLUMNS.items() if name in log},
        }
        for log in trainer.state.log_history
        if "loss" in log
    ]


def _check_devices(processes: int, device: str) -> None:
    """Refuses a group that hasn't a device for each process.

    Raises:
        CellError: It hasn't.
    """
    there = torch.cuda.device_count() if device.startswith("cuda") else processes
    if device == "mps" and processes > 1:
        raise CellError(f"{processes} processes can't train together on mps", "use --device cpu")
    if there < processes:
        raise CellError(
            f"{processes} processes train together, a GPU each, and this worker has {there}",
            f"run `posttrain` with --gpus-per-worker {processes}, or lower the chain's processes",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops the libraries' warnings: of their own future, and of what is meant to be so."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)


def _nothing(_references: object, _texts: object, _problems: object) -> list[Any]:
    raise ValueError("only problems are graded")
