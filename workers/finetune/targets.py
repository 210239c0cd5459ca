"""Which linear layers of a model get adapters: by role, by name, or by the end of a name."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from jobs.errors import DataError, nearest

_PROJECTIONS = (
    *(("q_proj",), ("k_proj",), ("v_proj",)),  # Llama, OLMo, OPT, GPT-J and most others.
    *(("q_a_proj",), ("q_b_proj",), ("kv_a_proj_with_mqa",), ("kv_b_proj",)),  # DeepSeek.
    *(("query_key_value",), ("c_attn",), ("qkv_proj",), ("Wqkv",)),  # All three in one.
    # Alone, these names say less: RWKV's feed-forward layers have a `key` and a `value`.
    *(("query", "key", "value"), ("Wq", "Wk", "Wv")),
)
"""Names of query, key and value projections that a module has side by side."""


def adapted_layers(model: Any, targets: Sequence[str], rank: int) -> dict[str, nn.Module]:
    """Finds the layers that targets stand for.

    Args:
        model: A transformers causal language model.
        targets: `attention` (query, key and value projections), `head` (the output embedding),
            names of modules, or what their names end in, from a dot on.
        rank: Rank of the adapters to come.

    Returns:
        Layers by name, each once, in the model's order but the head last, so that the others are
        numbered alike with and without it.

    Raises:
        DataError: A target that no module answers to, or one that isn't linear; a rank above the
            smaller side of a layer.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    head = model.get_output_embeddings()
    wanted: set[str] = set()
    for target in targets:
        if target == "attention":
            found = set(_attention(modules))
            if not found:
                raise DataError(
                    f"no query, key and value projections were found in {type(model).__name__}",
                    f"name modules in `targets` instead of attention: {_linear_names(modules)}",
                )
        elif target == "head":
            found = {name for name, module in modules.items() if module is head}
        else:
            found = {name for name in modules if name == target or name.endswith(f".{target}")}
        if not found:
            names = [name.rpartition(".")[2] for name in modules]
            raise DataError(
                f"{type(model).__name__} has no module {target!r}{nearest(target, names)}",
                f"linear ones in it are {_linear_names(modules)}",
            )
        wanted |= found
    for name in sorted(wanted):
        _check(name, modules[name], rank)
    ordered = sorted((name for name in modules if name in wanted), key=lambda n: modules[n] is head)
    return {name: modules[name] for name in ordered}


def _attention(modules: dict[str, nn.Module]) -> Iterator[str]:
    for name, module in modules.items():
        children = dict(module.named_children())
        for projections in _PROJECTIONS:
            if all(projection in children for projection in projections):
                yield from (f"{name}.{projection}" for projection in projections)


def _check(name: str, module: nn.Module, rank: int) -> None:
    if not isinstance(module, nn.Linear | Conv1D):
        raise DataError(
            f"module {name} is a {type(module).__name__}, and adapters are for linear layers",
            "name linear ones in `targets`",
        )
    smaller = min(module.weight.shape)
    if rank > smaller:
        raise DataError(
            f"rank {rank} is above {smaller}, the smaller side of {name} "
            f"{tuple(module.weight.shape)}",
            "lower the rank",
        )


def _linear_names(modules: dict[str, nn.Module]) -> str:
    """Returns the last parts of linear layers' names, for a message."""
    linear = (name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D))
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
