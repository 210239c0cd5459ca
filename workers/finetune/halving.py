"""Asynchronous successive halving, as a pure rule over the losses of a search.

Invariant: whether a trial goes on follows from its own loss and from those of the trials that came
before it in the search's order, never from what else runs at the time.
"""

import math
from collections.abc import Sequence

import numpy as np

from jobs.finetune_work import Halving


def is_rung(halving: Halving, epoch: int, epochs: int) -> bool:
    """Tells whether a trial is judged after an epoch: grace · reduction^k, short of the last."""
    rung = halving.grace_epochs
    while rung < epoch:
        rung *= halving.reduction
    return rung == epoch < epochs


def goes_on(loss: float, before: Sequence[float], reduction: int) -> bool:
    """Tells whether a trial is among the best 1/reduction at its rung.

    The rule is that of ASHA (Li et al., 2020, arXiv:1810.05934) as Ray Tune applies it: the cutoff
    is the quantile of those that came to the rung before, linearly interpolated.

    Args:
        loss: Validation loss of the trial at the rung.
        before: Losses at the rung of the trials that came there before.
        reduction: One in so many goes on.
    """
    gains = [-value for value in before if math.isfinite(value)]
    return not gains or -loss >= float(np.percentile(gains, (1 - 1 / reduction) * 100))
