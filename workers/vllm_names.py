"""vLLM taught the names that transformers 5 gives to tensors, in every process that imports this.

The processes among which an engine splits its weights import it as the home of `Nothing`.
"""

from collections.abc import Iterable

import torch
import vllm
from vllm.model_executor.models.gpt_neox import GPTNeoXForCausalLM


class RenamedHead(GPTNeoXForCausalLM):
    """GPT-NeoX whose head may be called `lm_head`, as transformers 5 saves it."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Loads weights under either name."""
        return super().load_weights(
            (f"embed_out.{name[8:]}" if name.startswith("lm_head.") else name, tensor)
            for name, tensor in weights
        )


class Nothing:
    """What an engine's processes are extended by."""


# Renamed on the way, a checkpoint of many gigabytes needs no copy.
vllm.ModelRegistry.register_model("GPTNeoXForCausalLM", RenamedHead)
