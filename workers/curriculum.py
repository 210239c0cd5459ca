"""Sums whose answers can be verified: the part of the pico corpus that post-training works on.

Invariant: everything follows from the seed, and no held-out sum occurs in a training document.

All numbers are written least significant digit first, since carries travel that way: the problem
`70+58,63+92=` asks for 7 + 85 and 36 + 29, and its answer is `290,560`. Operands are 0 … 99 in two
digits, sums 0 … 198 in three, so that a problem has 199² = 39,601 possible answers; the best blind
guess (99 for both sums) is right in one problem of 10⁴.

The units of a sum can't be told from one operand alone, and with uniform operands small models
were slow to find them. In the training documents a digit of the second operand is therefore drawn
with probability ∝ (1 + digit)^-1.5, so that copying the first operand is often right. The problems
of the files have uniform operands.

A tenth of the unordered operand pairs is held out: held-out problems consist of these sums alone,
training problems and documents contain none of them in either order. Records of
`arithmetic_train.jsonl`, for post-training, and `arithmetic_heldout.jsonl`: `problem`, `answer`.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 100
"""Operands are smaller than this."""
_HELDOUT_PAIRS = 0.1
_SKEW = 1.5
_DOCUMENT = 20
_ANSWER = re.compile(r"[0-9]{3}(,[0-9]{3})*")


@dataclass(frozen=True)
class Arithmetic:
    """Training documents and problems.

    Attributes:
        documents: Training documents: a problem followed by its answer.
        train: (problem, answer) without held-out sums, no problem twice.
        heldout: (problem, answer) of held-out sums alone, no problem twice.
    """

    documents: tuple[str, ...]
    train: tuple[tuple[str, str], ...]
    heldout: tuple[tuple[str, str], ...]


def solve(problem: str) -> str:
    """Returns the answer of an arithmetic problem such as `70+58,63+92=`."""
    sums = (part.split("+") for part in problem.rstrip("=").split(","))
    totals = (int(left[::-1]) + int(right[::-1]) for left, right in sums)
    return ",".join(f"{total:03d}"[::-1] for total in totals)


def grade(problem: str, answer: str) -> tuple[bool, bool]:
    """Judges an answer to an arithmetic problem: the reward of RLVR and the grader of pass@k.

    Args:
        problem: A problem as in the curriculum's files.
        answer: What a model wrote after it, up to its end-of-text or its first line break.

    Returns:
        (correct, well-formed); well-formed means as many three-digit numbers as sums, joined by
        commas, and nothing else.
    """
    text = answer.strip()
    well_formed = bool(_ANSWER.fullmatch(text)) and text.count(",") == problem.count(",")
    return text == solve(problem), well_formed


def arithmetic(tokens: int, train: int, heldout: int, seed: int) -> Arithmetic:
    """Draws sums for training and others to hold out.

    Args:
        tokens: Budget of the documents; every character is a token, and so is a document's end.
        train: Number of training problems to draw.
        heldout: Number of held-out problems to draw.
        seed: Seed of the split and of the draws.

    Returns:
        Documents that fill the budget but for less than one document, and the problems, a few
        less than asked for where the draw repeats itself.
    """
    generator = np.random.default_rng([seed, 1])
    held = np.triu(generator.random((LIMIT, LIMIT)) < _HELDOUT_PAIRS)
    held |= held.T
    digit = (1 + np.arange(10.0)) ** -_SKEW
    skewed = np.tile(np.outer(digit, digit).ravel(), (LIMIT, 1))
    uniform = np.ones((LIMIT, LIMIT))
    documents = _draw(np.where(held, 0, skewed), tokens // _DOCUMENT, generator)
    return Arithmetic(
        documents=tuple(problem + solve(problem) for problem in documents),
        train=_solved(_draw(np.where(held, 0, uniform), train, generator)),
        heldout=_solved(_draw(np.where(held, uniform, 0), heldout, generator)),
    )


def _draw(weights: NDArray[np.float64], count: int, generator: np.random.Generator) -> list[str]:
    """Draws problems of two sums; `weights[a, b]` is proportional to the probability of a + b."""
    share = weights.ravel() / weights.sum()
    chosen = generator.choice(LIMIT * LIMIT, size=(count, 2), p=share).tolist()
    sums = [
        f"{index // LIMIT:02d}"[::-1] + "+" + f"{index % LIMIT:02d}"[::-1]
        for index in range(LIMIT * LIMIT)
    ]
    return [f"{sums[first]},{sums[second]}=" for first, second in chosen]


def _solved(problems: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((problem, solve(problem)) for problem in dict.fromkeys(problems))
