"""What a judge is asked, and what its reply says."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST, SECOND = "m", "M"
"""AlpacaEval's names of the two answers, each one token of most tokenizers."""


@dataclass(frozen=True)
class Reply:
    """What a reply says.

    Attributes:
        preference: From 1 (the first answer) to 2 (the second); None where it names neither.
        weighted: Whether log-probabilities weigh it.
    """

    preference: float | None
    weighted: bool


def filled(prompt: str, instruction: str, first: str, second: str) -> str:
    """Returns a judge's prompt; what looks like a place within the texts is left as it is."""
    texts = {"{instruction}": instruction, "{output_1}": first, "{output_2}": second}
    places = "|".join(re.escape(place) for place in texts)
    return re.sub(places, lambda found: texts[found.group()], prompt)


def read_reply(completion: Mapping[str, Any]) -> Reply:
    """Returns what a chat completion says.

    With log-probabilities: AlpacaEval 2's weighted preference 2 − P(m) / (P(m) + P(M)), from the
    likeliest tokens in the place where the answer's name stands; one of the two that is not among
    them counts as impossible. Without: 1 or 2.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: It is no chat completion.
    """
    choice = completion["choices"][0]
    text = choice["message"]["content"] or ""
    told = choice.get("logprobs")
    for place in (told.get("content") if told else None) or ():
        if (preference := _weighted(place)) is not None:
            return Reply(preference, True)
    named = text.strip().strip("\"'`*.() ")
    return Reply({FIRST: 1.0, SECOND: 2.0}.get(named), False)


def _weighted(place: Mapping[str, Any]) -> float | None:
    """Returns the preference of one token's alternatives; None if no name is among them.

    Only a place whose own token is a name counts, so that in a longer answer an article or a
    bracket before it, whose alternatives hold a name too, isn't mistaken for it.
    """
    if str(place["token"]).strip() not in {FIRST, SECOND}:
        return None
    likelihoods = {FIRST: 0.0, SECOND: 0.0}
    for other in place.get("top_logprobs") or (place,):
        name, value = str(other["token"]).strip(), float(other["logprob"])
        if name in likelihoods and not math.isnan(value):
            likelihoods[name] += math.exp(min(0.0, value))
    whole = sum(likelihoods.values())
    return 2 - likelihoods[FIRST] / whole if whole > 0 else None
