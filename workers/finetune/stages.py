"""Stages of post-training: from one checkpoint to the next ones, with a row for every step.

Invariant: the checkpoints depend on the first weights, the tokenizer, the records and the work
alone. A stage that is killed and called again goes on from its last saved state and ends in the
same bytes as one that was left alone.
"""

import copy
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from jobs.cells import Cell
from jobs.errors import DataError, DivergedError
from jobs.events import Progress, Started
from jobs.posttrain_work import PosttrainWork
from jobs.sources import TOKENIZER_FILES
from workers import artifacts
from workers.artifacts import ROWS, Files
from workers.finetune import chats, rlvr
from workers.finetune.trainers import trainer_of
from workers.grade import grader
from workers.hub import load_checkpoint
from workers.measure import Rows
from workers.records import load_records
from workers.tally import phase
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.threads import fixed_threads

_TEMPLATE = "chat_template.jinja"
_GRADING_SECONDS = 5.0
_STATE_EVERY_SECONDS = 300.0
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
        rows = run_stage(work, weights, tokenizer, files, folder, task.device, progress)
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
) -> Rows:
    """Runs one stage and writes its checkpoints.

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

    Returns:
        One row per optimizer step: the own columns of table `posttrain`.

    Raises:
        DataError: A checkpoint, a tokenizer or records that cannot be used.
        DivergedError: Loss or gradient is no longer finite.
    """
    if work.dtype == "float16":
        raise DataError(
            "float16 has too small a range for training", "set forward.dtype to bfloat16 or float32"
        )
    training, state = work.training, folder / "state"
    shutil.rmtree(state / "trainer", ignore_errors=True)  # What was being saved at a kill.
    loaded = load_checkpoint(weights, tokenizer, "float32", device)
    model, words = loaded.model, loaded.tokenizer
    if words.eos_token is None:
        raise DataError(
            f"the tokenizer in {tokenizer} has no end-of-text token, so no answer could end",
            "name one as eos_token in its tokenizer_config.json",
        )
    had_template = bool(words.chat_template)
    config = copy.deepcopy(model.config)  # As it was: trainers change what it says of padding.
    config.dtype = getattr(torch, work.dtype)
    model.requires_grad_(True)

    def publish(trained: Any, step: int) -> None:
        with _published(folder / f"step{step}") as target:
            _plain(trained, config.dtype).save_pretrained(target)
            config.save_pretrained(target)
            _copy(weights, target, ("generation_config.json",))
            _copy(tokenizer, target, TOKENIZER_FILES)
            if words.chat_template and not had_template:
                (target / _TEMPLATE).write_text(chats.CHAT_TEMPLATE, encoding="utf-8")

    records = load_records(work.records, files)
    keeper = _Keeper(work, state, publish, report)
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
    shutil.rmtree(state, ignore_errors=True)
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


class _Keeper(TrainerCallback):
    """Keeps checkpoints and the trainer's state, tells the progress and sees divergence.

    Args:
        work: The stage.
        state: Folder of the states; the last whole one is in a folder step{N}.
        publish: Writes a checkpoint, given the model and its step.
        report: Called with (steps done, all steps).
    """

    def __init__(
        self,
        work: PosttrainWork,
        state: Path,
        publish: Callable[[Any, int], None],
        report: Callable[[int, int], None],
    ) -> None:
        self._work, self._state = work, state
        self._publish, self._report = publish, report
        self._saved = time.monotonic()

    def last_state(self) -> Path | None:
        """Returns the folder of the last whole state."""
        found = self._state.glob("step*")
        return max(found, key=lambda path: int(path.name.removeprefix("step")), default=None)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_others: Any) -> Any:
        """Asks for the state to be saved: it isn't any more once all is done."""
        step, training = state.global_step, self._work.training
        self._report(step, training.steps)
        late = time.monotonic() - self._saved > _STATE_EVERY_SECONDS
        if step < training.steps and (late or step in training.kept_steps):
            control.should_save = True
        return control

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_others: Any
    ) -> None:
        """Ends a stage whose loss or gradient is no longer finite; it comes before saving."""
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            training = self._work.training
            raise DivergedError(
                f"{training.method} on '{training.data}': loss {loss} and gradient norm {norm} at "
                f"step {state.global_step}, learning rate {training.learning_rate:g}",
                "lower the stage's learning_rate or raise its warmup_share",
            )

    def on_save(
        self, _args: Any, state: Any, _control: Any, model: Any = None, **_others: Any
    ) -> None:
        """Publishes a checkpoint that is kept, then lets the saved state take the last one's place.

        In this order, a resumed stage never lacks a checkpoint from before its state.
        """
        step = state.global_step
        if step in self._work.training.kept_steps:
            self._publish(model, step)
        before = self.last_state()
        (self._state / "trainer" / f"checkpoint-{step}").rename(self._state / f"step{step}")
        if before is not None:
            shutil.rmtree(before)
        self._saved = time.monotonic()


def _plain(model: Any, dtype: torch.dtype) -> Any:
    """Returns the model without adapters, merged into its weights, in the precision to save."""
    if not isinstance(model, PeftModel) and model.dtype == dtype:
        return model
    model = copy.deepcopy(model)  # Merging and unmerging would change the last bits.
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    return model.to(dtype)


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Gives a folder of a temporary name, and renames it in the end."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    # A run that was killed before it could save its state wrote the same bytes there.
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copies those of some files that are there, and lets no others of these names stay."""
    for name in names:
        (target / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


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
