"""Questions put to a loaded checkpoint by lm-eval's own evaluation.

Invariant: a metric of lm-eval's has the value that lm-eval's command line gives on the same
folder, records and batch size. Where a task has several filters, the first one counts.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lm_eval.api.metrics import mean, mean_stderr, perplexity
from lm_eval.evaluator import evaluate
from transformers.utils import logging as transformers_logging

from jobs.capability_work import EvalWork
from jobs.errors import DataError
from jobs.questions import PicoQuestions, Questions
from workers.artifacts import Files
from workers.harness import asking, load_task, rewind, right_options, template_fingerprint
from workers.hub import LoadedCheckpoint
from workers.measure import Rows
from workers.pico_tasks import chance_level
from workers.scoring import LoadedModel, tie_credit

_GUESSABLE = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_tie")


@dataclass(frozen=True)
class Answer:
    """An example with the checkpoint's answer.

    Attributes:
        example: Place in the task.
        document: The task's record.
        right: Places of the right options; empty where none is right or wrong by itself.
        options: Number of options; 0 for free answers.
        log_likelihoods: Of each option's, or the answer's, tokens given the prompt.
        response: The generated answer, before any filter.
        metrics: What lm-eval aggregates, by metric, and acc_tie.
        truncated: Whether it was cut to fit the context.
    """

    example: int
    document: dict[str, Any]
    right: frozenset[int]
    options: int
    log_likelihoods: tuple[float, ...]
    response: str | None
    metrics: dict[str, Any]
    truncated: bool


def eval_rows(
    work: EvalWork,
    checkpoint: LoadedCheckpoint,
    files: Files,
    batch_size: int,
    report: Callable[[int, int], None],
) -> tuple[Rows, Rows]:
    """Returns the rows of `evals`, one per metric and subset, and of its side table `outcomes`.

    Args:
        work: The questions.
        checkpoint: What is asked.
        files: Where the questions' records are.
        batch_size: Requests per forward pass.
        report: Called with (requests done, all requests).

    Raises:
        DataError: A task that cannot be asked; likelihoods that are not finite.
        OSError: The hub cannot be reached.
    """
    questions = work.questions
    task = load_task(questions, files)
    model = LoadedModel(checkpoint, batch_size, report)
    answers = _answers(questions, task, model)
    shared = {
        "task": questions.name,
        "forward_dtype": work.dtype,
        "shots": task.config.num_fewshot,
        "template_fingerprint": template_fingerprint(task.instances),
    }
    metrics = dict.fromkeys(name for answer in answers for name in answer.metrics)
    rows = [
        shared | _row(questions, task, metric, subset, among)
        for subset, among in _subsets(questions, answers).items()
        for metric in metrics
    ]
    return rows, [_outcome(questions, answer) for answer in answers]


def _answers(questions: Questions, task: Any, model: LoadedModel) -> list[Answer]:
    """Returns lm-eval's samples, in order."""
    rewind(task)
    with asking(questions.name), _quiet():
        found = evaluate(
            model,
            {"tasks": {questions.name: task}},
            limit=questions.limit,
            cache_requests=False,
            bootstrap_iters=0,
            log_samples=True,
        )
        samples = found["samples"][questions.name]
        first = samples[0]["filter"]
        return [_answer(task, model, each) for each in samples if each["filter"] == first]


def _answer(task: Any, model: LoadedModel, sample: dict[str, Any]) -> Answer:
    document = sample["doc"]
    responses = [given[0] for given in sample["resps"]]
    metrics = {name: sample[name] for name in sample["metrics"]}
    right: frozenset[int] = frozenset()
    options = 0
    likelihoods: tuple[float, ...] = ()
    if task.OUTPUT_TYPE != "generate_until":
        likelihoods = tuple(value for value, _ in responses)
    if task.OUTPUT_TYPE == "multiple_choice":
        options = len(task.doc_to_choice(document))
        # Some tasks ask for every option's likelihood without a prompt as well, after the others.
        likelihoods = likelihoods[:options]
        # A task that scores in a way of its own may have no right option.
        if not callable(task.config.process_results):
            right = right_options(task, document)
            metrics["acc_tie"] = tie_credit(likelihoods, right)
    return Answer(
        example=sample["doc_id"],
        document=document,
        right=right,
        options=options,
        log_likelihoods=likelihoods,
        response=str(responses[0]) if task.OUTPUT_TYPE == "generate_until" else None,
        metrics=metrics,
        truncated=sample["doc_id"] in model.truncated,
    )


def _subsets(questions: Questions, answers: Sequence[Answer]) -> dict[str, Sequence[Answer]]:
    """Returns the examples of each subset.

    Questions of a pico corpus are parted at the median of the frequencies of the examples asked:
    frequent are those above it, rare all others. Where nothing is above the median, there are no
    halves.
    """
    subsets: dict[str, Sequence[Answer]] = {"all": answers}
    if isinstance(questions, PicoQuestions):
        median = statistics.median(answer.document["frequency"] for answer in answers)
        frequent = [answer for answer in answers if answer.document["frequency"] > median]
        rare = [answer for answer in answers if answer.document["frequency"] <= median]
        if frequent:
            subsets |= {"frequent": frequent, "rare": rare}
    return subsets


def _row(
    questions: Questions, task: Any, metric: str, subset: str, answers: Sequence[Answer]
) -> dict[str, Any]:
    aggregate = task.aggregation().get(metric, mean)
    # A task that scores in a way of its own may leave an example out of a metric.
    values = [answer.metrics[metric] for answer in answers if metric in answer.metrics]
    with asking(questions.name):
        value = float(aggregate(values))
        if not math.isfinite(value):
            raise DataError(
                f"{metric} of task '{questions.name}' is {value}",
                "leave the metric out of a `config` of your own, or the task out of the study",
            )
        stderr = None
        if len(values) > 1 and aggregate in (mean, perplexity):
            stderr = float(mean_stderr(values))
            if aggregate is perplexity:
                stderr *= value  # The derivative of exp(-x), by the delta method.
    return {
        "metric": metric,
        "subset": subset,
        "value": value,
        "stderr": stderr,
        "n": len(values),
        "chance": _chance(questions, metric, answers),
        "n_truncated": sum(answer.truncated for answer in answers),
    }


def _chance(questions: Questions, metric: str, answers: Sequence[Answer]) -> float | None:
    if isinstance(questions, PicoQuestions):
        return chance_level(questions, [answer.document for answer in answers])
    if metric not in _GUESSABLE or not all(answer.right for answer in answers):
        return None
    return sum(len(answer.right) / answer.options for answer in answers) / len(answers)


def _outcome(questions: Questions, answer: Answer) -> dict[str, Any]:
    metrics = answer.metrics
    acc = metrics.get("acc", metrics.get("exact_match"))
    return {
        "task": questions.name,
        "example": answer.example,
        "label": next(iter(answer.right)) if len(answer.right) == 1 else None,
        "log_likelihoods": list(answer.log_likelihoods) or None,
        "response": answer.response,
        "acc": None if acc is None else float(acc),
        "acc_norm": metrics.get("acc_norm"),
        "acc_tie": metrics.get("acc_tie"),
        "truncated": answer.truncated,
        "frequency": (
            answer.document["frequency"] if isinstance(questions, PicoQuestions) else None
        ),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from warning of what lm-eval does with long prompts and greedy answers."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
