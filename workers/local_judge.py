"""A judge on this machine: it prefers the answer that is likelier to a checkpoint.

It reads no answers against each other and follows no instruction to judge: what it tells is which
answer the checkpoint would rather give.
"""

import math
from typing import Any

import torch

from jobs.errors import DataError
from workers.hub import LoadedCheckpoint
from workers.judge import Verdict
from workers.respond import prompt_tokens


class LikelihoodJudge:
    """Compares mean log-likelihoods per token.

    Args:
        checkpoint: The judge.
    """

    def __init__(self, checkpoint: LoadedCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._known: dict[tuple[str, str], float] = {}

    def ask(self, instruction: str, first: str, second: str) -> Verdict:
        """Returns the preference 1 + σ(ℓ₂ − ℓ₁), with ℓ the mean log-likelihood per token.

        It is that of the Bradley-Terry model with ℓ as strengths.
        """
        first_mean, second_mean = (self._mean(instruction, answer) for answer in (first, second))
        return Verdict(1 + 1 / (1 + math.exp(first_mean - second_mean)), False, 0)

    @torch.no_grad()
    def _mean(self, instruction: str, answer: str) -> float:
        """Returns an answer's mean log-likelihood per token, its end of text among them.

        What doesn't fit into the context is cut: of the prompt its beginning, down to one half of
        the context, and of the answer its end.

        Raises:
            DataError: It is no number; or the answer has no tokens, and nothing ends a text.
        """
        if (instruction, answer) in self._known:
            return self._known[instruction, answer]
        model, tokenizer = self._checkpoint.model, self._checkpoint.tokenizer
        prompt, _ = prompt_tokens(tokenizer, instruction)
        tokens: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if tokenizer.eos_token_id is not None:
            tokens = [*tokens, tokenizer.eos_token_id]
        context = getattr(model.config, "max_position_embeddings", None)
        if context is not None and len(prompt) + len(tokens) > context:
            prompt = prompt[-max(1, min(len(prompt), max(context // 2, context - len(tokens)))) :]
            tokens = tokens[: context - len(prompt)]
        if not tokens or not prompt:
            raise DataError(
                "the local judge's tokenizer gives an answer no tokens",
                "name a judge whose tokenizer has an end of text",
            )
        mean = _mean_log_likelihood(model, prompt, tokens)
        if not math.isfinite(mean):
            raise DataError(
                f"the local judge gives an answer the log-likelihood {mean}",
                "name another checkpoint",
            )
        self._known[instruction, answer] = mean
        return mean


def _mean_log_likelihood(model: Any, prompt: list[int], tokens: list[int]) -> float:
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([prompt + tokens], device=device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    wanted = ids[0, len(prompt) :]
    return float(logits.log_softmax(-1).gather(1, wanted[:, None]).double().mean())
