"""Runs tasks: the cells of one checkpoint, or one cell that makes something.

A checkpoint is loaded once, and one forward pass per text feeds every cell that reads it. What a
cell made or why it couldn't is told through `report`; no error leaves this module but a kill.
"""

import json
import time
from contextlib import ExitStack

import torch

from jobs.capability_work import ChatsWork, IndexWork, InfinigramWork
from jobs.cells import Cell
from jobs.events import Progress, Started
from jobs.findings import AuditWork
from jobs.finetune_work import FinetuneWork
from jobs.posttrain_work import PassKWork, PosttrainWork, SampleWork
from jobs.toy_work import ToyWork
from jobs.winrate_work import WinrateWork
from jobs.work import CheckpointWork, CorpusWork, PretrainWork, SequencesWork
from workers import artifacts, corpus, engines
from workers.artifacts import ROWS, Files
from workers.audit import known_rows
from workers.checkpoint_task import measure_checkpoint
from workers.finetune import held
from workers.measure import Rows
from workers.pretrain import pretrain
from workers.sequences import draw_sequences
from workers.telling import Report, Task, finished, reporting_failure
from workers.toy import toy_rows


def run_task(task: Task, files: Files, report: Report) -> None:
    """Runs the cells of a task and reports each as finished or failed.

    Args:
        task: The cells.
        files: Where this node finds and puts artifacts.
        report: Takes the events.
    """
    torch.set_num_threads(task.threads)
    first = task.cells[0]
    if isinstance(first.work, SampleWork | PassKWork):
        held.let_go()
        # Imported here: only what samples needs it.
        from workers.sample import sample_checkpoint

        sample_checkpoint(task, files, report)
        return
    engines.let_go()
    if isinstance(first.work, FinetuneWork):
        # Imported here: only what fine-tunes needs it.
        from workers.finetune.trials import finetune_checkpoint

        finetune_checkpoint(task, files, report)
        return
    held.let_go()
    if isinstance(first.work, PosttrainWork):
        # Imported here: only what post-trains needs it.
        from workers.finetune.stages import post_train

        post_train(task, files, report)
        return
    if first.checkpoint is not None:
        with reporting_failure(task.cells, report), ExitStack() as stack:

            def fetched(done: int, total: int) -> None:
                report(Progress(first.id, done, total))

            source, tokenizer = first.checkpoint.source, first.checkpoint.tokenizer
            weights = stack.enter_context(artifacts.held(files, source, fetched))
            vocabulary = stack.enter_context(artifacts.held(files, tokenizer, fetched))
            measure_checkpoint(source, weights, vocabulary, task, files, report)
        return
    for cell in task.cells:
        with reporting_failure([cell], report):
            report(Started(cell.id))
            started = time.perf_counter()
            tables = _tables(cell, task, files, report)
            report(finished(cell, tables, task, time.perf_counter() - started))


def _tables(cell: Cell, task: Task, files: Files, report: Report) -> dict[str, Rows]:
    """Returns the rows of a cell without a checkpoint by table, side tables first."""
    if isinstance(cell.work, WinrateWork):
        # Imported here: only what judges needs it.
        from workers.winrate import winrate_tables

        return winrate_tables(
            cell.id,
            cell.work,
            files,
            task.device,
            lambda done, total: report(Progress(cell.id, done, total)),
        )
    return {cell.work.table: _rows(cell, report) or _make_artifact(cell, files, report)}


def _rows(cell: Cell, report: Report) -> Rows | None:
    """Returns the rows of a cell that makes no artifact: of runs, or of what the plan knows."""
    match cell.work:
        case ToyWork() as work:
            return toy_rows(work, lambda done, total: report(Progress(cell.id, done, total)))
        case AuditWork() as work:
            return known_rows(work)
        case CheckpointWork(refusal) if refusal is not None:
            return known_rows(refusal)
        case _:
            return None


def _make_artifact(cell: Cell, files: Files, report: Report) -> Rows:
    """Makes a cell's artifact with its rows in it, or reads the rows of a published one.

    A kill between publication and the row's commit then costs no second making.
    """

    def progress(done: int, total: int) -> None:
        report(Progress(cell.id, done, total))

    if files.artifact(cell.id, ROWS) is None:
        match cell.work:
            case CorpusWork() as work:
                with artifacts.fresh_artifact(files, cell.id) as folder:
                    rows: Rows = [corpus.build(work.corpus, work.source, folder, progress)]
                    (folder / ROWS).write_text(json.dumps(rows))
            case SequencesWork() as work:
                with artifacts.fresh_artifact(files, cell.id) as folder:
                    text = artifacts.text_of(files, work.text)
                    with artifacts.held(files, work.tokenizer, progress) as tokenizer:
                        drawn = draw_sequences(text, work.draw, tokenizer, folder, progress)
                    (folder / ROWS).write_text(json.dumps([{"dataset": work.dataset, **drawn}]))
            case ChatsWork() as work:
                # Imported here: only chats need the trainer's templates.
                from workers.finetune.chat_sequences import draw_chats

                with (
                    artifacts.fresh_artifact(files, cell.id) as folder,
                    artifacts.held(files, work.tokenizer, progress) as tokenizer,
                ):
                    row = draw_chats(work, files, tokenizer, folder, progress)
                    (folder / ROWS).write_text(json.dumps([{"dataset": work.dataset, **row}]))
            case IndexWork() as work:
                # Imported here: only what counts in a corpus needs it.
                from workers.corpus_index import build_index

                with (
                    artifacts.fresh_artifact(files, cell.id) as folder,
                    artifacts.held(files, work.tokenizer, progress) as tokenizer,
                ):
                    rows = [build_index(work, files, tokenizer, folder, progress)]
                    (folder / ROWS).write_text(json.dumps(rows))
            case InfinigramWork() as work:
                from workers.infinigram import look_up

                with (
                    artifacts.fresh_artifact(files, cell.id) as folder,
                    artifacts.held(files, work.tokenizer, progress) as tokenizer,
                ):
                    rows = look_up(work, files, tokenizer, folder, progress)
                    (folder / ROWS).write_text(json.dumps(rows))
            case PretrainWork() as work:
                with artifacts.resumable_artifact(files, cell.id) as folder:
                    source = artifacts.whole(files, work.corpus)
                    rows = pretrain(work.model, source, folder, progress)
                    (folder / ROWS).write_text(json.dumps(rows))
            case _:
                raise ValueError(f"a cell of kind {cell.work.kind} makes no artifact")
    found: Rows = artifacts.published_rows(files, cell.id)
    return found
