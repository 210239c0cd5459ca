"""Slow, obvious oracles of the ∞-gram model and of memorization: they count, and share no code."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

Documents = Sequence[Sequence[int]]


class Counts:
    """How often every n-gram up to a length occurs, each document by itself."""

    def __init__(self, documents: Documents, longest: int) -> None:
        self.grams = Counter(
            tuple(document[start:end])
            for document in documents
            for start in range(len(document))
            for end in range(start + 1, min(start + longest, len(document)) + 1)
        )
        # The empty one occurs at every token, and where a document begins.
        self.grams[()] = sum(len(document) + 1 for document in documents)

    def infinigram(self, context: Sequence[int], token: int) -> tuple[float, int]:
        """P(token | longest suffix of the context that occurs), and that suffix's length."""
        for length in range(len(context), -1, -1):
            suffix = tuple(context[len(context) - length :])
            if self.grams[suffix]:
                return self.grams[(*suffix, token)] / self.grams[suffix], length
        raise AssertionError("the empty suffix always occurs")

    def answer(self, context: Sequence[int], answer: Sequence[int]) -> list[tuple[float, int]]:
        return [
            self.infinigram([*context, *answer[:place]], token)
            for place, token in enumerate(answer)
        ]


def memorization(
    policy: str,
    corpus: Sequence[Sequence[float]],
    model: Sequence[Sequence[float]],
    floor: float,
) -> tuple[float, float, int]:
    """Spearman r, partial r given length, and examples kept, from products of probabilities."""
    pairs = []
    for by_corpus, by_model in zip(corpus, model, strict=True):
        zeros = [p == 0 for p in by_corpus]
        left, right = list(by_corpus), list(by_model)
        if policy == "drop_token":
            left = [p or 1.0 for p in left]
        elif policy == "drop_token_both":
            left = [p for p, zero in zip(left, zeros, strict=True) if not zero]
            right = [p for p, zero in zip(right, zeros, strict=True) if not zero]
            if not left:
                continue
        elif policy == "drop_example":
            if any(zeros):
                continue
        else:
            left = [p or floor for p in left]
        pairs.append((math.log(math.prod(left)), math.log(math.prod(right)), len(by_corpus)))
    x, y, lengths = (np.round(series, 9) for series in zip(*pairs, strict=True))
    return float(stats.spearmanr(x, y).statistic), partial(x, y, lengths), len(pairs)


def partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Correlation of what a straight line in the ranks of the third leaves of the others' ranks."""
    ranks = [stats.rankdata(series) for series in (x, y, given)]
    design = np.stack([np.ones(len(x)), ranks[2]], axis=1)
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    return float(np.corrcoef(*left)[0, 1])
