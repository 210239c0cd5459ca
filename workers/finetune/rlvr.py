"""Reinforcement learning with verifiable rewards: the problems in order, and what is rewarded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.errors import DataError
from jobs.posttrain_work import PicoRecords, PosttrainWork, Records
from workers import curriculum
from workers.finetune.chats import Example

SPREAD = "reward_std_of_a_problem"
"""What the trainer logs the mean standard deviation within a problem's completions as."""


@dataclass(frozen=True)
class Grading:
    """What a grader says of an answer.

    Attributes:
        correct: Whether it is right.
        well_formed: Whether it has the form of an answer.
    """

    correct: bool
    well_formed: bool


Grade = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[Any]]
"""Grades answers, given (references, texts, problems)."""


@contextmanager
def grader(records: Records) -> Iterator[Grade]:
    """Gives the grader of some problems, which also grades the samples of pass@k.

    Raises:
        DataError: No grader knows such problems.
    """
    if not isinstance(records, PicoRecords):
        raise DataError(f"'{records.name}' cannot be graded", "use problems of a pico suite")

    def grade(
        _references: Sequence[str], texts: Sequence[str], problems: Sequence[str]
    ) -> list[Grading]:
        return [
            Grading(*curriculum.grade(problem, text.partition("\n")[0]))
            for problem, text in zip(problems, texts, strict=True)
        ]

    yield grade


def schedule(
    examples: Sequence[Example], work: PosttrainWork, tokenizer: Any, length: int
) -> list[Example]:
    """Returns the problems of all steps in order, so that a killed run goes on with the same ones.

    The trainer's own sampler begins anew when it is resumed in a later epoch.

    Args:
        examples: The problems.
        work: The stage.
        tokenizer: Tells how long their prompts are.
        length: Longest prompt with its completion, in tokens.

    Raises:
        DataError: No prompt leaves room for a completion.
    """
    training = work.training
    room = length - training.completion_tokens
    fitting = [e for e in examples if _prompt_length(e["prompt"], tokenizer) <= room]
    if not fitting:
        raise DataError(
            f"no problem of '{training.data}' is within {room} tokens, which is what "
            f"{training.completion_tokens} of the completion leave of {length}",
            "raise the stage's max_length, or lower its completion_tokens",
        )
    count = training.steps * training.batch_size * training.accumulation // training.completions
    order: list[int] = []
    while len(order) < count:
        epoch = len(order) // len(fitting)
        order += np.random.default_rng([work.seed, epoch]).permutation(len(fitting)).tolist()
    return [fitting[place] for place in order[:count]]


def reward(grade: Grade, completions_of_a_problem: int) -> Callable[..., list[float]]:
    """Returns the reward function: 1 for a right completion, else 0."""

    def correct(
        completions: Sequence[Any],
        problem: Sequence[str],
        reference: Sequence[str],
        log_metric: Callable[[str, float], None],
        **_others: Any,
    ) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        rewards = [float(g.correct) for g in grade(reference, texts, problem)]
        groups = np.reshape(rewards, (-1, completions_of_a_problem))
        log_metric(SPREAD, float(groups.std(axis=1, ddof=1).mean()))
        return rewards

    return correct


def _prompt_length(prompt: Any, tokenizer: Any) -> int:
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
