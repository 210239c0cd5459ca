"""Reinforcement learning with verifiable rewards: the problems in order, and what is rewarded."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jobs.errors import DataError
from jobs.posttrain_work import PosttrainWork
from workers.finetune.chats import Example
from workers.grade import Grader

SPREAD = "reward_std_of_a_problem"
"""What the trainer logs the mean standard deviation within a problem's completions as."""


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


def reward(grade: Grader, completions_of_a_problem: int) -> Callable[..., list[float]]:
    """Returns the reward function: 1 for a right completion, else 0."""

    def correct(
        completions: Sequence[Any],
        problem: Sequence[str],
        reference: Sequence[str],
        log_metric: Callable[[str, float], None],
        **_others: Any,
    ) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        rewards = [float(g.correct) for g in grade(problem, reference, texts)]
        groups = np.reshape(rewards, (-1, completions_of_a_problem))
        log_metric(SPREAD, float(groups.std(axis=1, ddof=1).mean()))
        return rewards

    return correct


def _prompt_length(prompt: Any, tokenizer: Any) -> int:
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
