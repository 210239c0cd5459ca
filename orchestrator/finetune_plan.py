"""From a study to the cells that fine-tune its checkpoints."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError, nearest
from jobs.finetune_spec import Arm, Finetune
from jobs.finetune_work import (
    Examples,
    FinetuneWork,
    Halving,
    HarnessPairs,
    PairFiles,
    PicoPairs,
    Recipe,
)
from jobs.identity import FileHashes
from jobs.questions import HarnessQuestions
from jobs.sources import Produced
from jobs.spec import Study
from jobs.task_spec import HarnessTask, PairsTask, PicoTask, Task
from orchestrator.capability_plan import harness_questions
from orchestrator.hub_index import HubIndex
from orchestrator.named_inputs import corpus_of, text_files


def examples_in_use(
    study: Study, corpora: Mapping[str, str], hashes: FileHashes, index: HubIndex
) -> dict[str, Examples]:
    """Returns what is learned, by the study's names for the tasks.

    Raises:
        StudyError: A task that the study doesn't define, or that has nothing to train on; a file
            that is missing; a repository that is not there.
    """
    found: dict[str, Examples] = {}
    for name in study.finetune.tasks if study.finetune else ():
        if name not in study.tasks:
            raise StudyError(
                f"finetune.tasks names '{name}', which the study doesn't define"
                f"{nearest(name, tuple(study.tasks))}",
                f"add [tasks.{name}], or use one of {', '.join(study.tasks) or '(none)'}",
            )
        found[name] = _examples(name, study.tasks[name], corpora, hashes, index)
    return found


def check_finetuned(study: Study, checkpoints: list[Checkpoint]) -> None:
    """Refuses models and steps that no checkpoint has.

    Raises:
        StudyError: Nothing of that name, or at that step, could be fine-tuned.
    """
    asked = study.finetune
    if asked is None:
        return
    models = {checkpoint.model for checkpoint in checkpoints}
    for model in asked.models:
        if model not in models:
            raise StudyError(
                f"finetune.models names '{model}', which no suite has"
                f"{nearest(model, tuple(models))}",
                f"use one of {', '.join(sorted(models)) or '(none)'}",
            )
    steps = {c.step for c in checkpoints if not asked.models or c.model in asked.models}
    searched = asked.search.steps if asked.search else ()
    for where, wanted in (("finetune.steps", asked.steps), ("finetune.search.steps", searched)):
        if missing := [step for step in wanted if step not in steps]:
            known = ", ".join(map(str, sorted(s for s in steps if s is not None)))
            raise StudyError(
                f"{where}: no checkpoint has step {missing[0]}", f"use some of {known}"
            )


def finetune_cells(
    study: Study,
    checkpoint: Checkpoint,
    examples: Mapping[str, Examples],
    sequences: Mapping[str, Cell],
) -> list[Cell]:
    """Returns the trials of a checkpoint, those of a search after those that they are judged by."""
    asked = study.finetune
    if asked is None or not _is_wanted(checkpoint, asked.models, asked.steps):
        return []
    cells: list[Cell] = []
    for name, seed, arm in product(asked.tasks, asked.seeds, asked.arms):
        for rank in arm.ranks:
            work = _work(study, asked, arm, rank, seed, examples[name], sequences)
            cells.append(_cell(work, checkpoint))
            search = asked.search
            if search and arm.search and _is_wanted(checkpoint, (), search.steps):
                halving = Halving(search.grace_epochs, search.reduction)
                cells += _searched(work, search.learning_rates, halving, checkpoint)
    return cells


def _searched(
    work: FinetuneWork, rates: tuple[float, ...], halving: Halving, checkpoint: Checkpoint
) -> Iterator[Cell]:
    """Yields the trials of a search; the first is never stopped: a trial like any other."""
    rivals: list[str] = []
    for rate in rates:
        tried = replace(
            work,
            recipe=replace(work.recipe, learning_rate=rate),
            halving=halving if rivals else None,
            rivals=tuple(rivals),
        )
        cell = _cell(tried, checkpoint)
        rivals.append(cell.id)
        yield cell


def _cell(work: FinetuneWork, checkpoint: Checkpoint) -> Cell:
    source = checkpoint.source
    needs = dict.fromkeys(
        [
            *((source.cell_id,) if isinstance(source, Produced) else ()),
            *((work.examples.corpus,) if isinstance(work.examples, PicoPairs) else ()),
            *((work.sequences,) if work.sequences else ()),
            *work.rivals,
        ]
    )
    return Cell(work, tuple(needs), checkpoint)


def _work(
    study: Study,
    asked: Finetune,
    arm: Arm,
    rank: int,
    seed: int,
    examples: Examples,
    sequences: Mapping[str, Cell],
) -> FinetuneWork:
    recipe = Recipe(
        method=arm.method,
        intervention=arm.intervention,
        clip=arm.clip if arm.intervention == "clip" else None,
        rank=rank,
        targets=arm.targets,
        groups=arm.groups if arm.method == "norm_group_lora" else None,
        alpha=asked.alpha,
        dropout=asked.dropout,
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        weight_decay=asked.weight_decay,
        seed=seed,
        threads=asked.threads,
        dtype=study.forward.dtype,
    )
    return FinetuneWork(
        examples=examples,
        recipe=recipe,
        training_examples=asked.training_examples,
        validation_examples=asked.validation_examples,
        max_length=asked.max_length,
        template=asked.template,
        dataset=asked.dataset,
        sequences=sequences[asked.dataset].id if asked.dataset else None,
        dataset_sequences=asked.dataset_sequences,
    )


def _is_wanted(checkpoint: Checkpoint, models: tuple[str, ...], steps: tuple[int, ...]) -> bool:
    return (not models or checkpoint.model in models) and (not steps or checkpoint.step in steps)


def _examples(
    name: str,
    task: Task,
    corpora: Mapping[str, str],
    hashes: FileHashes,
    index: HubIndex,
) -> Examples:
    where = f"task '{name}'"
    match task:
        case PicoTask():
            return PicoPairs(name, corpus_of(where, task.suite, corpora), task.form)
        case PairsTask():
            training = text_files(f"{where}: training", task.training, "", "", hashes)
            validation = text_files(f"{where}: validation", task.validation, "", "", hashes)
            return PairFiles(name, training, validation, task.prompt, task.answer)
        case HarnessTask():
            if bool(task.data) != bool(task.training_data):
                given, lacking = (
                    ("data", "training_data") if task.data else ("training_data", "data")
                )
                needed = "train on" if task.data else "measure the validation loss on"
                raise StudyError(
                    f"{where} can't be fine-tuned on: it has `{given}` and no records to {needed}",
                    f"give tasks.{name}.{lacking}, JSONL files like those of `{given}`",
                )
            asked: HarnessQuestions = harness_questions(name, task, hashes, index)
            if not task.training_data:
                return HarnessPairs(name, asked.task, asked.config, asked.data, asked.data)
            training = text_files(f"{where}: training_data", task.training_data, "", "", hashes)
            return HarnessPairs(name, asked.task, asked.config, training, asked.data)
