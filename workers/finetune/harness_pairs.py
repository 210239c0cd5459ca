"""The prompts of lm-eval's tasks with their right answers, as an evaluation asks them."""

from collections.abc import Iterable
from typing import Any, Literal

from jobs.errors import DataError
from jobs.finetune_work import HarnessPairs
from jobs.questions import HarnessQuestions, HubData
from workers.artifacts import Files
from workers.harness import asking, load_task, right_options


def solved(
    examples: HarnessPairs, side: Literal["training", "validation"], files: Files
) -> list[tuple[str, str]]:
    """Returns prompts and right answers; where several answers are right, the first.

    Prompts have no solved examples before them. Answers are led by what the task puts before them.

    Args:
        examples: The task and its records.
        side: Which of them.
        files: Where the records are.

    Raises:
        DataError: A task that cannot be asked or, on the hub, lacks the split; a record without a
            right answer.
        OSError: The hub cannot be reached.
    """
    records = examples.training if side == "training" else examples.validation
    task = load_task(
        HarnessQuestions(examples.name, examples.task, examples.config, records, 0, None), files
    )
    with asking(examples.name):
        documents = _split(task, examples.name, side) if isinstance(records, HubData) else None
        return [
            _solve(task, place, document)
            for place, document in enumerate(task.eval_docs if documents is None else documents)
        ]


def _split(task: Any, name: str, side: str) -> Iterable[Any]:
    """Returns the records of a split of a task on the hub."""
    split = task.config.training_split if side == "training" else task.config.validation_split
    if split is None or split not in task.dataset:
        lacking = "it names none" if split is None else f"its dataset has no '{split}'"
        raise DataError(
            f"task '{name}' can't be fine-tuned on: it has no {side} split on the hub ({lacking})",
            f"give tasks.{name}.training_data and tasks.{name}.data, JSONL files of your own",
        )
    found: Iterable[Any] = task.training_docs() if side == "training" else task.validation_docs()
    return found


def _solve(task: Any, place: int, document: dict[str, Any]) -> tuple[str, str]:
    prefix = task.doc_to_prefix(document)
    asked = task.fewshot_context(document, 0, gen_prefix=prefix)
    match task.OUTPUT_TYPE:
        case "multiple_choice":
            request = task.construct_requests(document, asked)[min(right_options(task, document))]
            prompt, answer = request.args[:2]
        case "loglikelihood":
            prompt, answer = task.construct_requests(document, asked).args[:2]
        case _:
            prompt, target = asked, _target(task, document)
            # As it stands in solved examples.
            delimiter = " " if prefix else task.config.target_delimiter
            apart = prompt[-1:].isspace() or target[:1].isspace()
            answer = target if apart else delimiter + target
    if not answer.strip():
        raise DataError(
            f"task '{task.config.task}': the right answer of record {place} is empty",
            "check the records; some published test sets have no answers",
        )
    return prompt, answer


def _target(task: Any, document: dict[str, Any]) -> str:
    """Returns the answer that a generation is compared with, the first where there are several."""
    target = task.doc_to_target(document)
    if isinstance(target, list):
        target = target[0]
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(document)[target]
    return str(target)
