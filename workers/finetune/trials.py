"""The fine-tunes of one checkpoint: one load, and each trial from the very same weights."""

import json
from collections.abc import Callable
from pathlib import Path

from jobs.cells import Cell
from jobs.events import Progress, Started
from jobs.finetune_work import FinetuneWork
from workers import artifacts
from workers.artifacts import ROWS, Files
from workers.features import check_logits, forward_pass
from workers.finetune.adapters import adapted, intervened_head
from workers.finetune.examples import tokenized
from workers.finetune.halving import goes_on, is_rung
from workers.finetune.held import Held, holding
from workers.finetune.outcome import Losses, trial_rows
from workers.finetune.training import (
    TrialDivergedError,
    batches,
    train,
    validation_loss,
)
from workers.measure import Rows
from workers.sequences import TokenSequences, load_sequences
from workers.tally import phase
from workers.telling import Clock, Report, Task, finished, reporting_failure
from workers.threads import fixed_threads

_SEQUENCES = ("sequences.safetensors", "sequences.json")
# Constants, whatever memory there is: the last bits of a loss depend on what shares its batch.
_VALIDATION_BATCH = 64
_TEXT_BATCH = 32


def finetune_checkpoint(task: Task, files: Files, report: Report) -> None:
    """Runs the trials of a task, all of one checkpoint, one after another."""
    clock = Clock()
    for cell in task.cells:
        with reporting_failure([cell], report):
            report(Started(cell.id))
            tables = _tables(cell, task, files, report)
            report(finished(cell, tables, task, clock.lap()))


def _tables(cell: Cell, task: Task, files: Files, report: Report) -> dict[str, Rows]:
    """Returns the rows of a trial; of one whose artifact is published already, as they are there.

    A kill between publication and the rows' commit then costs no second trial.
    """
    work = cell.work
    if not isinstance(work, FinetuneWork) or cell.checkpoint is None:
        raise ValueError(f"a cell of kind {work.kind} is no trial")

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done, total))

    if files.artifact(cell.id, ROWS) is None:
        with (
            artifacts.resumable_artifact(files, cell.id) as folder,
            fixed_threads(work.recipe.threads),
            holding(cell.checkpoint, work.recipe.dtype, task.device, files, progress) as held,
        ):
            tables = _run(work, held, files, folder, progress)
            for state in folder.iterdir():  # Of the epochs; it has done its duty.
                state.unlink()
            (folder / ROWS).write_text(json.dumps(tables))
    found: dict[str, Rows] = artifacts.published_rows(files, cell.id)
    return found


@phase("train")
def _run(
    work: FinetuneWork,
    held: Held,
    files: Files,
    folder: Path,
    report: Callable[[int, int], None],
) -> dict[str, Rows]:
    """Runs a trial and returns its rows by table, side tables first.

    Raises:
        TrialDivergedError: Its loss is no longer a number, and it is no later trial of a search:
            there, that a rate is too large is a result.
    """
    loaded, recipe = held.loaded, work.recipe
    model = loaded.model
    check_logits(model)
    longest = getattr(model.config, "max_position_embeddings", None) or work.max_length
    pairs = tokenized(work, loaded.tokenizer, files, longest)
    device = model.get_output_embeddings().weight.device
    by_length = sorted(range(len(pairs.validation)), key=lambda n: -len(pairs.validation[n].tokens))
    validation = batches(pairs.validation, by_length, _VALIDATION_BATCH, device)
    text = None
    if work.sequences is not None:
        drawn = load_sequences(artifacts.whole(files, work.sequences, _SEQUENCES))
        text = drawn.first(work.dataset_sequences)

    def text_loss() -> float | None:
        return None if text is None else _loss_of_text(model, text)

    losses = Losses()
    shared = (pairs.fingerprint, text.fingerprint if text else None, recipe.threads)
    if shared not in held.losses:
        held.losses[shared] = validation_loss(model, validation), text_loss()
    losses.none, losses.text_pre = held.losses[shared]
    with intervened_head(loaded, recipe) as untied, adapted(loaded, recipe) as tuned:
        # With the fresh adapters in place, which change nothing: then training nothing, or at a
        # rate of 0, changes no bit of the loss.
        losses.pre = validation_loss(model, validation)
        if recipe.intervention == "none":
            losses.none = losses.pre
        try:
            course = train(
                tuned, pairs.training, validation, recipe, folder, _judge(work, files), report
            )
            losses.post, losses.text_post = validation_loss(model, validation), text_loss()
        except TrialDivergedError as error:
            if work.halving is None:
                raise
            course = error.course
        return trial_rows(work, pairs, tuned, untied, course, losses)


def _judge(work: FinetuneWork, files: Files) -> Callable[[int, float], bool]:
    """Returns what tells after an epoch whether the trial goes on."""
    halving = work.halving
    if halving is None:
        return lambda _epoch, _loss: True
    courses = [
        artifacts.published_rows(files, rival)[work.table][0]["validation_losses"]
        for rival in work.rivals
    ]

    def judge(epoch: int, loss: float) -> bool:
        if not is_rung(halving, epoch, work.recipe.epochs):
            return True
        before = [course[epoch - 1] for course in courses if len(course) >= epoch]
        return goes_on(loss, before, halving.reduction)

    return judge


def _loss_of_text(model: object, text: TokenSequences) -> float:
    passed = forward_pass(
        model,
        text,
        batch_size=_TEXT_BATCH,
        layers=False,
        loss=True,
        report=lambda _done, _total: None,
    )
    assert passed.loss_sums is not None
    return float(passed.loss_sums.sum()) / float(passed.loss_counts.sum())
